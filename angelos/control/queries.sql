-- name: lock_name
select pg_advisory_xact_lock(hashtextextended('angelos.person/' || %(name)s, 0))

-- name: add_person
insert into person (id, name, role, token)
values (%(id)s, %(name)s, %(role)s, %(token)s)
on conflict (name) do nothing

-- name: person_by_token
select p.id, p.name, p.role, s.generation
from person p join standing s on s.principal = p.id
where p.token = %(token)s and s.active

-- name: person
select p.id, p.name, p.role, s.generation, s.active
from person p join standing s on s.principal = p.id
where p.id = %(id)s

-- name: person_by_name
select id, role from person where name = %(name)s for update

-- name: people
select p.id, p.name, p.role, s.generation
from person p join standing s on s.principal = p.id
where s.active order by p.name

-- name: ids_like
select principal from standing where principal = %(id)s or principal like %(pattern)s

-- name: lock_admins
select name from person where role = %(role)s order by name for update

-- name: remove_person
delete from person where id = %(id)s

-- name: set_role
update person set role = %(role)s where id = %(id)s

-- name: set_token
update person set token = %(token)s where id = %(id)s

-- name: standing
select principal, generation, active, cause from standing where principal = %(principal)s

-- name: lock_standing
select principal, generation, active, cause from standing where principal = %(principal)s for update

-- name: begin_standing
insert into standing (principal, generation) values (%(principal)s, 1)
on conflict (principal) do update set active = true
where standing.cause is distinct from 'removed'
returning principal, generation, active, cause

-- name: set_standing
update standing set generation = %(generation)s, active = %(active)s, cause = %(cause)s
where principal = %(principal)s

-- name: silent_standings
select principal, generation, active, cause from standing where announced < generation
order by principal

-- name: announced_standing
update standing set announced = greatest(announced, %(generation)s)
where principal = %(principal)s

-- name: clear_tokens
delete from token where expires_at <= %(now)s

-- name: count_tokens
select count(*) from token where principal = %(principal)s

-- name: add_token
insert into token (id, principal, generation, role, kind, label, scopes, secret, created_at, expires_at)
values (%(id)s, %(principal)s, %(generation)s, %(role)s, %(kind)s, %(label)s, %(scopes)s,
        %(secret)s, %(now)s, %(expires_at)s)

-- name: token_by_secret
select t.id, t.principal, t.generation, t.scopes, t.expires_at, coalesce(p.role, t.role), t.kind
from token t
join standing s on s.principal = t.principal
left join person p on p.id = t.principal
where t.secret = %(secret)s and t.expires_at > %(now)s
  and s.active and s.generation = t.generation

-- name: tokens
select t.id, t.principal, t.kind, t.label, t.scopes, t.created_at, t.expires_at
from token t join standing s on s.principal = t.principal
where t.principal = %(principal)s and t.expires_at > %(now)s
  and s.active and s.generation = t.generation
order by t.created_at, t.id

-- name: revoke_token
delete from token where id = %(id)s and principal = %(principal)s

-- name: lock_task_files
select pg_advisory_xact_lock(hashtextextended('angelos.task_file', 0))

-- name: clear_task_files
delete from task_file where sha256 in (
    select sha256 from task_file where used_at < %(oldest)s order by used_at limit %(limit)s)
and used_at < %(oldest)s  -- somebody may use one meanwhile

-- name: task_files_size
select coalesce(sum(size), 0) from task_file

-- name: use_task_files
update task_file set used_at = %(now)s where sha256 = any(%(hashes)s) returning sha256

-- name: add_task_file
insert into task_file (sha256, size, body, used_at)
values (%(sha256)s, %(size)s, %(body)s, %(now)s)
on conflict (sha256) do update set used_at = excluded.used_at

-- name: task_file
update task_file set used_at = %(now)s where sha256 = %(sha256)s returning body
