"""Roles against every route: nobody gets in whom the policy does not allow, and any doubt is a no.

The table is made from the routes themselves, so that a new route is in it.
"""

from __future__ import annotations

import json

import pytest

from angelos.adapters.net.http import answer
from angelos.angelgit.routes import routes as angelgit_routes
from angelos.control.routes import routes as control_routes
from angelos.core.errors import Forbidden, Refused
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.policy import access, engine
from angelos.core.policy.engine import POLICY_DIR, SCHEMA, Policy
from angelos.core.routes import Route
from angelos.governance.routes import routes as governance_routes
from angelos.hub.routes import enrol_routes, hub_routes, peer_routes
from angelos.memory.routes import routes as memory_routes
from angelos.ml.registry.routes import routes as model_routes

READ = {"status:read", "events:read", "documents:read", "tasks:read", "proposals:read",
        "revisions:read", "nodes:read", "policy:read", "memory:read", "models:read",
        "anyone"}  # fmt: skip
VIEW = READ | {"tokens:manage"}
WORK = VIEW | {"documents:edit", "tasks:run", "tasks:cancel", "proposals:create", "jupyter:use",
               "memory:write", "repositories:verify", "models:train"}  # fmt: skip
REVIEW = WORK | {"proposals:review", "models:review", "audit:read"}
OPERATE = REVIEW | {"revisions:rollback", "principals:enrol", "principals:quarantine",
                    "repositories:create", "repositories:collect",
                    "models:rollback"}  # fmt: skip
MAY = {
    Role.viewer: VIEW,
    Role.researcher: WORK,
    Role.reviewer: REVIEW,
    Role.operator: OPERATE,
    Role.admin: OPERATE | {"people:manage"},
    Role.agent: READ
    | {
        "tasks:run",
        "tasks:cancel",
        "proposals:create",
        "messages:send",
        "memory:write",
        "models:train",
    },
    Role.node: {"anyone", "revisions:read", "messages:send", "tasks:serve"},
}
"""What stands in the policy, written a second time: a change of it is a change here."""


class _Plane:
    """A plane whose services are not reached: only the routes are of interest."""

    def __getattr__(self, _: str):
        return _Plane()

    def __call__(self, *_: object, **__: object):
        return _Plane()


def every_route() -> list[Route]:
    """Return all routes of all planes, each with a handler that only tells that it was reached."""

    async def reached(_: object) -> dict[str, bool]:
        return {"reached": True}

    plane = _Plane()
    makers = (
        control_routes,
        angelgit_routes,
        governance_routes,
        hub_routes,
        memory_routes,
        model_routes,
        peer_routes,
        enrol_routes,
    )
    return [
        Route(route.method, route.path, route.permission, reached, response=dict)
        for make in makers
        for route in make(plane)  # pyright: ignore[reportArgumentType]
    ]


ROUTES = every_route()


def test_the_table_holds_every_plane():
    paths = {route.path for route in ROUTES}
    assert {"/people", "/tasks", "/proposals", "/status", "/tokens"} <= paths
    assert len(ROUTES) > 30
    assert {route.permission for route in ROUTES} <= set(Permission)


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_reaches_what_the_policy_allows_and_nothing_else(role):
    for route in ROUTES:
        result = await answer(route, Principal.example(role), {}, {}, b"")
        allowed = route.permission in MAY[role]
        assert (result.status == 200) == allowed, (role, route.method, route.path, result.body)
        if not allowed:
            refusal = json.loads(result.body)
            assert refusal["code"] == "forbidden"
            assert "no rule of the policy allows it" in refusal["detail"]
            assert refusal["extra"]["policy"] == access.policy_in_force().hash


async def test_nobody_reaches_only_what_is_for_anyone():
    for route in ROUTES:
        result = await answer(route, None, {}, {}, b"")
        assert result.status == (200 if route.permission is Permission.anyone else 401), route.path


