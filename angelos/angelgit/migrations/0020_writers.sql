-- Who writes under which CRDT client id of a document: the first who sends it. Refuses edits in
-- another's name and edits of another document; blame asks it too.

create table angelgit_writer (
    document text not null,
    client bigint not null,
    principal text not null,
    primary key (document, client)
);

create index angelgit_writer_client on angelgit_writer (client);
