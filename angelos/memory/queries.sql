-- Memories (migrations/0001_memories.sql).

-- name: add
insert into memory (id, namespace, text, normal, embedding, model, said_by, at, confirmed_at,
    task, repo, revision, expires_at)
values (%(id)s, %(namespace)s, %(text)s, %(normal)s, %(embedding)s::vector, %(model)s, %(by)s,
    %(at)s, %(at)s, %(task)s, %(repo)s, %(revision)s, %(expires_at)s)
on conflict do nothing
returning id;

-- name: get
select id, namespace, text, said_by, at, confirmed_at, confirmations, task, repo, revision,
    expires_at, superseded_by, superseded_at, superseded_cause
from memory where id = %(id)s and (expires_at is null or expires_at > %(now)s);

-- name: same
select id from memory
where namespace = %(namespace)s and md5(normal) = md5(%(normal)s) and superseded_by is null;

-- name: confirm
update memory set confirmations = confirmations + 1, confirmed_at = greatest(confirmed_at, %(at)s),
    expires_at = case when expires_at is null or %(expires_at)s::float8 is null then null
                      else greatest(expires_at, %(expires_at)s::float8) end
where id = %(id)s and superseded_by is null
returning id;

-- name: tombstone
select id from memory_tombstone where id = %(id)s;

-- name: near
select id, namespace, text, said_by, at, confirmed_at, confirmations, task, repo, revision,
    expires_at, superseded_by, superseded_at, superseded_cause, 1 - (embedding <=> %(embedding)s::vector) as similarity
from memory
where namespace = %(namespace)s and superseded_by is null and model = %(model)s
    and (expires_at is null or expires_at > %(now)s) and id <> %(id)s
order by embedding <=> %(embedding)s::vector limit %(limit)s;

-- name: by_vector
select id, namespace, text, said_by, at, confirmed_at, confirmations, task, repo, revision,
    expires_at, superseded_by, superseded_at, superseded_cause
from memory
where namespace = any(%(namespaces)s) and superseded_by is null and model = %(model)s
    and (expires_at is null or expires_at > %(now)s)
order by embedding <=> %(embedding)s::vector limit %(limit)s;

-- name: by_text
with q as (
    select replace(plainto_tsquery('english', %(query)s)::text, '&', '|')::tsquery as words
)
select id, namespace, text, said_by, at, confirmed_at, confirmations, task, repo, revision,
    expires_at, superseded_by, superseded_at, superseded_cause
from memory, q
where search @@ q.words and namespace = any(%(namespaces)s) and superseded_by is null
    and (expires_at is null or expires_at > %(now)s)
order by ts_rank(search, q.words, 1) desc, id desc limit %(limit)s;

-- name: page
select id, namespace, text, said_by, at, confirmed_at, confirmations, task, repo, revision,
    expires_at, superseded_by, superseded_at, superseded_cause
from memory
where namespace = %(namespace)s and (%(before)s = '' or id < %(before)s)
    and (%(all)s or superseded_by is null) and (expires_at is null or expires_at > %(now)s)
order by id desc limit %(limit)s;

-- name: supersede
update memory set superseded_by = %(by)s, superseded_at = %(at)s, superseded_cause = %(cause)s
where id = %(id)s and superseded_by is null
returning id;

-- name: absorb
update memory m set confirmations = m.confirmations + o.confirmations,
    confirmed_at = greatest(m.confirmed_at, o.confirmed_at),
    expires_at = case when m.expires_at is null or o.expires_at is null then null
                      else greatest(m.expires_at, o.expires_at) end
from memory o where m.id = %(into)s and o.id = %(old)s;

-- name: versions
with recursive version (id) as (
    select id from memory where id = any(%(ids)s)
    union
    select m.id from memory m join version v on m.superseded_by = v.id
)
select m.id, m.namespace, m.said_by from version v join memory m on m.id = v.id;

-- name: bury
insert into memory_tombstone (id, namespace, at)
select unnest(%(ids)s::text[]), %(namespace)s, %(at)s on conflict do nothing;

-- name: forget
delete from memory where id = any(%(ids)s) returning id;

-- name: expired
select id, namespace from memory where expires_at <= %(now)s order by expires_at limit %(limit)s;

-- name: count
select count(*) from memory where superseded_by is null;

-- name: cursor
select journal_offset from memory_cursor;

-- name: move_cursor
insert into memory_cursor (journal_offset) values (%(offset)s)
on conflict (single) do update set journal_offset = excluded.journal_offset;

-- name: unmerged
select id, normal, text, embedding::text from memory
where namespace = %(namespace)s and superseded_by is null and model = %(model)s
    and id > %(after)s order by id limit %(limit)s;