@pytest.mark.parametrize(
    ("who", "role"),
    [
        ("agent/ada", Role.admin),  # a role of people, in an agent's hands
        ("agent/ada", Role.node),
        ("node/exec1", Role.admin),
        ("node/exec1", Role.agent),
        ("person/pat", Role.agent),
        ("person/pat", Role.node),
        ("person/pat", "root"),
        ("person/pat", ""),
        ("person/pat", "Admin"),
        ("system/supervisor", Role.admin),
        ("system/anonymous", Role.admin),
        ("robot/r2", Role.admin),
        ("person/", Role.admin),
        ("", Role.admin),
    ],
)
async def test_a_role_in_the_wrong_hands_or_unknown_opens_nothing(who, role):
    caller = Principal(id=PrincipalId(who), role=role)
    for route in ROUTES:
        if route.permission is not Permission.anyone:
            assert (await answer(route, caller, {}, {}, b"")).status == 403, (who, role, route.path)


@pytest.mark.parametrize("role", list(Role))
async def test_a_token_opens_no_more_than_its_scopes(role):
    for scope in Permission:
        example = Principal.example(role)
        caller = Principal(id=example.id, role=role, scopes=frozenset({scope}))
        for permission in Permission:
            allowed = caller.may(permission)
            assert allowed == (
                permission in MAY[role] and permission in {scope, Permission.anyone}
            ), (role, scope, permission)


def test_a_token_without_the_scope_is_refused_by_a_rule_with_a_hint():
    caller = Principal(id=PrincipalId("person/pat"), role=Role.admin, scopes=frozenset())
    with pytest.raises(Forbidden) as refused:
        access.require(caller, Permission.people_manage)
    assert refused.value.extra["rules"] == ["token.keeps-its-scopes"]
    assert "--may" in refused.value.hint


def shipped() -> dict[str, bytes]:
    paths = [*POLICY_DIR.glob("*.cedar"), POLICY_DIR / SCHEMA]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    "broken",
    [
        b'@id("x") permit (principal, action, resource',
        b'@id("x") permit (principal, action == Action::"people:mange", resource);',
        b'@id("x") forbid (principal, action, resource) when { context.outside_token };',
        b'@id("x") forbid (principal, action, resource) when { principal.tier > 3 };',
        b"\xff\xfe",
        b"permit (principal, action, resource);",
    ],
)
async def test_a_broken_policy_opens_nothing_until_it_is_mended(tmp_path, monkeypatch, broken):
    for name, body in shipped().items():
        (tmp_path / name).write_bytes(body)
    (tmp_path / "zz.cedar").write_bytes(broken)
    access.policy_in_force.cache_clear()
    monkeypatch.setattr(access, "POLICY_DIR", tmp_path)
    try:
        for route in ROUTES:
            result = await answer(route, Principal.example(Role.admin), {}, {}, b"")
            assert result.status != 200
        with pytest.raises(Refused, match="cannot be relied on"):
            Principal.example(Role.admin).may(Permission.anyone)
        (tmp_path / "zz.cedar").unlink()
        assert Principal.example(Role.admin).may(Permission.people_manage)
    finally:
        access.policy_in_force.cache_clear()


def test_without_the_attribute_that_a_forbid_reads_the_answer_is_no():
    policy = Policy(shipped())
    asked = access.question(Principal.example(Role.admin), Permission.tasks_run)
    bare = engine.Request(
        principal=asked.principal,
        role=asked.role,
        action=asked.action,
        resource=asked.resource,
        context={},
    )
    assert policy.ask(asked).allowed
    assert not policy.ask(bare).allowed


def test_every_permission_is_an_action_and_asked_of_few_rules():
    """Sliced by action, a question reads the rules that may decide on it, not the whole set."""
    policy = access.policy_in_force()
    assert all(len(policy.about(permission)) < 6 for permission in Permission)
    assert {rule.id for rule in policy.about("tasks:run")} == {
        "agent.works", "researcher.works", "token.keeps-its-scopes",
    }  # fmt: skip
