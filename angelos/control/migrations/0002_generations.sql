-- How each principal stands. A row is never deleted, so that no id is ever used again.

create table standing (
    principal text primary key,
    generation bigint not null check (generation >= 1),
    active boolean not null default true,
    cause text,                              -- what ended the generation before this one
    announced bigint not null default 1      -- the newest generation whose fact is in the journal
);

-- A person's id is theirs alone; the name is free again when they are removed.
drop table person;
create table person (
    id text primary key references standing (principal),
    name text not null unique check (name ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'),
    role text not null
        check (role in ('viewer', 'researcher', 'reviewer', 'operator', 'admin')),
    token bytea not null unique check (length(token) = 32),   -- SHA-256 of the token
    created_at timestamptz not null default now()
);

-- Tokens beside a person's own: scoped, and over at a time.
create table token (
    id text primary key,
    principal text not null references standing (principal),
    generation bigint not null,
    role text not null,                      -- of somebody who is not in `person`
    kind text not null check (kind in ('token', 'kernel')),
    label text not null,
    scopes text[] not null,                  -- permissions; never more than the role's
    secret bytea not null unique check (length(secret) = 32),   -- SHA-256
    created_at double precision not null,    -- Unix seconds
    expires_at double precision not null
);

create index token_principal on token (principal);
create index token_expires_at on token (expires_at);
