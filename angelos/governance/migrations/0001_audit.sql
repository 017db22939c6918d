-- The audit log: what lasts of the journal, as leaves of an RFC 6962 Merkle tree.

create table audit_entry (
    idx bigint primary key check (idx >= 0),
    offset_ms bigint not null,
    offset_seq bigint not null,
    kind text not null,                 -- kind and subject repeat the body, for filters only
    subject text not null,
    body bytea not null,                -- MessagePack of the fact with its offset, as hashed
    leaf bytea not null check (length(leaf) = 32),
    unique (offset_ms, offset_seq)      -- projecting the same fact twice is once
);

create index audit_entry_subject on audit_entry (subject, idx);

-- Where the projection is. One row; changes in one transaction with the entries it covers.
create table audit_head (
    single boolean primary key default true check (single),
    size bigint not null,
    frontier bytea not null,            -- roots of the full subtrees, left to right, 32 bytes each
    offset_ms bigint not null,          -- the last offset looked at, lasting or not
    offset_seq bigint not null
);

insert into audit_head (size, frontier, offset_ms, offset_seq) values (0, '', 0, 0);

create table audit_checkpoint (
    size bigint primary key,
    root bytea not null check (length(root) = 32),
    frontier bytea not null,
    note text not null,                 -- C2SP tlog-checkpoint, signed
    at double precision not null
);

create function audit_deny() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is append-only: % on % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_entry_append_only before update or delete on audit_entry
    for each row execute function audit_deny();
create trigger audit_entry_keep before truncate on audit_entry
    for each statement execute function audit_deny();
create trigger audit_checkpoint_append_only before update or delete on audit_checkpoint
    for each row execute function audit_deny();
create trigger audit_checkpoint_keep before truncate on audit_checkpoint
    for each statement execute function audit_deny();
