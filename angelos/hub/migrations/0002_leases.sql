-- Who owns what at present. An epoch is never given twice: rows are never deleted.
create table lease (
    resource text primary key,
    holder text,                  -- null: released
    epoch bigint not null,
    expires_at timestamptz not null
);
