"""The pure part: whatever facts come in whatever order, the state holds and nothing is lost."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.control.state import tasks
from angelos.control.state.decide import KINDS, decide, fold, outstanding, overdue
from angelos.control.state.effects import EndTask, Promote, RollBack
from angelos.control.state.models import ControlState, MainRecord, RepoRecord
from angelos.control.state.nodes import contents
from angelos.control.state.queue import turn
from angelos.control.state.snapshot import packed, unpacked
from angelos.core.errors import InvalidInput
from angelos.core.facts import Kind
from angelos.testing import make_fact

REVISIONS = [digit * 64 for digit in "abc"]
TASKS = ["task-1", "task-2"]
PROPOSALS = ["prop-1", "prop-2"]
NODES = ["node/exec1", "node/labs1"]
PEOPLE = ["person/pat", "person/rita", "agent/ada", "system/supervisor"]


DATA = {
    Kind.task_accepted: {
        "command": "cmd-1", "request": "r", "node": NODES[0], "label": "", "wall_s": 1.0,
        "deadline": 10.0, "body": b"", "proposal": "prop-1",
    },
    Kind.task_finished: {
        "status": "ok", "exit_code": 0, "stdout": "", "stderr": "", "duration_s": 1.0,
        "node": "exec1", "tier": "full",
    },
    Kind.proposal_received: {
        "repo": "study", "base": REVISIONS[0], "digest": "d", "message": "m",
        "changes": [{"path": "a.py", "before": None, "after": "1"}],
    },
    Kind.proposal_refused: {"repo": "study", "base": REVISIONS[0], "reason": "no"},
    Kind.proposal_testing: {"main": REVISIONS[0]},
    Kind.proposal_tested: {"steps": [], "reason": "fine"},
    Kind.proposal_waiting: {"needs": 2, "reason": "two people"},
    Kind.proposal_approved: {"digest": "d"},
    Kind.proposal_promoted: {"repo": "study"},
    Kind.node_connected: {"role": "execution", "tier": "full"},
    Kind.node_enrolled: {"role": "labs"},
    Kind.checkout_requested: {"repo": "study", "canary": True, "attempt": 1, "body": b""},
    Kind.checkout_healthy: {"repo": "study"},
    Kind.checkout_failed: {"repo": "study"},
    Kind.rollback_done: {"from": REVISIONS[1], "to": REVISIONS[0], "cause": "health"},
    Kind.policy_loaded: {"hash": "h"},
    Kind.part_restarted: {"part": "valkey", "cause": "ended"},
    Kind.principal_ended: {"generation": 2},
    Kind.outputs_expired: {"upto": "3-0", "days": 1.0},
    Kind.audit_damaged: {"detail": "Entry 3 was changed."},
}  # fmt: skip

SUBJECTS = {
    "task": TASKS, "proposal": PROPOSALS, "node": NODES, "checkout": NODES,
    "principal": [*NODES, *PEOPLE], "system": ["system/control"], "part": ["system/valkey"],
    "policy": ["system/control"],
    "branch": ["study:main", "study:dev"], "rollback": ["study:main"], "person": PEOPLE[:1],
    "audit": ["system/audit"], "outputs": ["system/audit"],
    "token": PEOPLE[:1], "agent": PEOPLE[2:3],
}  # fmt: skip


@st.composite
def facts(draw):
    """Draw a fact; mostly well formed, sometimes not."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    data = DATA.get(kind, {}) if draw(st.integers(0, 9)) else {}
    subject = draw(st.sampled_from(SUBJECTS[kind.partition(".")[0]]))
    actors = [subject] if subject in NODES else [*PEOPLE, NODES[0]]
    return make_fact(
        kind,
        subject,
        actor=draw(st.sampled_from(actors)),
        data=data,
        revision=draw(st.sampled_from([*REVISIONS, None])),
        outcome=draw(st.sampled_from(["ok", "passed", "failed", "error", "unavailable"])),
    )


def play(history):
    """Fold a history and yield (state, fact) after each fact that fits."""
    state = ControlState()
    for number, told in enumerate(history, 1):
        fact = msgspec.structs.replace(told, offset=f"{number}-0")
        try:
            state = fold(state, fact)
        except InvalidInput:
            continue
        yield state, fact


