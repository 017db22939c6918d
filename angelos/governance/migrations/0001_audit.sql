-- The audit log: what lasts of the journal, as leaves of an RFC 6962 Merkle tree.

create table audit_entry (
    idx bigint primary key check (idx >= 0),
    offset_ms bigint not null,
    offset_seq bigint not null,
    kind text not null,                 -- kind and subject repeat the body, for filters only
    subject text not null,
    body bytea not null,                -- canonical JSON (core/audit.py), as hashed
    leaf bytea not null check (length(leaf) = 32),
    salt bytea,                         -- of the commitment to the data; null once they are erased
    data bytea,                         -- the fact's data, as its author encoded them
    unique (offset_ms, offset_seq),     -- projecting the same fact twice is once
    check ((salt is null) = (data is null))
);

create index audit_entry_subject on audit_entry (subject, idx);

-- Where the projection is. One row; changes in one transaction with the entries it covers.
create table audit_head (
    single boolean primary key default true check (single),
    origin text not null,               -- the log's name; another one after accepted damage
    size bigint not null,
    frontier bytea not null,            -- roots of the full subtrees, left to right, 32 bytes each
    offset_ms bigint not null,          -- the last offset looked at, lasting or not
    offset_seq bigint not null
);

insert into audit_head (origin, size, frontier, offset_ms, offset_seq)
values ('angelos/audit/' || replace(gen_random_uuid()::text, '-', ''), 0, '', 0, 0);

-- Hashes of the tree in rows of 256, for proofs (C2SP tlog-tiles); derived from the leaves.
create table audit_tile (
    origin text not null,
    level smallint not null,
    idx bigint not null,
    hashes bytea not null check (length(hashes) between 32 and 8192 and length(hashes) % 32 = 0),
    primary key (origin, level, idx)
);

create table audit_checkpoint (
    origin text not null,
    size bigint not null,
    root bytea not null check (length(root) = 32),
    frontier bytea not null,
    note text not null,                 -- C2SP tlog-checkpoint, signed
    cosigned text not null default '',  -- the same note with witnesses' signatures, when they came
    at double precision not null,
    primary key (origin, size)
);

-- The keys that ever signed, each set for one life of the signer.
create table audit_key (
    epoch bigint generated always as identity primary key,
    vkeys text[] not null unique
);

-- Damage that a person has accepted, and the log that went on.
create table audit_acceptance (
    origin text primary key,
    previous text not null,
    reason text not null,
    size bigint not null,
    left_out bigint not null,
    evidence text not null,             -- the table that holds the damaged log
    at double precision not null
);

create function audit_deny() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is append-only: % on % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_entry_append_only before delete on audit_entry
    for each row execute function audit_deny();
-- Erasing takes the data and their salt, and nothing else.
create trigger audit_entry_erase_only before update on audit_entry
    for each row when (
        new.data is not null or new.salt is not null
        or (new.idx, new.offset_ms, new.offset_seq, new.kind, new.subject, new.body, new.leaf)
           is distinct from
           (old.idx, old.offset_ms, old.offset_seq, old.kind, old.subject, old.body, old.leaf)
    ) execute function audit_deny();
create trigger audit_entry_keep before truncate on audit_entry
    for each statement execute function audit_deny();
create trigger audit_tile_grow_only before update on audit_tile
    for each row when (
        (new.origin, new.level, new.idx) is distinct from (old.origin, old.level, old.idx)
        or substring(new.hashes for length(old.hashes)) <> old.hashes
    ) execute function audit_deny();
create trigger audit_tile_append_only before delete on audit_tile
    for each row execute function audit_deny();
create trigger audit_tile_keep before truncate on audit_tile
    for each statement execute function audit_deny();
-- Witnesses answer later than the log signs: only their signatures are added.
create trigger audit_checkpoint_cosign_only before update on audit_checkpoint
    for each row when (
        (new.origin, new.size, new.root, new.frontier, new.note, new.at)
        is distinct from (old.origin, old.size, old.root, old.frontier, old.note, old.at)
        or not starts_with(new.cosigned, old.note)
    ) execute function audit_deny();
create trigger audit_checkpoint_append_only before delete on audit_checkpoint
    for each row execute function audit_deny();
create trigger audit_checkpoint_keep before truncate on audit_checkpoint
    for each statement execute function audit_deny();
create trigger audit_key_append_only before update or delete on audit_key
    for each row execute function audit_deny();
create trigger audit_key_keep before truncate on audit_key
    for each statement execute function audit_deny();
create trigger audit_acceptance_append_only before update or delete on audit_acceptance
    for each row execute function audit_deny();
create trigger audit_acceptance_keep before truncate on audit_acceptance
    for each statement execute function audit_deny();
