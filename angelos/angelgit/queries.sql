-- Queries of AngelGit's store, by name (angelgit/storage/).

-- name: add_repo
insert into angelgit_repo (name) values (%(repo)s) on conflict do nothing returning name

-- name: same_name
select name from angelgit_repo where lower(name) = lower(%(repo)s)

-- name: repos
select name from angelgit_repo order by name

-- name: add_object
insert into angelgit_object (hash, directory, size, base, depth, body)
values (%s, %s, %s, %s, %s, %s) on conflict do nothing

-- name: known_objects
select hash from angelgit_object where hash = any (%(hashes)s)

-- name: directory
select 1 from angelgit_object where hash = %(hash)s and directory

-- name: objects
with recursive chain as (
    select hash, base from angelgit_object where hash = any (%(hashes)s)
    union
    select o.hash, o.base from angelgit_object o join chain on o.hash = chain.base
)
select o.hash, o.directory, o.size, o.base, o.depth, o.body
from angelgit_object o join chain on o.hash = chain.hash

-- name: add_commit
insert into angelgit_commit (revision, repo, parent, body, signature)
values (%(revision)s, %(repo)s, %(parent)s, %(body)s, %(signature)s) on conflict do nothing

-- name: commit
select body, signature from angelgit_commit where repo = %(repo)s and revision = %(revision)s

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

-- name: add_to_main
insert into angelgit_mainline (repo, revision) values (%(repo)s, %(revision)s)
on conflict do nothing

-- name: was_main
select 1 from angelgit_mainline where revision = %(revision)s and repo = %(repo)s

-- name: set_branch
insert into angelgit_branch (repo, name, revision, owner)
values (%(repo)s, %(branch)s, %(revision)s, %(owner)s)

-- name: head
select revision from angelgit_branch where repo = %(repo)s and name = %(branch)s

-- name: move_branch
update angelgit_branch set revision = %(revision)s
where repo = %(repo)s and name = %(branch)s and revision = %(expected)s returning name

-- name: branch
select name, revision, owner from angelgit_branch where repo = %(repo)s and name = %(branch)s

-- name: branches
select name, revision, owner from angelgit_branch
where repo = %(repo)s and name collate "C" > %(after)s order by name collate "C" limit %(limit)s

-- name: branch_names
select name from angelgit_branch where repo = %(repo)s

-- name: delete_branch
delete from angelgit_branch
where repo = %(repo)s and name = %(branch)s and revision = %(expected)s returning name

-- name: revisions_between
select revision from angelgit_commit
where repo = %(repo)s and revision between %(low)s and %(high)s limit 2

-- name: documents
select id, path, mode, alive, upto, sha256 from angelgit_document where repo = %(repo)s

-- name: states
select id, upto, sha256, state from angelgit_document where id = any (%(documents)s)

-- name: add_document
insert into angelgit_document (id, repo, path, mode, alive, upto, sha256, state)
values (%(id)s, %(repo)s, %(path)s, %(mode)s, true, %(upto)s, %(sha256)s, %(state)s)

-- name: place_document
update angelgit_document set path = %(path)s, mode = %(mode)s, alive = %(alive)s
where id = %(id)s

-- name: put_snapshot
update angelgit_document set upto = %(upto)s, sha256 = %(sha256)s, state = %(state)s
where id = %(id)s

-- name: add_update
insert into angelgit_update (repo, document, path, body)
values (%(repo)s, %(document)s, %(path)s, %(body)s) returning number

-- name: updates
select number, document, path, body from angelgit_update where repo = %(repo)s order by number

-- name: clear_updates
delete from angelgit_update where number = any (%(numbers)s)

-- name: add_proposal
insert into angelgit_proposal (id, repo, digest, status, body, part_of)
values (%(id)s, %(repo)s, %(digest)s, 'proposed', %(body)s, %(part_of)s)
on conflict do nothing returning id

-- name: proposal
select body, status, merged, reverted, promoted from angelgit_proposal where id = %(id)s

-- name: parts
select body, status, merged, reverted, promoted from angelgit_proposal
where part_of = %(id)s order by id

-- name: narrow_proposal
update angelgit_proposal set digest = %(digest)s, body = %(body)s
where id = %(id)s and status = 'proposed'

-- name: drop_candidates
delete from angelgit_candidate
where revision in (select revision from angelgit_candidate where proposal = %(id)s)

