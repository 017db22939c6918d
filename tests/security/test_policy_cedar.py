"""Attacks on the policy itself: Cedar's fail-open trap, missing files, unknown roles."""

from __future__ import annotations

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.core.errors import Forbidden, Refused
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Role
from angelos.core.policy.access import permissions_of
from angelos.core.policy.engine import POLICY_DIR, SCHEMA, Policy, Request

RUN = {
    "quarantined": False, "pipeline": False, "code": True, "guard": True, "labs": False,
    "readable": True,
    "tier": "full", "unsandboxed": False, "wall_ms": 1, "cpu_ms": 1, "memory_mb": 1, "pids": 1,
    "output_bytes": 1, "disk_mb": 1,
}  # fmt: skip
REVIEW = {"own": False, "again": False, "solo": False, "quarantined": False}
PROPOSE = {"quarantined": False, "touches_policy": False, "touches_protected": False, "paths": 1}


RULES = sorted(path.name for path in POLICY_DIR.glob("*.cedar"))


def files():
    """Return the shipped policy's files."""
    paths = [*POLICY_DIR.glob("*.cedar"), POLICY_DIR / SCHEMA]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def policy():
    return Policy.load(POLICY_DIR)


def ask(policy, who, role, action, context, resource=("Repo", "study")):
    """Ask the policy."""
    return policy.ask(
        Request(
            principal=PrincipalId(who),
            role=role,
            action=action,
            resource=resource,
            context=context,
        )
    )


NODE = ("Node", "node/exec1")


def test_the_trap_is_real_and_we_do_not_fall_into_it(policy):
    """A `forbid` that reads what is not there is skipped by Cedar, and the answer is Allow."""
    text = b"".join(body for name, body in sorted(files().items()) if name.endswith("cedar"))
    context = {key: value for key, value in RUN.items() if key != "tier"}
    request = {
        "principal": {"type": "Person", "id": "pat"},
        "action": {"type": "Action", "id": "run"},
        "resource": {"type": "Node", "id": "node/exec1"},
        "context": context,
    }
    entities = [
        {"uid": {"type": "Role", "id": "researcher"}, "attrs": {}, "parents": []},
        {
            "uid": {"type": "Person", "id": "pat"},
            "attrs": {},
            "parents": [{"type": "Role", "id": "researcher"}],
        },
    ]
    open_door = cedarpy.is_authorized(request, text.decode(), entities)
    assert open_door.decision is cedarpy.Decision.Allow
    answer = ask(policy, "person/pat", "researcher", "run", context, NODE)
    assert not answer.allowed
    assert "tier" in answer.errors[0]


def test_an_allow_with_errors_is_a_deny(policy, monkeypatch):
    class Answer:
        decision = cedarpy.Decision.Allow
        diagnostics = cedarpy.Diagnostics({"errors": ["a forbid was skipped"], "reason": []})

    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_: Answer())
    assert not ask(policy, "person/pat", "admin", "run", RUN, NODE).allowed


def test_no_decision_is_a_deny(policy, monkeypatch):
    class Answer:
        decision = cedarpy.Decision.NoDecision
        diagnostics = cedarpy.Diagnostics({})

    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_: Answer())
    assert not ask(policy, "person/pat", "admin", "run", RUN, NODE).allowed


@pytest.mark.parametrize(
    ("context", "resource"),
    [
        (RUN | {"tier": 1}, NODE),
        (RUN | {"wall_ms": 1.5}, NODE),
        (RUN | {"wall_ms": 2**70}, NODE),
        (RUN | {"wall_ms": float("nan")}, NODE),
        (RUN | {"more": True}, NODE),
        (RUN, ("Repo", "study")),
        (RUN, ("Nothing", "x")),
        (RUN, ("Node", "\ud800")),
        ({}, NODE),
    ],
)
def test_requests_outside_the_schema_are_denied(policy, context, resource):
    answer = ask(policy, "person/pat", "admin", "run", context, resource)
    assert not answer.allowed
    assert answer.errors


@pytest.mark.parametrize("action", ["", "fly", 'run"', "Run", "run\n"])
def test_unknown_actions_are_denied(policy, action):
    assert not ask(policy, "person/pat", "admin", action, RUN, NODE).allowed


