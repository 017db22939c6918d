-- Queries of AngelGit's store, by name (angelgit/storage/store.py).

-- name: add_repo
insert into angelgit_repo (name) values (%(repo)s) on conflict do nothing returning name

-- name: same_name
select name from angelgit_repo where lower(name) = lower(%(repo)s)

-- name: repos
select name from angelgit_repo order by name

-- name: add_blob
insert into angelgit_blob (sha256, size, body) values (%s, %s, %s) on conflict do nothing

-- name: known_blobs
select sha256 from angelgit_blob where sha256 = any (%(shas)s)

-- name: blobs
select sha256, body from angelgit_blob where sha256 = any (%(shas)s)

-- name: add_commit
insert into angelgit_commit (revision, repo, parent, manifest, body)
values (%(revision)s, %(repo)s, %(parent)s, %(manifest)s, %(body)s) on conflict do nothing

-- name: commit
select c.body, c.manifest, b.body from angelgit_commit c
join angelgit_blob b on b.sha256 = c.manifest
where c.repo = %(repo)s and c.revision = %(revision)s

-- name: history
with recursive line as (
    select c.revision, c.parent, 1 as depth from angelgit_commit c
    where c.revision = %(revision)s and c.repo = %(repo)s
    union all
    select c.revision, c.parent, line.depth + 1 from angelgit_commit c
    join line on c.revision = line.parent
    where line.depth < %(limit)s
)
select revision from line order by depth

-- name: set_branch
insert into angelgit_branch (repo, name, revision) values (%(repo)s, %(branch)s, %(revision)s)

-- name: head
select revision from angelgit_branch where repo = %(repo)s and name = %(branch)s

-- name: move_branch
update angelgit_branch set revision = %(revision)s
where repo = %(repo)s and name = %(branch)s and revision = %(expected)s returning name

-- name: documents
select id, path, mode, alive, state, upto, sha256 from angelgit_document where repo = %(repo)s

-- name: put_document
insert into angelgit_document (id, repo, path, mode, alive, state, upto, sha256)
values (%(id)s, %(repo)s, %(path)s, %(mode)s, %(alive)s, %(state)s, %(upto)s, %(sha256)s)
on conflict (id) do update set path = excluded.path, mode = excluded.mode, alive = excluded.alive,
    state = excluded.state, upto = excluded.upto, sha256 = excluded.sha256

-- name: mark_on_main
update angelgit_document set on_main = true where id = any (%(documents)s) and not on_main

-- name: on_main
select id from angelgit_document where id = any (%(documents)s) and on_main

-- name: add_proposal
insert into angelgit_proposal (id, repo, digest, status, documents, body)
values (%(id)s, %(repo)s, %(digest)s, 'proposed', %(documents)s, %(body)s)
on conflict do nothing returning id

-- name: proposal
select body, status, merged, reverted from angelgit_proposal where id = %(id)s

-- name: proposal_merged
update angelgit_proposal set status = 'merged', merged = %(revision)s, body = %(body)s
where id = %(id)s and status = 'proposed'

-- name: proposal_reverted
update angelgit_proposal set status = 'reverted', reverted = %(revision)s, inverses = %(inverses)s
where id = %(id)s and status = 'merged'

-- name: proposal_withdrawn
update angelgit_proposal set status = 'withdrawn'
where id = %(id)s and status in ('proposed', 'withdrawn') returning id

-- name: pending
select body, status, merged, reverted from angelgit_proposal
where repo = %(repo)s and status = 'proposed' and id > %(after)s order by id limit %(limit)s

-- name: candidate_of
select p.body, p.status, p.merged, p.reverted from angelgit_proposal p
join angelgit_candidate c on c.proposal = p.id where c.revision = %(revision)s

-- name: proposal_promoted
update angelgit_proposal p set status = 'promoted' from angelgit_candidate c
where c.revision = %(revision)s and c.proposal = p.id and p.status in ('proposed', 'merged') returning p.id

-- name: reverted_on
select body, inverses from angelgit_proposal
where status = 'reverted' and repo = %(repo)s and documents @> %(documents)s

-- name: add_candidate
insert into angelgit_candidate (proposal, main, revision)
values (%(proposal)s, %(main)s, %(revision)s) on conflict do nothing

-- name: candidate
select revision from angelgit_candidate where proposal = %(proposal)s and main = %(main)s

-- name: write_records
select document, content, intended, edit from angelgit_working_file
where document = any (%(documents)s)

-- name: begin_write
insert into angelgit_working_file (document, intended, edit)
values (%(document)s, %(intended)s, %(edit)s)
on conflict (document) do update set intended = excluded.intended, edit = excluded.edit

-- name: end_writes
update angelgit_working_file set content = intended, intended = null, edit = null
where document = any (%(documents)s)

-- name: forget_file
delete from angelgit_working_file where document = %(document)s

-- name: add_transaction
insert into angelgit_transaction (id, repo, body) values (%(id)s, %(repo)s, %(body)s)
on conflict do nothing

-- name: transactions
select body from angelgit_transaction where repo = %(repo)s order by id

-- name: end_transaction
delete from angelgit_transaction where id = %(id)s

-- name: add_outbox
insert into angelgit_outbox (body) values (%(body)s)

-- name: outbox
select number, body from angelgit_outbox order by number limit %(limit)s

-- name: clear_outbox
delete from angelgit_outbox where number = any (%(numbers)s)

-- name: writers
select client, principal from angelgit_writer where document = %(document)s

-- name: add_writer
insert into angelgit_writer (document, client, principal) values (%s, %s, %s)
on conflict do nothing

-- name: clients_elsewhere
select client from angelgit_writer
where client = any (%(clients)s) and document <> %(document)s limit 1
