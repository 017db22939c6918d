-- Who may connect: nodes and agents, their certificates, enrolment tokens, quarantines.

create table principal (
    id text primary key check (id ~ '^(node|agent)/'),
    node_role text not null check (node_role in ('execution', 'labs', '')),
    enrolled_at double precision not null    -- Unix seconds, as all times here
);

-- Every certificate the CA has issued. One that is not here, or is denied, opens nothing.
create table certificate (
    serial text primary key,                 -- hex
    principal text not null references principal (id),
    not_after double precision not null,
    denied boolean not null default false
);

create index certificate_principal on certificate (principal);

-- Enrolment tokens, by the SHA-256 of their secret; each is used up once.
create table enrolment (
    secret_sha256 bytea primary key check (length(secret_sha256) = 32),
    principal text not null,
    node_role text not null,
    created_by text not null,
    replaces boolean not null,               -- it may take over the name of somebody who is live
    expires_at double precision not null,
    used_at double precision
);

create index enrolment_principal on enrolment (principal);

-- Principals that are refused. `fact` is the id of the fact that announces it, so that appending it
-- again after a crash changes nothing.
create table quarantine (
    principal text primary key,
    reason text not null,
    at double precision not null,
    fact text not null,
    announced boolean not null default false
);
