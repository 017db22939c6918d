"""The helpers that are given to users: they must be able to fail."""

from __future__ import annotations

import pytest

from angelos.testing import (
    ManualClock,
    MemoryJournal,
    eventually,
    facts_until,
    make_fact,
    need,
    next_fact,
)


def test_need(monkeypatch):
    need("something", "never")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such part"):
        need("", "no such part")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no such part"):
        need(None, "no such part")


async def test_eventually_returns_what_was_waited_for_or_fails():
    answers = iter([None, 0, "here"])
    assert await eventually(lambda: next(answers)) == "here"

    async def never():
        return False

    with pytest.raises(pytest.fail.Exception, match=r"never did not happen within 0\.05 s"):
        await eventually(never, within_s=0.05)


async def test_facts_are_waited_for_or_named():
    journal = MemoryJournal()
    facts = [make_fact("task.accepted", "task-1"), make_fact("task.started", "task-2")]
    await journal.append(facts)
    assert (await next_fact(journal, kind="task.started", subject="task-2")).id == facts[1].id
    with pytest.raises(
        pytest.fail.Exception, match=r"what came instead: task\.accepted, task\.started"
    ):
        await facts_until(journal, lambda _: False, within_s=0.05)


def test_a_manual_clock_moves_when_it_is_told():
    clock = ManualClock(5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (7.5, 2.5)
