-- The audit log (migrations/0001_audit.sql).

-- name: head
select size, frontier, offset_ms, offset_seq from audit_head;

-- name: lock_head
select size, frontier, offset_ms, offset_seq from audit_head for update;

-- name: move_head
update audit_head set size = %s, frontier = %s, offset_ms = %s, offset_seq = %s;

-- name: add_entry
insert into audit_entry (idx, offset_ms, offset_seq, kind, subject, body, leaf)
values (%s, %s, %s, %s, %s, %s, %s);

-- name: entries
select idx, offset_ms, offset_seq, body, leaf from audit_entry
where idx > %(after)s order by idx limit %(limit)s;

-- name: leaves
select idx, body, leaf from audit_entry
where idx >= %(first)s and idx < %(end)s order by idx;

-- name: last_checkpoint
select size, root, frontier, note from audit_checkpoint order by size desc limit 1;

-- name: checkpoints
select size, note from audit_checkpoint
where size > %(after)s and size <= %(upto)s order by size limit %(limit)s;

-- name: add_checkpoint
insert into audit_checkpoint (size, root, frontier, note, at)
values (%s, %s, %s, %s, %s);
