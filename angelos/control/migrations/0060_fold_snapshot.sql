-- What facts fold to, at some offset (adapters/stores/snapshots.py): a cache, never the truth.

create table fold_snapshot (
    name text primary key,
    statement bytea not null,               -- which code, journal and audit log it belongs to
    signature bytea not null,               -- by the server's key
    body bytea not null
);