-- name: proposal_merged
update angelgit_proposal set status = 'merged', merged = %(revision)s
where id = %(id)s and status = 'proposed'

-- name: proposal_reverted
update angelgit_proposal set status = 'reverted', reverted = %(revision)s
where id = %(id)s and status = 'merged'

-- name: proposal_withdrawn
update angelgit_proposal set status = 'withdrawn'
where id = %(id)s and status in ('proposed', 'withdrawn') returning id

-- name: pending
select body, status, merged, reverted, promoted from angelgit_proposal
where repo = %(repo)s and status = 'proposed' and id > %(after)s order by id limit %(limit)s

-- name: proposal_promoted
update angelgit_proposal p set status = 'promoted', promoted = %(revision)s
from angelgit_candidate c
where c.revision = %(revision)s and c.proposal = p.id and p.status in ('proposed', 'merged')
returning p.id

-- name: drop_other_candidates
delete from angelgit_candidate
where revision <> %(revision)s and revision in (
    select revision from angelgit_candidate where proposal = any (%(proposals)s)
)

-- name: add_candidate
insert into angelgit_candidate (proposal, main, revision, key, position, own)
values (%(proposal)s, %(main)s, %(revision)s, %(key)s, %(position)s, %(own)s) on conflict do nothing

-- name: candidate
select revision, proposal, own from angelgit_candidate where key = %(key)s order by position

-- name: candidate_members
select proposal, main from angelgit_candidate where revision = %(revision)s

-- name: write_records
select document, content, intended, edit from angelgit_working_file
where document = any (%(documents)s) and workspace = %(workspace)s

-- name: begin_write
insert into angelgit_working_file (document, workspace, intended, edit)
values (%(document)s, %(workspace)s, %(intended)s, %(edit)s)
on conflict (document, workspace) do update set intended = excluded.intended, edit = excluded.edit

-- name: end_writes
update angelgit_working_file set content = intended, intended = null, edit = null
where document = any (%(documents)s) and workspace = %(workspace)s

-- name: forget_file
delete from angelgit_working_file
where document = %(document)s and workspace = %(workspace)s

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

-- name: blob_sizes
select sha256, size from angelgit_blob where sha256 = any (%(hashes)s)

-- name: add_blob
insert into angelgit_blob (sha256, size) values (%(sha256)s, %(size)s)
on conflict (sha256) do update set at = now()

-- name: add_blob_piece
insert into angelgit_blob_piece (sha256, number, body)
values (%(sha256)s, %(number)s, %(body)s) on conflict do nothing

-- name: blob_piece
select body from angelgit_blob_piece where sha256 = %(sha256)s and number = %(number)s

-- name: remains
select body from angelgit_remains where document = %(document)s
order by number desc limit %(limit)s

-- name: put_remains
insert into angelgit_remains (document, client, clock, body) values (%s, %s, %s, %s)
on conflict (document, client, clock) do update set body = excluded.body

-- name: object_hashes
select hash from angelgit_object where hash > %(after)s order by hash limit %(limit)s

-- name: complete_blobs
select b.sha256 from angelgit_blob b where b.size = (
    select coalesce(sum(length(p.body)), 0) from angelgit_blob_piece p where p.sha256 = b.sha256
) order by b.sha256

-- name: all_commits
select revision, body, signature from angelgit_commit where revision > %(after)s
order by revision limit %(limit)s

-- name: repo_commits
select revision, body, signature from angelgit_commit
where repo = %(repo)s and revision > %(after)s order by revision limit %(limit)s

-- name: git_commit
select git, body from angelgit_git_commit where repo = %(repo)s and revision = %(revision)s

-- name: git_revision
select revision from angelgit_git_commit where repo = %(repo)s and git = %(git)s limit 1

-- name: add_git_commit
insert into angelgit_git_commit (repo, revision, git, body) values (%s, %s, %s, %s)
on conflict do nothing

-- name: git_ids
select hash, git from angelgit_git_id where hash = any (%(hashes)s)

-- name: add_git_id
insert into angelgit_git_id (hash, git) values (%s, %s) on conflict do nothing

-- name: git_refs
select name, git from angelgit_git_ref where repo = %(repo)s order by name

-- name: put_git_ref
insert into angelgit_git_ref (repo, name, git) values (%(repo)s, %(ref)s, %(git)s)
on conflict (repo, name) do update set git = excluded.git

