"""Small rules of the hub: who says what, and what the machine must have."""

from __future__ import annotations

import functools
import math

import msgspec
import pytest
from tornado.util import import_object
from tornado.websocket import _websocket_mask  # pyright: ignore[reportAttributeAccessIssue]

from angelos.core.errors import Forbidden
from angelos.core.facts import Fact, Kind, TaskResult
from angelos.core.ids import FactId, Offset, PrincipalId, Revision
from angelos.core.messages import Status, Tier, encode
from angelos.core.permissions import Role
from angelos.core.sequences import FactSequence
from angelos.hub.models import check_fact, released_id, role_of
from angelos.testing import make_fact

NODE = PrincipalId("node/exec1")
RESULT = TaskResult(
    status=Status.ok, exit_code=0, stdout="\x00\x1b[31m", stderr="", duration_s=0.5,
    node="exec1", tier=Tier.full, evidence={"rss": 2**40, "steps": [0.5, None, True]},
)  # fmt: skip
WORK: dict[str, dict] = {
    "task.started": {},
    "task.output": {"stream": "stdout", "text": "hi"},
    "task.finished": msgspec.to_builtins(RESULT),
    "checkout.healthy": {"repo": "study"},
    "checkout.failed": {"repo": "study"},
    "node.load": {"cpu": 0.5},
}


def test_tornados_speedups_are_loaded() -> None:
    assert _websocket_mask is import_object("tornado.speedups.websocket_mask")


@pytest.mark.parametrize("kind", [str(kind) for kind in Kind])
def test_a_node_says_only_what_its_work_is(kind) -> None:
    fact = make_fact(kind, "x", actor=NODE, data=WORK.get(kind, {}))
    if kind in WORK:
        check_fact(fact, NODE, Role.node)
    else:
        with pytest.raises(Forbidden):
            check_fact(fact, NODE, Role.node)
    with pytest.raises(Forbidden):
        check_fact(fact, PrincipalId("agent/ada"), Role.agent)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "node/other"},
        {"id": FactId("anything")},
        {"id": FactId("task-" + "0" * 32)},
        {"offset": Offset("1-1")},
        {"on_behalf_of": PrincipalId("person/root")},
        {"sequence": FactSequence(writer=PrincipalId("node/other"), life=1, number=1)},
        {"sequence": FactSequence(writer=NODE, life=0, number=1)},
        {"sequence": FactSequence(writer=NODE, life=1, number=2**63)},
        {"subject": "x" * 1000},
        {"trace": "x" * 1000},
        {"revision": Revision("x" * 1000)},
        {"at": math.nan},
        {"at": math.inf},
        {"data": b""},
        {"data": b"\xc1"},
        {"data": encode([1])},
        {"data": {"attempt": math.inf}},
        {"data": {"evidence": [{"seconds": math.nan}]}},
        {"data": {"text": msgspec.msgpack.Ext(5, b"x")}},
        {"data": {"text": b"bytes"}},
        {"data": {"evidence": {7: "x"}}},
        {"data": {"evidence": functools.reduce(lambda below, _: [below], range(400), 1)}},
    ],
)
def test_a_fact_of_the_wrong_form_is_refused(change) -> None:
    fact = make_fact(Kind.task_started, "task-1", actor=NODE)
    if isinstance(data := change.get("data"), dict):
        change = {"data": msgspec.msgpack.encode(data)}
    with pytest.raises(Forbidden):
        check_fact(msgspec.structs.replace(fact, **change), NODE, Role.node)


@pytest.mark.parametrize(
    "field",
    [
        b"\xa1x\xa1\xff",
        b"\xa1x\x81\x80\x01",
        b"\xa1x\xd4\x05\x00",
        b"\xa1x\xcb\x7f\xf8" + b"\x00" * 6,
    ],
    ids=["bad UTF-8", "a key that is a map", "an extension", "not a number"],
)
def test_a_field_that_the_payload_does_not_know_is_looked_at_too(field) -> None:
    fact = Fact.of(RESULT, at=1.0, actor=NODE, subject="task-1")
    more = bytes([fact.data[0] + 1]) + fact.data[1:] + field  # a fixmap with one field more
    changed = msgspec.structs.replace(fact, data=more)
    assert changed.payload() == RESULT
    with pytest.raises(Forbidden):
        check_fact(changed, NODE, Role.node)


def test_a_node_counts_its_own_facts() -> None:
    sequence = FactSequence(writer=NODE, life=1, number=1)
    check_fact(
        Fact.of(RESULT, at=1.0, actor=NODE, subject="task-1", sequence=sequence), NODE, Role.node
    )


def test_what_programs_print_and_boxes_measure_is_taken() -> None:
    check_fact(Fact.of(RESULT, at=1.0, actor=NODE, subject="task-1"), NODE, Role.node)


def test_roles_follow_from_the_name() -> None:
    assert role_of(NODE) is Role.node
    assert role_of(PrincipalId("agent/node")) is Role.agent


def test_a_release_has_one_id_however_often_it_is_tried() -> None:
    fact = FactId("fact-" + "1" * 32)
    assert released_id(fact) == released_id(fact) != fact
