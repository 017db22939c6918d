-- What agents and people remember. Applied only where pgvector is installed.

create extension if not exists vector;

create table memory (
    id text primary key check (id ~ '^mem-[0-9a-f]{32}$'),
    namespace text not null,
    text text not null,
    normal text not null,               -- without case, spaces and punctuation (gate.normal)
    search tsvector not null generated always as (to_tsvector('english', text)) stored,
    embedding vector(384) not null,
    model text not null,                -- which made the embedding
    said_by text not null,
    at double precision not null,       -- Unix seconds
    confirmed_at double precision not null,
    confirmations integer not null default 1 check (confirmations > 0),
    task text,
    repo text not null default '',
    revision text,
    expires_at double precision,
    superseded_by text references memory (id) on delete cascade,
    superseded_at double precision,
    superseded_cause text check (superseded_cause in ('corrected', 'merged')),
    check ((superseded_by is null) = (superseded_at is null)),
    check ((superseded_by is null) = (superseded_cause is null))
);

-- Only what can be recalled is in these.
create index memory_embedding on memory using hnsw (embedding vector_cosine_ops)
    with (m = 16, ef_construction = 128) where superseded_by is null;
create index memory_search on memory using gin (search) where superseded_by is null;
create unique index memory_same on memory (namespace, md5(normal)) where superseded_by is null;
create index memory_newest on memory (namespace, id desc);
create index memory_versions on memory (superseded_by) where superseded_by is not null;
create index memory_expiry on memory (expires_at) where expires_at is not null;

-- A forgotten memory's id is never used again, whoever asks for it once more.
create table memory_tombstone (
    id text primary key,
    namespace text not null,
    at double precision not null
);

-- How far the journal's tombstones have been carried out: after a restore there may be more.
create table memory_cursor (
    single boolean primary key default true check (single),
    journal_offset text not null
);

-- Deleted rows leave the files at the next round of autovacuum, not only when many are dead.
alter table memory set (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0);