@given(st.lists(facts(), max_size=60))
def test_what_a_fact_asks_for_a_restart_would_ask_for_too(history):
    for state, fact in play(history):
        assert set(decide(state, fact)) <= set(outstanding(state))


@given(st.lists(facts(), max_size=60))
def test_promises_hold_in_every_state(history):
    for state, _ in play(history):
        for record in state.proposals.values():
            assert record.author not in record.approvals
            assert len(set(record.approvals)) == len(record.approvals)
            assert all(who.startswith("person/") for who in record.approvals)
        for repo in state.repos.values():
            revisions = [main.revision for main in repo.mains]
            assert len(set(revisions)) == len(revisions)
        effects = outstanding(state)
        assert len({e.proposal for e in effects if isinstance(e, Promote)}) <= 1
        sick = {e.bad for e in effects if isinstance(e, RollBack)}
        assert sick <= {m.revision for r in state.repos.values() for m in r.mains if m.failed}


@given(st.lists(facts(), max_size=60))
def test_a_snapshot_is_the_state(history):
    state = ControlState()
    for state, _ in play(history):  # noqa: B007
        pass
    again = unpacked(packed(state))
    assert again == state
    # Their order decides whose turn it is.
    assert list(again.proposals) == list(state.proposals)
    assert outstanding(again) == outstanding(state)


def test_what_is_no_snapshot_is_none(caplog):
    assert unpacked(b"\x81") is None
    assert "cannot be read" in caplog.text


@given(st.lists(facts(), max_size=40))
def test_facts_told_twice_change_nothing(history):
    for state, fact in play(history):
        if fact.kind.startswith("proposal.") and fact.kind != Kind.proposal_testing:
            try:
                again = fold(state, fact)
            except InvalidInput:
                continue
            assert again.proposals == state.proposals


@given(st.lists(facts(), max_size=60))
def test_ended_tasks_stay_ended(history):
    ended = {}
    for state, _ in play(history):
        for task in state.tasks.values():
            if task.id in ended:
                assert task.result == ended[task.id]
            if not task.open:
                ended[task.id] = task.result


def state_of(*history):
    """Return the state after facts that all fit."""
    return list(play(history))[-1][0]


def accepted(task="task-1", **data):
    """Return a task's acceptance."""
    values = DATA[Kind.task_accepted] | {"proposal": ""} | data
    return make_fact(Kind.task_accepted, task, actor="person/pat", data=values)


def test_time_ends_what_nobody_else_ends():
    state = state_of(accepted(deadline=100.0))
    assert overdue(state, 110.0, 10.0, 60.0) == []
    assert overdue(state, 110.1, 10.0, 60.0) == [EndTask("task-1")]


@pytest.mark.parametrize("at", [1e300, float("inf"), float("nan"), 50_000.0, 0.0])
def test_a_node_whose_clock_is_wrong_does_not_keep_its_task_open(at):
    """It says that it started in the far future, and dies."""
    asked = msgspec.structs.replace(accepted(), at=40.0)
    began = make_fact(Kind.task_started, "task-1", actor=NODES[0])
    state = fold(ControlState(), msgspec.structs.replace(asked, offset="40000-0"))
    state = fold(state, msgspec.structs.replace(began, at=at, offset="41000-0"))
    assert 40.0 <= state.tasks["task-1"].started_at <= 41.0
    assert overdue(state, 41.0 + 1.0 + 10.1, 10.0, 60.0) == [EndTask("task-1")]


@pytest.mark.parametrize("attempt", [float("inf"), float("nan"), "2", 1.5, None, [1]])
def test_a_node_cannot_say_what_the_fold_does_not_survive(attempt):
    state = fold(ControlState(), msgspec.structs.replace(accepted(), offset="1-0"))
    data = {"attempt": attempt}
    for kind, subject in ((Kind.task_started, "task-1"), (Kind.checkout_requested, NODES[0])):
        fact = make_fact(kind, subject, actor=NODES[0], revision=REVISIONS[0], data=data)
        with contextlib.suppress(InvalidInput):
            fold(state, msgspec.structs.replace(fact, offset="2-0"))


