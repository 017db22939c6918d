-- Role models (migrations/0001_models.sql).

-- name: add_version
insert into model_version (role, version, sha256, body, evidence)
values (%(role)s, %(version)s, %(sha256)s, %(body)s, %(evidence)s);

-- name: version
select body, evidence from model_version where role = %(role)s and version = %(version)s;

-- name: versions
select body from model_version where %(role)s = '' or role = %(role)s
order by role, version desc limit %(limit)s;

-- name: last_version
select coalesce(max(version), 0) from model_version where role = %(role)s;

-- name: add_role
insert into model_role (role, body) values (%(role)s, %(body)s) on conflict do nothing;

-- name: lock_role
select body from model_role where role = %(role)s for update;

-- name: aliases
select body from model_role where role = %(role)s;

-- name: all_aliases
select body from model_role order by role;

-- name: move_aliases
update model_role set body = %(body)s where role = %(role)s;

-- name: put_promotion
insert into model_promotion (id, role, version, open, body)
values (%(id)s, %(role)s, %(version)s, %(open)s, %(body)s)
on conflict (id) do update set open = excluded.open, body = excluded.body;

-- name: promotion
select body from model_promotion where id = %(id)s;

-- name: open_promotions
select body from model_promotion where open and (%(role)s = '' or role = %(role)s) order by id;

-- name: promotions
select body from model_promotion where role = %(role)s order by id desc limit %(limit)s;

-- name: put_run
insert into model_run (id, open, body) values (%(id)s, %(open)s, %(body)s)
on conflict (id) do update set open = excluded.open, body = excluded.body;

-- name: run
select body from model_run where id = %(id)s;

-- name: open_runs
select body from model_run where open order by id;

-- name: runs
select body from model_run order by id desc limit %(limit)s;

-- name: add_fact
insert into model_fact (body) values (%(body)s);

-- name: facts
select number, body from model_fact order by number limit 100;

-- name: drop_facts
delete from model_fact where number = any(%(numbers)s);
