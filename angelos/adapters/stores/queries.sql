-- Lasting facts that the stream may no longer hold (adapters/stores/history.py).

-- name: history
select body, data from audit_entry
where (offset_ms, offset_seq) > (%(after_ms)s, %(after_seq)s)
  and (%(before_ms)s::bigint is null
       or (offset_ms, offset_seq) < (%(before_ms)s::bigint, %(before_seq)s::bigint))
  and (cardinality(%(kinds)s::text[]) = 0 or kind = any (%(kinds)s::text[]))
  and (%(subject)s::text = '' or subject = %(subject)s::text)
order by idx
limit %(limit)s;

-- name: projected
select offset_ms, offset_seq from audit_head;
