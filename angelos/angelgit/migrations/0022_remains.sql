-- What deleted cells of live notebooks held, with the CRDT id of each character: a page that has not
-- seen the deletion may type there for hours. MessagePack of Remains, compressed with zstd.

create table angelgit_remains (
    document text not null,
    client bigint not null,                                      -- the id of the cell
    clock bigint not null,
    number bigint generated always as identity,
    body bytea not null,
    primary key (document, client, clock)
);

create index angelgit_remains_newest on angelgit_remains (document, number desc);
