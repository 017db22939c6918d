"""What the dashboard makes of facts and views."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from angelos.dashboard.state import (
    MAX_OUTPUT,
    MAX_PROPOSALS,
    MAX_TASKS,
    DashboardState,
    StaleItems,
    followed,
    loaded,
    lost,
    noticed,
    tasks_to_request,
    view,
    visible,
    with_proposal,
    with_task,
)


def test_everything_that_is_known_is_shown_as_plain_json(make):
    shown = view(
        loaded(
            DashboardState(), make.status(banner="unsandboxed!"), [make.task()], [make.proposal()]
        )
    )
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


def test_a_fact_says_what_tasks_to_request_again(make):
    state = DashboardState()
    assert followed(state, make.fact("task.started", "task-1"))[1] == StaleItems(
        tasks=frozenset({"task-1"})
    )
    assert followed(state, make.fact("proposal.waiting", "prop-1"))[1].proposals == {"prop-1"}
    for kind in ("node.connected", "checkout.healthy", "branch.advanced", "rollback.done"):
        assert followed(state, make.fact(kind, "x"))[1] == StaleItems(system=True)
    assert not followed(state, make.fact("document.edited", "study:a.py"))[1]
    assert not followed(state, make.fact("audit.of.tomorrow", "x"))[1]


def test_a_task_that_is_started_again_shows_only_the_last_attempts_output(make):
    state = with_task(DashboardState(), make.task())
    facts = [
        make.fact("task.started", "task-001", node="exec1", attempt=1),
        make.fact("task.output", "task-001", text="half", stream="stdout"),
        make.fact("task.started", "task-001", node="exec1", attempt=2),
        make.fact("task.output", "task-001", text="whole\n", stream="stdout"),
    ]
    for fact in facts:
        state, stale = followed(state, fact)
        assert bool(stale) is (fact.kind == "task.started")
    assert view(state)["tasks"][0]["output"] == "[started again, attempt 2]\nwhole\n"


def test_a_cancelled_task_that_has_not_ended_says_what_it_waits_for(make):
    task = make.task(reason="Cancelled (enough); exec1 is away.")
    shown = view(with_task(DashboardState(), task))["tasks"][0]
    assert (shown["status"], shown["reason"]) == ("cancelling", task.reason)


def test_output_is_live_until_the_result_is_there(make):
    state = with_task(DashboardState(), make.task())
    for text in ("one\n", "two\n"):
        state, stale = followed(
            state, make.fact("task.output", "task-001", text=text, stream="stdout")
        )
        assert not stale
    assert view(state)["tasks"][0]["output"] == "one\ntwo\n"
    state = with_task(state, make.task(state="finished", result=make.result()))
    (shown,) = view(state)["tasks"]
    assert (shown["output"], shown["status"], shown["seconds"]) == ("outerr", "ok", 1.23)
    assert not state.output


def test_lists_and_texts_are_bounded_and_the_newest_stay(make):
    state = DashboardState()
    for number in range(200):
        state = with_task(state, make.task(number))
        state = with_proposal(state, make.proposal(number, state="promoted"))
        state, _ = followed(state, make.fact("task.output", f"task-{number:03}", text="x" * 5000))
        state, _ = followed(state, make.fact("task.output", f"task-{number:03}", text="y" * 5000))
    assert len(state.tasks) == MAX_TASKS
    assert len(state.output) <= MAX_TASKS
    assert len(state.proposals) == MAX_PROPOSALS
    shown = view(state)
    assert shown["tasks"][0]["label"] == "task 199"
    assert len(shown["tasks"][0]["output"]) == MAX_OUTPUT
    assert shown["recent"][0]["message"] == "change 199"


def test_of_thousands_of_tasks_only_those_that_are_shown_are_asked_for(make):
    state, stale = DashboardState(), StaleItems()
    for number in range(5000):
        state, more = followed(state, make.fact("task.accepted", f"task-{number:05}"))
        stale |= more
        state, _ = followed(state, make.fact("task.output", f"task-{number:05}", text="x" * 9000))
    assert tasks_to_request(stale) == [
        f"task-{number:05}" for number in range(5000 - MAX_TASKS, 5000)
    ]
    assert len(state.output) == MAX_TASKS


def test_live_output_that_is_cut_says_so(make):
    state, _ = followed(
        with_task(DashboardState(), make.task()),
        make.fact("task.output", "task-001", text="x" * MAX_OUTPUT),
    )
    assert not view(state)["tasks"][0]["cut"]
    state, _ = followed(state, make.fact("task.output", "task-001", text="y"))
    shown = view(state)["tasks"][0]
    assert (shown["cut"], len(shown["output"]), shown["output"][-2:]) == (True, MAX_OUTPUT, "xy")


def test_what_waits_for_a_person_is_never_pushed_out_by_what_does_not(make):
    state = with_proposal(DashboardState(), make.proposal(1))
    for number in range(2, 200):
        state = with_proposal(state, make.proposal(number, state="promoted"))
    assert [p["message"] for p in view(state)["approvals"]] == ["change 1"]


def test_a_lost_system_stays_in_sight_and_says_so(make):
    state = lost(loaded(DashboardState(), make.status(), [make.task()], [make.proposal()]), "gone")
    shown = view(state)
    assert (shown["system"]["connected"], shown["system"]["detail"]) == (False, "gone")
    assert shown["nodes"]
    assert shown["approvals"]


def test_a_failed_review_is_told_until_the_proposal_moves_on(make):
    state = noticed(with_proposal(DashboardState(), make.proposal()), "prop-001", "You may not.")
    assert view(state)["approvals"][0]["notice"] == "You may not."
    assert not with_proposal(state, make.proposal(state="promoted")).notices
    assert noticed(DashboardState(), "prop-9", "x") == DashboardState()


def test_nothing_hides_in_a_text():
    assert visible("if ok:\n\treturn 1\r\n") == "if ok:\n\treturn 1\n"
    assert visible("a\u202eb\x1b[31m\u200b") == "a<U+202E>b<U+001B>[31m<U+200B>"
    assert visible("grün 🙂") == "grün 🙂"


@given(st.text())
def test_visible_text_has_no_control_characters(text):
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b\r\x00")
