-- The audit log: what lasts of the journal, as leaves of an RFC 6962 Merkle tree.

-- Entries in blocks of at most 256, compressed together (core/entry_blocks.py). The newest, up to
-- the next multiple of 256, are in the tail as they came; then they are sealed into a block, in
-- the transaction that adds the next.
create table audit_block (
    first bigint primary key check (first >= 0),       -- index of the first entry
    count smallint not null check (count between 1 and 256),
    first_ms bigint not null,                          -- offsets of the first and the last entry
    first_seq bigint not null,
    last_ms bigint not null,
    last_seq bigint not null,
    raw int not null,                                  -- bytes before compression
    terms int[],                                       -- numbers of the kinds and subjects in it
    leaves bytea not null check (length(leaves) = 32 * count),
    bodies bytea not null,                             -- canonical JSON (core/audit.py), as hashed
    data bytea not null,                               -- the facts' data, with the salts of the
                                                       -- commitments; both without erased ones
    erased smallint not null default 0,
    check (first / 256 = (first + count - 1) / 256)
);
create table audit_tail (like audit_block including all);

-- What is compressed is not compressed again.
alter table audit_block alter leaves set storage external, alter bodies set storage external,
    alter data set storage external;
alter table audit_tail alter leaves set storage external, alter bodies set storage external,
    alter data set storage external;

create index audit_block_terms on audit_block using gin (terms) with (fastupdate = off);
create index audit_block_offset on audit_block (last_ms, last_seq);

create view audit_row as
    select * from audit_block union all select * from audit_tail;

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

-- Hashes of the tree in rows of 256, for proofs (C2SP tlog-tiles), from level 1 on; derived from
-- the leaves.
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

-- Erasing takes data with their salts, and nothing else.
create function audit_deny_change() returns trigger language plpgsql as $$
begin
    if new.erased <= old.erased
        or (new.first, new.count, new.first_ms, new.first_seq, new.last_ms, new.last_seq, new.terms,
            new.leaves, new.bodies)
           is distinct from
           (old.first, old.count, old.first_ms, old.first_seq, old.last_ms, old.last_seq, old.terms,
            old.leaves, old.bodies)
    then
        raise exception 'the audit log is append-only: % on % is refused', tg_op, tg_table_name
            using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

-- What leaves the tail is in a block, with the same hashes.
create function audit_deny_loss() returns trigger language plpgsql as $$
begin
    if not exists (
        select from audit_block b
        where b.first <= old.first and b.first + b.count >= old.first + old.count
          and substring(b.leaves from (32 * (old.first - b.first) + 1)::int for 32 * old.count)
              = old.leaves
    ) then
        raise exception 'the audit log is append-only: % on % is refused', tg_op, tg_table_name
            using errcode = 'insufficient_privilege';
    end if;
    return old;
end
$$;

create trigger audit_block_erase_only before update on audit_block
    for each row execute function audit_deny_change();
create trigger audit_block_append_only before delete on audit_block
    for each row execute function audit_deny();
create trigger audit_block_keep before truncate on audit_block
    for each statement execute function audit_deny();
create trigger audit_tail_erase_only before update on audit_tail
    for each row execute function audit_deny_change();
create trigger audit_tail_append_only before delete on audit_tail
    for each row execute function audit_deny_loss();
create trigger audit_tail_keep before truncate on audit_tail
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
