-- The proposal that somebody's last push to refs/for/main made or replaced.

create table angelgit_git_push (
    repo text not null references angelgit_repo,
    principal text not null,
    topic text not null,
    proposal text not null,
    digest text not null,
    primary key (repo, principal, topic)
);
