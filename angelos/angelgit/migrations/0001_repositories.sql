-- AngelGit, format 2: commits, objects, the documents of dev, proposals, blobs.
-- Hashes are SHA-256, as raw bytes.

create table angelgit_repo (
    name text primary key
);

-- Contents of files and directory objects (core/revision_v2.py), compressed with zstd; an object
-- with a base is compressed with that one as its dictionary, so it takes what differs.
create table angelgit_object (
    hash bytea primary key,
    directory boolean not null,
    size integer not null,
    base bytea,
    depth smallint not null,                                     -- how many bases lie below
    body bytea not null
);

alter table angelgit_object alter column body set storage external;

create table angelgit_commit (
    revision bytea primary key,
    repo text not null references angelgit_repo,
    parent bytea,                                                -- the first parent
    body bytea not null,                                         -- exact bytes, as they are signed
    signature bytea not null
);

create table angelgit_branch (
    repo text not null references angelgit_repo,
    name text not null,
    revision bytea not null references angelgit_commit,          -- moves by compare-and-set
    owner text,
    primary key (repo, name)
);

-- Every revision that main has or had.
create table angelgit_mainline (
    revision bytea primary key,
    repo text not null
);

-- The live documents of dev. The snapshot contains the log up to `upto`, has no deferred updates,
-- and replays to the content with this hash.
create table angelgit_document (
    id text primary key,
    repo text not null references angelgit_repo,
    path text not null,
    mode integer not null,
    alive boolean not null,
    upto text not null,
    sha256 bytea not null,
    state bytea not null                                         -- compressed with zstd
);

alter table angelgit_document alter column state set storage external;
create unique index angelgit_document_path on angelgit_document (repo, path) where alive;

-- Updates of live documents that are committed and that the log in Valkey may lack.
create table angelgit_update (
    number bigint generated always as identity primary key,
    repo text not null,
    document text not null,
    path text not null,
    body bytea not null
);

create table angelgit_proposal (
    id text primary key,
    repo text not null references angelgit_repo,
    digest bytea not null,
    status text not null check (status in ('proposed', 'merged', 'reverted', 'promoted')),
    merged bytea,                                                -- the commits of dev
    reverted bytea,
    promoted bytea,                                              -- the commit of main
    body bytea not null                                          -- MessagePack of PreparedProposal
);

create table angelgit_candidate (
    revision bytea not null,
    proposal text not null references angelgit_proposal,
    main bytea not null,
    primary key (proposal, main)
);

create index angelgit_candidate_revision on angelgit_candidate (revision);

-- Binary content, in pieces.
create table angelgit_blob (
    sha256 bytea primary key,
    size bigint not null,
    at timestamptz not null default now()
);

create table angelgit_blob_piece (
    sha256 bytea not null references angelgit_blob on delete cascade,
    number integer not null,
    body bytea not null,
    primary key (sha256, number)
);

-- What AngelGit wrote into the working file of each document. It distinguishes our own writes from
-- edits by others, after a kill too. Contents are compressed with zstd.
create table angelgit_working_file (
    document text primary key references angelgit_document,
    content bytea,                                               -- after the last write
    intended bytea,                                              -- of a write that has begun
    edit bytea                                                   -- or: `intended` is on disk, and
);                                                               -- this update is its edit

-- Facts that are committed and that the journal may lack.
create table angelgit_outbox (
    number bigint generated always as identity primary key,
    body bytea not null
);