@pytest.mark.parametrize("role", ["", "root", "Admin", "supervisor", 'admin" }', "admin\0"])
def test_unknown_roles_may_do_nothing(policy, role):
    assert not ask(policy, "person/pat", role, "run", RUN, NODE).allowed
    assert not ask(policy, "person/pat", role, "propose", PROPOSE).allowed


@pytest.mark.parametrize(
    "who", ["node/exec1", "person/", "", "admin", "person/a/b", "robot/r2", "person/\u0430\n"]
)
def test_only_people_agents_and_the_system_may_ask(policy, who):
    assert not ask(policy, who, "admin", "run", RUN, NODE).allowed


def test_the_system_is_not_any_system(policy):
    context = RUN | {"pipeline": True}
    assert ask(policy, "system/supervisor", "", "run", context, NODE).allowed
    assert not ask(policy, "system/other", "", "run", context, NODE).allowed
    assert not ask(policy, "person/supervisor", "viewer", "run", context, NODE).allowed
    assert not ask(policy, "agent/supervisor", "agent", "checkout", {"quarantined": False}).allowed


@pytest.mark.parametrize("role", list(Role))
def test_a_role_without_the_permission_is_denied_by_cedar_too(policy, role):
    """The permission stands beside the route; the policy must never give more."""
    who = "agent/x" if role is Role.agent else "person/x"
    questions = {
        Permission.tasks_run: ("run", RUN, NODE),
        Permission.proposals_create: ("propose", PROPOSE, ("Repo", "study")),
        Permission.proposals_review: ("approve", REVIEW, ("Repo", "study")),
        Permission.revisions_rollback: (
            "rollback", {"health": False, "quarantined": False}, ("Repo", "study")
        ),
    }  # fmt: skip
    for permission, (action, context, resource) in questions.items():
        allowed = ask(policy, who, role, action, context, resource).allowed
        assert allowed == (permission in permissions_of(role)), (role, action)


def test_agents_never_approve_whatever_role_they_claim(policy):
    for role in Role:
        for action in ("approve", "reject"):
            answer = ask(policy, "agent/ada", role, action, REVIEW)
            assert not answer.allowed
            assert "review.agents-never" in answer.rules


def test_ones_own_is_approved_only_by_who_works_alone(policy):
    own = REVIEW | {"own": True}
    assert not ask(policy, "person/x", "admin", "approve", own).allowed
    assert ask(policy, "person/x", "admin", "approve", own | {"solo": True}).allowed
    assert not ask(policy, "person/x", "researcher", "approve", own | {"solo": True}).allowed
    again = own | {"solo": True, "again": True}
    assert not ask(policy, "person/x", "admin", "approve", again).allowed


def test_quarantine_outranks_every_permission(policy):
    quarantined = {"quarantined": True}
    assert not ask(policy, "person/x", "admin", "run", RUN | quarantined, NODE).allowed
    assert not ask(policy, "person/x", "admin", "propose", PROPOSE | quarantined).allowed
    assert not ask(policy, "person/x", "admin", "approve", REVIEW | quarantined).allowed


PROMOTE = {
    "tests": 2, "failed": 0, "touches_policy": False, "touches_protected": False, "risk": 10,
    "held": False, "approvals": 0, "solo": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("context", "allowed"),
    [
        ({}, True),
        ({"tests": 0}, False),
        ({"tests": 0, "approvals": 1}, True),
        ({"failed": 1}, False),
        ({"failed": 1, "approvals": 5}, False),
        ({"risk": 401}, False),
        ({"risk": 1000, "approvals": 1}, True),
        ({"touches_protected": True}, False),
        ({"touches_protected": True, "approvals": 1}, True),
        ({"touches_policy": True, "approvals": 1}, False),
        ({"touches_policy": True, "approvals": 2}, True),
        ({"touches_policy": True, "touches_protected": True, "approvals": 1}, False),
        ({"held": True}, False),
        ({"held": True, "approvals": 1}, True),
        ({"touches_policy": True, "solo": True}, False),
        ({"touches_policy": True, "approvals": 1, "solo": True}, True),
        ({"failed": 1, "approvals": 1, "solo": True}, False),
    ],
)
def test_what_it_takes_to_become_main(policy, context, allowed):
    answer = ask(policy, "system/supervisor", "", "promote", PROMOTE | context)
    assert answer.allowed is allowed
    assert not ask(policy, "person/x", "admin", "promote", PROMOTE | context).allowed


