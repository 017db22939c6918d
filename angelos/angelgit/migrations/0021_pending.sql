-- Proposals wait beside dev until they are accepted, promoted or withdrawn.

alter table angelgit_proposal drop constraint angelgit_proposal_status_check;

alter table angelgit_proposal add constraint angelgit_proposal_status_check
    check (status in ('proposed', 'merged', 'reverted', 'promoted', 'withdrawn'));

create index angelgit_proposal_pending on angelgit_proposal (repo, id) where status = 'proposed';