def test_a_task_does_not_wait_long_for_a_node_that_is_gone():
    def node(kind, at):
        fact = make_fact(kind, NODES[0], actor=NODES[0], data=DATA.get(kind, {}))
        return msgspec.structs.replace(fact, at=at)

    task = accepted(deadline=9e9)
    gone = [node(Kind.node_connected, 0), task, node(Kind.node_disconnected, task.at + 5)]
    state = state_of(*gone)
    assert overdue(state, task.at + 75, 10.0, 60.0) == []
    assert overdue(state, task.at + 76, 10.0, 60.0) == [EndTask("task-1")]
    back = state_of(*gone, node(Kind.node_connected, task.at + 6))
    assert overdue(back, task.at + 76, 10.0, 60.0) == []


def test_finished_tasks_are_kept_up_to_bounds(monkeypatch):
    monkeypatch.setattr(tasks, "KEEP_TASKS", 2)
    history = [accepted("task-0")]
    for number in range(1, 6):
        end = DATA[Kind.task_finished]
        task = f"task-{number}"
        history += [
            accepted(task), make_fact(Kind.task_finished, task, actor=NODES[0], data=end)
        ]  # fmt: skip
    assert list(state_of(*history).tasks) == ["task-0", "task-4", "task-5"]


def test_a_hub_that_starts_loses_its_own_nodes_and_no_others():
    def connected(node, hub):
        data = {"role": "execution", "tier": "full", "hub": hub}
        return make_fact(Kind.node_connected, node, actor="system/hub", data=data)

    def started(subject):
        return make_fact(Kind.system_started, subject, actor="system/x", data={})

    def gone(node, hub):
        data = {"code": "lost", "hub": hub}
        return make_fact(Kind.node_disconnected, node, actor="system/hub", data=data)

    gateway = "system/gateway/gw.example.org"
    both = [connected("node/near", ""), connected("node/far", gateway)]

    def present(*history):
        nodes = state_of(*history).nodes
        return {name for name, node in nodes.items() if node.connected}

    assert present(*both, started("system/control")) == {"node/far"}
    assert present(*both, started(gateway)) == {"node/near"}
    assert present(*both, started("system/gateway/other")) == {"node/near", "node/far"}
    moved = [connected("node/far", gateway), connected("node/far", "")]
    assert present(*moved, gone("node/far", gateway)) == {"node/far"}, "it has moved meanwhile"
    assert present(*moved, gone("node/far", "")) == set()


def test_large_results_are_kept_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(tasks, "KEEP_RESULT_BYTES", 10)
    history = []
    for task in ("task-1", "task-2"):
        end = DATA[Kind.task_finished] | {"stdout": "x" * 6}
        history += [
            accepted(task), make_fact(Kind.task_finished, task, actor=NODES[0], data=end)
        ]  # fmt: skip
    assert list(state_of(*history).tasks) == ["task-2"]


def test_an_approved_proposal_goes_before_one_that_has_yet_to_be_tested():
    def fact(kind, proposal, actor="system/supervisor", **fields):
        return make_fact(kind, proposal, actor=actor, data=DATA.get(kind, {}), **fields)

    history = []
    for proposal in PROPOSALS:
        history += [
            fact(Kind.proposal_received, proposal, "agent/ada"),
            fact(Kind.proposal_merged, proposal),
        ]
    second = PROPOSALS[1]
    history += [
        fact(Kind.proposal_testing, second, revision=REVISIONS[1]),
        fact(Kind.proposal_tested, second, outcome="passed", revision=REVISIONS[1]),
        fact(Kind.proposal_approved, second),
    ]
    assert turn(state_of(*history), "study")[0].id == second


def test_what_a_rollback_leaves_in_main():
    a, b, c = REVISIONS
    d, e = "d" * 64, "e" * 64
    mains = [MainRecord(revision=a), MainRecord(revision=b), MainRecord(revision=c, restores=a)]
    assert contents(mains) == {a}
    mains.append(MainRecord(revision=d))
    assert contents(mains) == {a, d}
    mains.append(MainRecord(revision=e, restores=b))
    assert contents(mains) == {a, b}
    assert RepoRecord(name="study", mains=tuple(mains)).main.revision == e
