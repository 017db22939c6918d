"""Questions about the policy: they change nothing, and say what the routes themselves decide."""

from __future__ import annotations

import pytest

from angelos.control.explaining import checked, explanation, whoami
from angelos.core.api import SubmitTask
from angelos.core.errors import NotFound
from angelos.core.permissions import Permission, Role
from angelos.core.policy.access import permissions_of, policy_in_force
from angelos.core.policy.engine import files_in
from tests.unit.control.fakes import ADA, PERSON, World


async def test_whoami_is_what_the_server_has_established(clock):
    world = World(clock)
    async with world.running() as control:
        await world.node()
        view = await whoami(control, PERSON)
        assert (view.id, view.role, view.state) == (PERSON.id, PERSON.role, "active")
        assert set(view.permissions) == permissions_of(PERSON.role)
        assert view.tasks_open == 0
        await control.tasks.submit(ADA, SubmitTask(code="print(1)"))
        assert (await whoami(control, PERSON)).tasks_open == 0


@pytest.mark.parametrize("role", list(Role))
def test_an_explanation_says_what_the_policy_decides(role):
    policy = policy_in_force()
    for permission in Permission:
        view = explanation(policy, permission, role)
        assert view.allowed == (permission in permissions_of(role))
        assert bool(view.decided_by) == view.allowed
        assert set(view.decided_by) <= {rule.id for rule in view.rules}


def test_what_depends_on_more_than_a_role_is_not_answered_with_yes_or_no():
    view = explanation(policy_in_force(), "promote", Role.admin)
    assert view.allowed is None
    assert {"promote.low-risk", "promote.tests-must-pass"} <= {rule.id for rule in view.rules}


@pytest.mark.parametrize("action", ["", "fly", "Action::promote", "promote\\n"])
def test_an_unknown_action_is_named(action):
    with pytest.raises(NotFound, match="no action"):
        explanation(policy_in_force(), action, Role.admin)


def test_a_check_tells_who_gains_and_who_loses():
    text = files_in()["roles.cedar"].decode()
    changed = text.replace('Action::"proposals:review", ', "").replace(
        'action == Action::"people:manage"',
        'action in [Action::"people:manage", Action::"messages:send"]',
    )
    view = checked(policy_in_force(), {"roles.cedar": changed})
    assert view.valid
    assert view.gained == {Role.admin: (Permission.messages_send,)}
    assert set(view.lost) == {Role.reviewer, Role.operator, Role.admin}
    assert policy_in_force().hash == explanation(policy_in_force(), "run", Role.admin).policy


@pytest.mark.parametrize(
    "files",
    [
        {"roles.cedar": "permit (principal"},
        {"zz.cedar": "permit (principal, action, resource);"},
        {"zz.cedar": '@id("x") forbid (principal, action, resource) when { context.nope };'},
        {"schema.cedarschema": "entity {"},
        {"zz.cedar": "\ud800"},
    ],
)
def test_what_is_no_policy_is_said_to_be_none(files):
    view = checked(policy_in_force(), files)
    assert not view.valid
    assert view.reason
