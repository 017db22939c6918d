-- A candidate is made of several proposals: a row for each of its members.

alter table angelgit_candidate drop constraint angelgit_candidate_pkey;
alter table angelgit_candidate add column key bytea not null default '';   -- SHA-256 of the request
alter table angelgit_candidate add column position integer not null default 0;
alter table angelgit_candidate add column own bytea not null default '';   -- the member's commit
alter table angelgit_candidate add primary key (revision, proposal);
create index angelgit_candidate_key on angelgit_candidate (key);
