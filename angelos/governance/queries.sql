-- The audit log (migrations/0001_audit.sql).

-- name: head
select origin, size, frontier, offset_ms, offset_seq from audit_head;

-- name: lock_head
select origin, size, frontier, offset_ms, offset_seq from audit_head for update;

-- name: move_head
update audit_head set size = %s, frontier = %s, offset_ms = %s, offset_seq = %s;

-- name: add_block
insert into audit_block (first, count, first_ms, first_seq, last_ms, last_seq, raw, terms, leaves,
                         bodies, data)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: add_tail
insert into audit_tail (first, count, first_ms, first_seq, last_ms, last_seq, raw, terms, leaves,
                        bodies, data)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: tail
select first, count, leaves, bodies, data from audit_tail where first >= %s order by first;

-- name: drop_tail
delete from audit_tail where first < %s;

-- name: tiles
select t.level, t.idx, t.hashes
from unnest(%(levels)s::int[], %(indexes)s::bigint[]) as w (level, idx)
join audit_tile t on t.origin = %(origin)s and t.level = w.level and t.idx = w.idx;

-- name: put_tile
insert into audit_tile (origin, level, idx, hashes) values (%s, %s, %s, %s)
on conflict (origin, level, idx) do update set hashes = excluded.hashes;

-- name: rows
select first, count, leaves, bodies, data, first_ms, first_seq, last_ms, last_seq, terms from (
    select first, count, leaves, bodies, data, first_ms, first_seq, last_ms, last_seq, terms,
           sum(raw) over (order by first rows unbounded preceding) - raw as before
    from audit_row where first > %(first)s - 256 and first < %(end)s and first + count > %(first)s
) as r
where before < %(bytes)s order by first;

-- name: beyond
select 1 from audit_row where first > %(size)s - 256 and first + count > %(size)s limit 1;

-- name: row
select first, count, leaves, bodies, data from audit_row
where first <= %(idx)s and first > %(idx)s - 256 and first + count > %(idx)s;

-- name: leaves
select first, count, leaves from audit_row
where first >= %(first)s and first < %(first)s + 256 order by first;

-- name: proof
select 0 as level, first, leaves,
       case when first <= %(idx)s and first + count > %(idx)s then bodies end as bodies,
       case when first <= %(idx)s and first + count > %(idx)s then data end as data
from audit_row
where first between %(group)s and %(group)s + 255 or first between %(edge)s and %(edge)s + 255
union all
select t.level, t.idx, t.hashes, null, null
from unnest(%(levels)s::int[], %(indexes)s::bigint[]) as w (level, idx)
join audit_tile t on t.origin = %(origin)s and t.level = w.level and t.idx = w.idx
order by 1, 2;

-- name: erase_block
update audit_block set data = %(data)s, erased = erased + %(count)s where first = %(first)s;

-- name: erase_tail
update audit_tail set data = %(data)s, erased = erased + %(count)s where first = %(first)s;

-- name: expired_to
select coalesce((select idx from audit_expiry where origin = %s), -1);

-- name: row_before
select first, count, leaves, bodies, data from audit_row where first_ms < %(ms)s
order by first desc limit 1;

-- name: rows_with
select first, count, leaves, bodies, data from audit_row
where terms is null or terms @> %(terms)s::int[] order by first;

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
lock table audit_block, audit_tail, audit_head in access exclusive mode;

-- name: empty_log
alter table audit_block disable trigger user;
alter table audit_tail disable trigger user;
delete from audit_block;
delete from audit_tail;
alter table audit_block enable trigger user;
alter table audit_tail enable trigger user;
delete from audit_head;

-- name: gather
create temporary table sound_entry (
    ms bigint, seq bigint, body bytea, leaf bytea, salt bytea, data bytea
) on commit drop;

-- name: copy_sound
copy sound_entry from stdin (format binary);

-- name: keep_evidence
create table {evidence} as
select row_number() over (order by first) as number, r.* from audit_row r;

-- name: evidence
select number, first, count, leaves, bodies, data from {evidence}
where number > %s order by number limit 1;

-- name: sound_entries
select body, leaf, salt, data, ms, seq from sound_entry
where (ms, seq) > (%s, %s) order by ms, seq limit %s;

-- name: new_head
insert into audit_head (origin, size, frontier, offset_ms, offset_seq) values (%s, %s, %s, %s, %s);

-- name: accept
insert into audit_acceptance (origin, previous, reason, size, left_out, evidence, at)
values (%s, %s, %s, %s, %s, %s, %s);

-- name: acceptance
select previous, reason, size, left_out, evidence, at from audit_acceptance where origin = %s;
