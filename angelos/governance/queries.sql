-- The audit log (migrations/0001_audit.sql).

-- name: head
select origin, size, frontier, offset_ms, offset_seq from audit_head;

-- name: lock_head
select origin, size, frontier, offset_ms, offset_seq from audit_head for update;

-- name: move_head
update audit_head set size = %s, frontier = %s, offset_ms = %s, offset_seq = %s;

-- name: copy_entries
copy audit_entry (idx, offset_ms, offset_seq, kind, subject, body, leaf, salt, data)
from stdin (format binary);

-- name: tiles
select t.level, t.idx, t.hashes
from unnest(%(levels)s::int[], %(indexes)s::bigint[]) as w (level, idx)
join audit_tile t on t.origin = %(origin)s and t.level = w.level and t.idx = w.idx;

-- name: put_tile
insert into audit_tile (origin, level, idx, hashes) values (%s, %s, %s, %s)
on conflict (origin, level, idx) do update set hashes = excluded.hashes;

-- name: entries
select idx, offset_ms, offset_seq, body, leaf, salt, data from audit_entry
where idx > %(after)s order by idx limit %(limit)s;

-- name: entry
select idx, offset_ms, offset_seq, body, leaf, salt, data from audit_entry where idx = %s;

-- name: leaves
select idx, body, leaf from audit_entry
where idx >= %(first)s and idx < %(end)s order by idx;

-- name: edge_leaves
select leaf from audit_entry where idx >= %(first)s and idx < %(end)s order by idx;

-- name: erase
update audit_entry set data = null, salt = null where idx = %s and data is not null;

-- name: expired_to
select coalesce((select idx from audit_expiry where origin = %s), -1);

-- name: newest_before
select idx, offset_ms, offset_seq from audit_entry where offset_ms < %s
order by offset_ms desc, offset_seq desc limit 1;

-- Ends of tasks that tested no proposal; `proposal` stands in the leaf of the acceptance.
-- name: has_expired
select exists (
    select from audit_entry e
    where e.idx > %(after)s and e.idx <= %(upto)s and e.data is not null
      and e.kind in ('task.finished', 'task.reported')
      and not exists (select from audit_entry a
                      where a.subject = e.subject and a.kind = 'task.accepted'
                        and convert_from(a.body, 'UTF8')::jsonb -> 'public' ? 'proposal'));

-- name: expire
update audit_entry e set data = null, salt = null
where e.idx > %(after)s and e.idx <= %(upto)s and e.data is not null
  and e.kind in ('task.finished', 'task.reported')
  and not exists (select from audit_entry a
                  where a.subject = e.subject and a.kind = 'task.accepted'
                    and convert_from(a.body, 'UTF8')::jsonb -> 'public' ? 'proposal');

-- name: set_expired_to
insert into audit_expiry (origin, idx) values (%(origin)s, %(upto)s)
on conflict (origin) do update set idx = excluded.idx;

-- name: last_checkpoint
select c.size, c.root, c.frontier, c.note, c.cosigned from audit_checkpoint c
join audit_head h on h.origin = c.origin order by c.size desc limit 1;

-- name: checkpoints
select c.size, case when c.cosigned = '' then c.note else c.cosigned end
from audit_checkpoint c
where c.origin = %(origin)s and c.size > %(after)s and c.size <= %(upto)s order by c.size limit %(limit)s;

-- name: extent
select coalesce(h.origin, c.origin, ''), greatest(coalesce(h.size, 0), coalesce(c.size, 0))
from (select 1) as one
left join audit_head h on true
left join lateral (select origin, size from audit_checkpoint
                   where h.origin is null or origin = h.origin
                   order by at desc, size desc limit 1) c on true;

-- name: add_checkpoint
insert into audit_checkpoint (origin, size, root, frontier, note, at)
values (%s, %s, %s, %s, %s, %s);

-- name: cosign
update audit_checkpoint set cosigned = %(note)s
where origin = %(origin)s and size = %(size)s
  and (cosigned = '' or length(cosigned) < length(%(note)s));

-- name: keys
select vkeys from audit_key order by epoch;

-- name: add_key
insert into audit_key (vkeys) values (%s) on conflict (vkeys) do nothing;

-- name: logs
select count(*) from audit_acceptance;

-- name: lock_log
lock table audit_entry, audit_head in access exclusive mode;

-- name: empty_log
alter table audit_entry disable trigger user;
delete from audit_entry;
alter table audit_entry enable trigger user;
delete from audit_head;

-- name: sound_entries
insert into audit_entry (idx, offset_ms, offset_seq, kind, subject, body, leaf, salt, data)
select row_number() over (order by offset_ms, offset_seq) - 1,
       offset_ms, offset_seq, kind, subject, body, leaf, salt, data
from {evidence} where sha256('\x00'::bytea || body) = leaf;

-- name: new_head
insert into audit_head (origin, size, frontier, offset_ms, offset_seq)
select %s, %s, %s, coalesce(max(offset_ms), 0),
       coalesce((array_agg(offset_seq order by offset_ms desc, offset_seq desc))[1], 0)
from audit_entry;

-- name: accept
insert into audit_acceptance (origin, previous, reason, size, left_out, evidence, at)
values (%s, %s, %s, %s, %s, %s, %s);

-- name: acceptance
select previous, reason, size, left_out, evidence, at from audit_acceptance where origin = %s;
