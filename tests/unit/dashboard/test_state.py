"""What the dashboard makes of facts and views."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.api import NodeView, ProposalView, RepoView, StatusView, StepResult, TaskView
from angelos.core.messages import Fact, TaskResult, Tier
from angelos.core.ports import Change
from angelos.dashboard.state import (
    MAX_OUTPUT,
    MAX_PROPOSALS,
    MAX_TASKS,
    Stale,
    State,
    followed,
    loaded,
    lost,
    noticed,
    view,
    visible,
    with_proposal,
    with_task,
)


def fact(kind: str, subject: str, **data) -> Fact:
    return Fact(id="fact-1", at=1.0, actor="node/exec1", kind=kind, subject=subject, data=data)


def task(number: int = 1, **more) -> TaskView:
    known = {
        "state": "running", "by": "person/owner", "node": "exec1", "label": f"task {number}",
        "at": 1.0, "offset": "1-0",
    }  # fmt: skip
    return TaskView(id=f"task-{number:03}", **{**known, **more})


def result(**more) -> TaskResult:
    known = {
        "status": "ok", "exit_code": 0, "stdout": "out", "stderr": "err", "duration_s": 1.234,
        "node": "exec1", "tier": Tier.full,
    }  # fmt: skip
    return TaskResult(**{**known, **more})


def proposal(number: int = 1, **more) -> ProposalView:
    known = {
        "repo": "study", "base": "b" * 64, "author": "agent/ada", "message": f"change {number}",
        "digest": "d" * 64, "state": "waiting", "reason": "It touches a protected path.",
        "changes": (Change(path="study/a.py", before=None, after="x", diff="+one\n"),),
        "steps": (StepResult(name="unit", task="task-1", status="ok", seconds=0.5, output="82"),),
        "needs": 1,
    }  # fmt: skip
    return ProposalView(id=f"prop-{number:03}", **{**known, **more})


def status(**more) -> StatusView:
    node = NodeView(
        id="node/exec1", role="execution", connected=True, tier=Tier.full, since=1.0, running=2,
        revisions={"study": "c" * 64},
    )  # fmt: skip
    repo = RepoView(name="study", dev="d" * 64, main="c" * 64)
    known = {
        "version": "0", "started_at": 1.0, "tier": Tier.full, "nodes": (node,), "repos": (repo,),
        "tasks_running": 0, "waiting": 1, "journal": "1-0", "policy": "p",
    }  # fmt: skip
    return StatusView(**{**known, **more})


def test_everything_that_is_known_is_shown_as_plain_json():
    shown = view(loaded(State(), status(banner="unsandboxed!"), [task()], [proposal()]))
    assert json.loads(json.dumps(shown)) == shown
    assert shown["system"]["connected"]
    assert shown["system"]["banner"] == "unsandboxed!"
    (node,) = shown["nodes"]
    assert (node["name"], node["tier"], node["running"]) == ("exec1", "full", 2)
    assert node["revisions"] == [{"repo": "study", "revision": "c" * 12}]
    (approval,) = shown["approvals"]
    assert approval["digest"] == "d" * 64
    assert approval["changes"] == [{"path": "study/a.py", "diff": "+one\n", "cut": False}]
    assert approval["steps"][0]["output"] == "82"
    assert shown["tasks"][0]["label"] == "task 1"


def test_a_fact_says_what_to_ask_again():
    state = State()
    assert followed(state, fact("task.started", "task-1"))[1] == Stale(tasks=frozenset({"task-1"}))
    assert followed(state, fact("proposal.waiting", "prop-1"))[1].proposals == {"prop-1"}
    for kind in ("node.connected", "checkout.healthy", "branch.advanced", "rollback.done"):
        assert followed(state, fact(kind, "x"))[1] == Stale(system=True)
    assert not followed(state, fact("document.edited", "study:a.py"))[1]
    assert not followed(state, fact("audit.of.tomorrow", "x"))[1]


def test_output_is_live_until_the_result_is_there():
    state = with_task(State(), task())
    for text in ("one\n", "two\n"):
        state, stale = followed(state, fact("task.output", "task-001", text=text, stream="stdout"))
        assert not stale
    assert view(state)["tasks"][0]["output"] == "one\ntwo\n"
    state = with_task(state, task(state="finished", result=result()))
    (shown,) = view(state)["tasks"]
    assert (shown["output"], shown["status"], shown["seconds"]) == ("outerr", "ok", 1.23)
    assert not state.output


def test_lists_and_texts_are_bounded_and_the_newest_stay():
    state = State()
    for number in range(200):
        state = with_task(state, task(number))
        state = with_proposal(state, proposal(number, state="promoted"))
        state, _ = followed(state, fact("task.output", f"task-{number:03}", text="x" * 5000))
        state, _ = followed(state, fact("task.output", f"task-{number:03}", text="y" * 5000))
    assert len(state.tasks) == MAX_TASKS
    assert len(state.output) <= MAX_TASKS
    assert len(state.proposals) == MAX_PROPOSALS
    shown = view(state)
    assert shown["tasks"][0]["label"] == "task 199"
    assert len(shown["tasks"][0]["output"]) == MAX_OUTPUT
    assert shown["recent"][0]["message"] == "change 199"


def test_what_waits_for_a_person_is_never_pushed_out_by_what_does_not():
    state = with_proposal(State(), proposal(1))
    for number in range(2, 200):
        state = with_proposal(state, proposal(number, state="promoted"))
    assert [p["message"] for p in view(state)["approvals"]] == ["change 1"]


def test_a_lost_system_stays_in_sight_and_says_so():
    state = lost(loaded(State(), status(), [task()], [proposal()]), "gone")
    shown = view(state)
    assert (shown["system"]["connected"], shown["system"]["detail"]) == (False, "gone")
    assert shown["nodes"]
    assert shown["approvals"]


def test_a_failed_review_is_told_until_the_proposal_moves_on():
    state = noticed(with_proposal(State(), proposal()), "prop-001", "You may not.")
    assert view(state)["approvals"][0]["notice"] == "You may not."
    assert not with_proposal(state, proposal(state="promoted")).notices
    assert noticed(State(), "prop-9", "x") == State()


def test_nothing_hides_in_a_text():
    assert visible("if ok:\n\treturn 1\r\n") == "if ok:\n\treturn 1\n"
    assert visible("a\u202eb\x1b[31m\u200b") == "a<U+202E>b<U+001B>[31m<U+200B>"
    assert visible("grün 🙂") == "grün 🙂"


@given(st.text())
def test_visible_text_has_no_control_characters(text):
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b\r\x00")