@pytest.mark.parametrize(
    "broken",
    [
        {SCHEMA: None},
        {SCHEMA: b""},
        {SCHEMA: b"entity {"},
        {SCHEMA: b"\xff"},
        {"tasks.cedar": b"permit (principal"},
        dict.fromkeys(RULES),
        dict.fromkeys(RULES, b"// nothing\n"),
        {"more.cedar": b"permit (principal, action, resource);"},
        {"more.cedar": b'@id("run.people") permit (principal, action == Action::"run", resource);'},
        {"more.cedar": b'@id("x") forbid (principal, action, resource) when { context.nope };'},
        {"more.cedar": b'@id("x") permit (principal == ?principal, action, resource);'},
        {"more.cedar": b'@id("x") permit (principal is Robot, action, resource);'},
    ],
)
def test_a_policy_that_cannot_be_relied_on_does_not_load(tmp_path, broken):
    for name, body in (files() | broken).items():
        if body is not None:
            (tmp_path / name).write_bytes(body)
    with pytest.raises(Refused, match="cannot be relied on"):
        Policy.load(tmp_path)


def test_a_policy_without_its_schema_does_not_load(tmp_path):
    for name, body in files().items():
        if name != SCHEMA:
            (tmp_path / name).write_bytes(body)
    with pytest.raises(Refused, match=SCHEMA):
        Policy.load(tmp_path)


def test_the_hash_changes_with_every_byte_of_every_file(policy):
    seen = {policy.hash}
    for name, body in files().items():
        seen.add(Policy(files() | {name: body + b"\n"}).hash)
    assert len(seen) == len(files()) + 1


def test_a_refusal_names_the_rule_or_its_absence(policy):
    with pytest.raises(Forbidden, match=r"run\.agents-keep-the-guard") as caught:
        policy.decide(
            Request(
                principal=PrincipalId("agent/ada"), role="agent", action="run", resource=NODE,
                context=RUN | {"guard": False},
            )
        )  # fmt: skip
    assert caught.value.extra["rules"] == ["run.agents-keep-the-guard"]
    with pytest.raises(Forbidden, match="no rule"):
        policy.decide(
            Request(
                principal=PrincipalId("person/vic"), role="viewer", action="run", resource=NODE,
                context=RUN,
            )
        )  # fmt: skip


VALUES = {
    "quarantined": [True, False], "pipeline": [True, False], "code": [True, False],
    "guard": [True, False], "readable": [True, False], "labs": [True, False],
    "tier": ["full", "none"],
    "unsandboxed": [True, False], "wall_ms": [1, 10**9], "cpu_ms": [1], "memory_mb": [1, 10**6],
    "pids": [1], "output_bytes": [1], "disk_mb": [1], "own": [True, False], "again": [True, False],
    "solo": [True, False], "touches_policy": [True, False], "touches_protected": [True, False],
    "paths": [1, 1_000], "health": [True, False], "stranger": [True, 1, "x"],
}  # fmt: skip
ASKED = ["run", "cancel", "propose", "approve", "reject", "rollback", "read_output", "nonsense"]


@given(
    who=st.sampled_from(["person/x", "agent/x", "system/supervisor"]),
    role=st.sampled_from(["", *Role]),
    action=st.sampled_from(ASKED),
    resource=st.sampled_from([NODE, ("Repo", "study")]),
    context=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
    ),
    whole=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_what_an_action_cannot_match_is_left_out_without_a_difference(
    policy, who, role, action, resource, context, whole
):
    shapes = {"run": RUN, "propose": PROPOSE, "approve": REVIEW, "reject": REVIEW}
    if whole and action in shapes:
        context = {key: context.get(key, value) for key, value in shapes[action].items()}
    unsliced = Policy(files())
    everything = cedarpy.PolicySet.from_str(
        "\n".join(body.decode() for name, body in sorted(files().items()) if "schema" not in name)
    )
    unsliced._slices = {"": everything}
    sliced, answer = (ask(p, who, role, action, context, resource) for p in (policy, unsliced))
    assert (sliced.allowed, sliced.rules) == (answer.allowed, answer.rules)
    assert bool(sliced.errors) == bool(answer.errors)


def test_an_answer_that_is_kept_is_for_exactly_that_question(policy):
    for pids in (1, True, 1.0):
        answer = ask(policy, "agent/ada", "agent", "run", RUN | {"pids": pids}, NODE)
        assert answer.allowed is (pids is 1), pids  # noqa: F632 - True and 1.0 are equal to 1