-- name: delete_git_ref
delete from angelgit_git_ref where repo = %(repo)s and name = %(ref)s

-- name: git_packs
select number, size from angelgit_git_pack where repo = %(repo)s order by number

-- name: add_git_pack
insert into angelgit_git_pack (repo, size) values (%(repo)s, %(size)s) returning number

-- name: add_git_pack_piece
insert into angelgit_git_pack_piece (pack, number, body) values (%(pack)s, %(number)s, %(body)s)

-- name: git_pack_piece
select body from angelgit_git_pack_piece where pack = %(pack)s and number = %(number)s

-- name: git_known
select git, revision from angelgit_git_commit where repo = %(repo)s

-- name: git_pushed
select git from angelgit_git_commit where repo = %(repo)s and body is null

-- name: git_mains
select g.git, g.revision from angelgit_git_commit g
join angelgit_mainline m on m.revision = g.revision and m.repo = g.repo
where g.repo = %(repo)s

-- name: git_push
select proposal, digest from angelgit_git_push
where repo = %(repo)s and principal = %(principal)s and topic = %(topic)s

-- name: put_git_push
insert into angelgit_git_push (repo, principal, topic, proposal, digest)
values (%(repo)s, %(principal)s, %(topic)s, %(proposal)s, %(digest)s)
on conflict (repo, principal, topic)
do update set proposal = excluded.proposal, digest = excluded.digest

-- Collection of what nothing reaches (storage/marking.py, storage/collecting.py). Whoever adds
-- something that refers to what is stored holds the lock shared; the deletion holds it alone.

-- name: gc_hold
select pg_advisory_xact_lock_shared(%(lock)s)

-- name: gc_lock
select pg_advisory_xact_lock(%(lock)s)

-- name: gc_revisions
select revision, repo from angelgit_commit

-- name: gc_commits
select revision, body from angelgit_commit where revision = any (%(revisions)s)

-- name: gc_roots
select revision from angelgit_branch where repo = %(repo)s
union select revision from angelgit_mainline where repo = %(repo)s
union select merged from angelgit_proposal where repo = %(repo)s and merged is not null
union select reverted from angelgit_proposal where repo = %(repo)s and reverted is not null
union select promoted from angelgit_proposal where repo = %(repo)s and promoted is not null
union select c.revision from angelgit_candidate c join angelgit_proposal p on p.id = c.proposal
    where p.repo = %(repo)s and p.status in ('proposed', 'merged')
union select c.own from angelgit_candidate c join angelgit_proposal p on p.id = c.proposal
    where p.repo = %(repo)s and p.status in ('proposed', 'merged')
union select g.revision from angelgit_git_commit g join angelgit_git_ref r
    on r.repo = g.repo and r.git = g.git where g.repo = %(repo)s

-- name: gc_proposals
select id, digest from angelgit_proposal

-- name: gc_proposal_bodies
select body from angelgit_proposal where id = any (%(ids)s)

-- name: gc_document_contents
select sha256 from angelgit_document

-- name: gc_objects
select hash, length(body) from angelgit_object where hash > %(after)s order by hash limit %(limit)s

-- name: gc_bases
select hash, base from angelgit_object where base is not null

-- name: gc_blobs
select sha256, size from angelgit_blob
where at < now() - make_interval(secs => %(keep_s)s)

-- name: gc_drop_candidates
delete from angelgit_candidate where revision = any (%(revisions)s) or own = any (%(revisions)s)

-- name: gc_drop_git_commits
delete from angelgit_git_commit where repo = %(repo)s and revision = any (%(revisions)s)

-- name: gc_drop_commits
delete from angelgit_commit where repo = %(repo)s and revision = any (%(revisions)s)

-- name: gc_drop_objects
delete from angelgit_object where hash = any (%(hashes)s)

-- name: gc_drop_git_ids
delete from angelgit_git_id where hash = any (%(hashes)s)

-- name: gc_drop_blobs
-- One that was sent again meanwhile is young.
delete from angelgit_blob
where sha256 = any (%(hashes)s) and at < now() - make_interval(secs => %(keep_s)s)

-- name: gc_drop_remains
delete from angelgit_remains r using angelgit_document d
where r.document = d.id and d.repo = %(repo)s and not d.alive

-- name: gc_rewind
update angelgit_document set upto = %(upto)s where id = %(id)s
