-- Lasting facts that the stream may no longer hold (adapters/stores/history.py).

-- name: history
select last_ms, last_seq, leaves, bodies, data from (
    select first, last_ms, last_seq, leaves, bodies, data,
           sum(raw) over (order by first rows unbounded preceding) - raw as bytes_before,
           sum(count) over (order by first rows unbounded preceding) - count as entries_before
    from audit_row
    where (last_ms, last_seq) > (%(after_ms)s, %(after_seq)s)
      and (%(before_ms)s::bigint is null
           or (first_ms, first_seq) < (%(before_ms)s::bigint, %(before_seq)s::bigint))
      and (terms is null or cardinality(%(kinds)s::int[]) = 0 or terms && %(kinds)s::int[])
      and (terms is null or terms @> %(subject)s::int[])
) as r
where bytes_before < %(bytes)s and entries_before < %(entries)s order by first;

-- name: projected
select offset_ms, offset_seq from audit_head;

-- Leases (adapters/stores/leases.py). Time is the database's own.

-- name: acquire_lease
insert into lease as l (resource, holder, epoch, expires_at)
values (%(resource)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(ttl)s))
on conflict (resource) do update
set holder = excluded.holder, epoch = l.epoch + 1, expires_at = excluded.expires_at
where l.holder is null or l.holder = excluded.holder or l.expires_at <= clock_timestamp()
returning epoch;

-- name: lease_holder
select holder, extract(epoch from expires_at - clock_timestamp())::float8
from lease where resource = %(resource)s;

-- name: renew_lease
update lease set expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)
where resource = %(resource)s and epoch = %(epoch)s and holder is not null
returning epoch;

-- name: release_lease
update lease set holder = null where resource = %(resource)s and epoch = %(epoch)s;

-- name: lease_epoch
-- The lock holds a newer owner off until the transaction that checks has ended.
select epoch, holder is not null from lease where resource = %(resource)s for share;

-- Snapshots of folds (adapters/stores/snapshots.py).

-- name: snapshot
select statement, signature, body from fold_snapshot where name = %(name)s;

-- name: save_snapshot
insert into fold_snapshot (name, statement, signature, body)
values (%(name)s, %(statement)s, %(signature)s, %(body)s)
on conflict (name) do update
set statement = excluded.statement, signature = excluded.signature, body = excluded.body;
