-- name: add_person
insert into person (name, role, token) values (%(name)s, %(role)s, %(token)s)
on conflict (name) do nothing

-- name: person_by_token
select name, role from person where token = %(token)s

-- name: people
select name, role from person order by name

-- name: lock_admins
select name from person where role = %(role)s order by name for update

-- name: remove_person
delete from person where name = %(name)s
