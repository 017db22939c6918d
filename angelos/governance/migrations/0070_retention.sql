-- How far the outputs of ended tasks were erased, in each log (decision 52).

create table audit_expiry (
    origin text primary key,
    idx bigint not null
);
