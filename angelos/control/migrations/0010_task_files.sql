-- Files that go into tasks and come out of them, by content; forgotten some days after the last use.
create table task_file (
    sha256 bytea primary key check (length(sha256) = 32),
    size integer not null,
    body bytea not null,
    used_at double precision not null       -- Unix seconds
);

create index task_file_used_at on task_file (used_at);
