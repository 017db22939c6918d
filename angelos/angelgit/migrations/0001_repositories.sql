-- AngelGit: commits, contents, the documents of dev, proposals, and transactions that have begun.

create table angelgit_repo (
    name text primary key
);

-- Contents of files, CRDT states and manifests; compressed with zstd.
create table angelgit_blob (
    sha256 text primary key check (sha256 ~ '^[0-9a-f]{64}$'),   -- of the uncompressed bytes
    size bigint not null,
    body bytea not null
);

create table angelgit_commit (
    revision text primary key check (revision ~ '^[0-9a-f]{64}$'),
    repo text not null references angelgit_repo,
    parent text references angelgit_commit,                      -- the first parent
    manifest text not null references angelgit_blob,
    body bytea not null                                          -- MessagePack of SignedCommit
);

create table angelgit_branch (
    repo text not null references angelgit_repo,
    name text not null check (name in ('dev', 'main')),
    revision text not null references angelgit_commit,           -- advances by compare-and-set
    primary key (repo, name)
);

-- The live documents of dev, each with its newest snapshot.
create table angelgit_document (
    id text primary key,
    repo text not null references angelgit_repo,
    path text not null,
    mode integer not null,
    alive boolean not null,
    on_main boolean not null default false,                      -- main has or had this document
    state text not null references angelgit_blob,                -- contains the log up to `upto`,
    upto text not null,                                          -- has no deferred updates,
    sha256 text not null                                         -- and replays to this content
);

create unique index angelgit_document_path on angelgit_document (repo, path) where alive;

create table angelgit_proposal (
    id text primary key,
    repo text not null references angelgit_repo,
    digest text not null,
    status text not null check (status in ('proposed', 'merged', 'reverted', 'promoted')),
    merged text references angelgit_commit,                      -- the commits of dev
    reverted text references angelgit_commit,
    documents text[] not null,
    body bytea not null,                                         -- MessagePack of PreparedProposal
    inverses bytea                                               -- document -> update, once reverted
);

create index angelgit_proposal_reverted on angelgit_proposal using gin (documents)
    where status = 'reverted';

create table angelgit_candidate (
    proposal text not null references angelgit_proposal,
    main text not null references angelgit_commit,
    revision text not null references angelgit_commit,
    primary key (proposal, main)
);

create index angelgit_candidate_revision on angelgit_candidate (revision);

-- What AngelGit wrote into the working file of each document. It distinguishes our own writes from
-- edits by others, after a kill too. Contents are compressed with zstd.
create table angelgit_working_file (
    document text primary key references angelgit_document,
    content bytea,                                               -- after the last write
    intended bytea,                                              -- of a write that has begun
    edit bytea                                                   -- or: `intended` is on disk, and
);                                                               -- this update is its edit

-- A change of dev: stored before its first effect, removed with its last.
create table angelgit_transaction (
    id text primary key,
    repo text not null references angelgit_repo,
    body bytea not null                                          -- MessagePack of Transaction
);

-- Facts that are committed and that the journal may lack.
create table angelgit_outbox (
    number bigint generated always as identity primary key,
    body bytea not null
);
