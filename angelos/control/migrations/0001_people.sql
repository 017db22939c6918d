-- People who may sign in with a token. What they did is in the audit log, not here.

create table person (
    name text primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'),
    role text not null
        check (role in ('viewer', 'researcher', 'reviewer', 'operator', 'admin')),
    token bytea not null unique check (length(token) = 32),   -- SHA-256 of the token
    created_at timestamptz not null default now()
);
