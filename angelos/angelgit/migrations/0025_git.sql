-- Git: which git commit each revision is, and what came from git.

create table angelgit_git_commit (
    repo text not null references angelgit_repo,
    revision bytea not null,
    git bytea not null,
    body bytea,                                                  -- null: it came from git, in a pack
    primary key (repo, revision)
);

create index angelgit_git_commit_git on angelgit_git_commit (repo, git);

-- Content or directory object -> id of the blob or tree that is derived from it.
create table angelgit_git_id (
    hash bytea primary key,
    git bytea not null
);

-- Tags and branches that came from git and that are no branch here.
create table angelgit_git_ref (
    repo text not null references angelgit_repo,
    name bytea not null,
    git bytea not null,
    primary key (repo, name)
);

-- Packs as they came from git, whole: raw objects of imported history and of pushes.
create table angelgit_git_pack (
    number bigint generated always as identity primary key,
    repo text not null references angelgit_repo,
    size bigint not null,
    at timestamptz not null default now()
);

create table angelgit_git_pack_piece (
    pack bigint not null references angelgit_git_pack on delete cascade,
    number integer not null,
    body bytea not null,
    primary key (pack, number)
);

alter table angelgit_git_pack_piece alter column body set storage external;
