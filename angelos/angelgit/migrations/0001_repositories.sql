-- AngelGit: commits, content, documents of dev, proposals, and changes that are under way.

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
    revision text not null references angelgit_commit,           -- moves by compare-and-set
    primary key (repo, name)
);

-- The live documents of dev, each with its newest snapshot.
create table angelgit_document (
    id text primary key,
    repo text not null references angelgit_repo,
    path text not null,
    mode integer not null,
    alive boolean not null,
    on_main boolean not null default false,                      -- main has (had) this document
    state text not null references angelgit_blob,                -- contains the log up to `upto`,
    upto text not null,                                          -- with nothing pending,
    sha256 text not null                                         -- and replays to this content
);

create unique index angelgit_document_path on angelgit_document (repo, path) where alive;

create table angelgit_proposal (
    id text primary key,
    repo text not null references angelgit_repo,
    digest text not null,
    state text not null check (state in ('proposed', 'merged', 'reverted', 'promoted')),
    merged text references angelgit_commit,                      -- the commits of dev
    reverted text references angelgit_commit,
    documents text[] not null,
    body bytea not null,                                         -- MessagePack of ProposalRecord
    inverses bytea                                               -- document -> update, once reverted
);

create index angelgit_proposal_reverted on angelgit_proposal using gin (documents)
    where state = 'reverted';

create table angelgit_candidate (
    proposal text not null references angelgit_proposal,
    main text not null references angelgit_commit,
    revision text not null references angelgit_commit,
    primary key (proposal, main)
);

create index angelgit_candidate_revision on angelgit_candidate (revision);

-- What the working file of each document holds by our doing, so that a write of somebody else can
-- be told from ours, also after a kill. Contents are compressed with zstd.
create table angelgit_print (
    document text primary key references angelgit_document,
    body bytea,                                                  -- what it holds
    next bytea,                                                  -- what it is about to hold
    taken bytea                                                  -- `next` is on disk already, and
);                                                               -- this update takes it in

-- A change of dev: written before its first effect, gone with its last.
create table angelgit_move (
    id text primary key,
    repo text not null references angelgit_repo,
    body bytea not null
);

-- Facts of committed transactions that the journal may not have yet.
create table angelgit_outbox (
    number bigint generated always as identity primary key,
    body bytea not null
);
