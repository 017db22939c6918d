-- Queries of the hub's identities; the tables are made by migrations/0001_identities.sql.

-- name: lock
-- Changes to one principal happen one after the other.
select pg_advisory_xact_lock(hashtextextended('angelos.principal/' || %(principal)s, 0))

-- name: add_enrolment
insert into enrolment (secret_sha256, principal, node_role, created_by, expires_at, replaces)
values (%(secret)s, %(principal)s, %(node_role)s, %(by)s, %(expires_at)s, %(replaces)s)

-- name: clear_enrolments
delete from enrolment where expires_at < %(before)s

-- name: find_enrolment
select principal, node_role from enrolment where secret_sha256 = %(secret)s

-- name: use_enrolment
update enrolment set used_at = %(now)s
where secret_sha256 = %(secret)s and used_at is null and expires_at >= %(now)s
returning principal, node_role, created_by, replaces

-- name: put_principal
insert into principal (id, node_role, enrolled_at) values (%(principal)s, %(node_role)s, %(now)s)
on conflict (id) do update set node_role = excluded.node_role, enrolled_at = excluded.enrolled_at

-- name: enrolled
select id from principal

-- name: add_certificate
insert into certificate (serial, principal, not_after)
values (%(serial)s, %(principal)s, %(not_after)s)

-- name: clear_certificates
delete from certificate where principal = %(principal)s and not_after < %(now)s

-- name: valid_certificates
select c.serial, c.principal, p.node_role, c.not_after, c.denied, q.reason
from certificate c
join principal p on p.id = c.principal
left join quarantine q on q.principal = p.id
where c.serial = any(%(serials)s::text[])

-- name: live_certificate
select 1 from certificate
where principal = %(principal)s and not denied and not_after > %(now)s limit 1

-- name: find_quarantine
select reason from quarantine where principal = %(principal)s

-- name: add_quarantine
insert into quarantine (principal, reason, at, fact)
values (%(principal)s, %(reason)s, %(now)s, %(fact)s)
on conflict (principal) do nothing

-- name: deny_certificates
update certificate set denied = true where principal = %(principal)s

-- name: allow_certificates
update certificate set denied = false where principal = %(principal)s

-- name: forget_certificates
delete from certificate where principal = %(principal)s and denied

-- name: knows
select 1 from principal where id = %(principal)s
union all select 1 from enrolment where principal = %(principal)s
union all select 1 from quarantine where principal = %(principal)s
limit 1

-- name: void_enrolments
delete from enrolment where principal = %(principal)s

-- name: get_quarantine
select principal, reason, at, fact, announced from quarantine where principal = %(principal)s

-- name: silent_quarantines
select principal, reason, at, fact, announced from quarantine where not announced

-- name: announced
update quarantine set announced = true where fact = %(fact)s

-- name: end_quarantine
delete from quarantine where principal = %(principal)s and fact = %(fact)s
