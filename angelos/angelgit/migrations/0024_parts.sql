-- A part of a proposal is a proposal of its own.

alter table angelgit_proposal add column part_of text;

create index angelgit_proposal_part on angelgit_proposal (part_of) where part_of is not null;
