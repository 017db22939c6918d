-- Who owns what at present (adapters/stores/leases.py): `repo/study`, and its server. An epoch is never given twice: rows are never deleted.
create table lease (
    resource text primary key,
    holder text,                  -- null: released
    epoch bigint not null,
    expires_at timestamptz not null
);

-- Each server has working files of its own: what one wrote says nothing of another's.
alter table angelgit_working_file
    add column workspace text not null,
    drop constraint angelgit_working_file_pkey,
    add primary key (document, workspace);

-- Two servers cannot add names that differ in case alone.
create unique index angelgit_repo_lower on angelgit_repo (lower(name));
