"""Who waits for the fold of the journal keeps nobody waiting, and may not have it read freely."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from angelos.adapters.net.link import Link
from angelos.core.channel import Machine
from angelos.core.facts import Kind
from angelos.core.frames import FactReport
from angelos.core.ids import Offset, PrincipalId
from angelos.core.messages import encode
from angelos.core.permissions import Principal, Role
from angelos.hub import journal_writer
from angelos.hub.consumer import QueueConsumer
from angelos.hub.fairness import FoldCredits, Turns
from angelos.hub.journal_writer import JournalWriter
from angelos.hub.models import Peer
from angelos.testing import eventually, make_fact

LATE, CALM = PrincipalId("node/late"), PrincipalId("node/calm")


class Appended:
    """A journal that keeps subjects."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def append(self, facts):
        self.subjects += [fact.subject for fact in facts]
        return [Offset(f"{n + 1}-0") for n in range(len(facts))]


class Fold:
    """An `Admission` that knows a task once it has caught up, and some never."""

    def __init__(self) -> None:
        self.readable, self.caught_up, self.asked = asyncio.Event(), False, 0

    def admitted(self, fact):
        mine = fact.subject.startswith("task-late")
        return fact if fact.actor == CALM or (mine and self.caught_up) else None

    async def catch_up(self):
        self.asked += 1
        await self.readable.wait()
        self.caught_up = True

    def folds(self, kind):
        del kind
        return False


def report(peer, subject):
    fact = make_fact(Kind.task_started, subject, actor=peer, data={"attempt": 1})
    return FactReport(fact.id, encode(fact))


def writer(name, clock, journal, fold, turns):
    principal = Principal(id=name, role=Role.node, serial="s")
    peer = Peer(principal=principal, node_role="execution", not_after=9e9)
    link = Link(name, Machine("session"), clock)
    credit = FoldCredits(fold, 1_000).of(name)
    consumer = QueueConsumer(cast("Any", None), link, "holder")
    write = JournalWriter(journal, fold, cast("Any", None), consumer, link, turns, credit).write
    return lambda *subjects: write(peer, [report(name, subject) for subject in subjects])


async def test_a_peer_whose_task_is_not_folded_yet_holds_no_turn_and_keeps_its_order(clock):
    journal, fold, turns = Appended(), Fold(), Turns(budget=1)
    late = writer(LATE, clock, journal, fold, turns)
    calm = writer(CALM, clock, journal, fold, turns)

    async def lagging():
        await late("task-late-1", "task-late-2")
        await late("task-late-3")

    waiting = asyncio.create_task(lagging())
    await eventually(lambda: fold.asked)
    async with asyncio.timeout(60):
        assert await calm("task-1") is None
    assert journal.subjects == ["task-1"]
    fold.readable.set()
    await waiting
    assert journal.subjects == ["task-1", "task-late-1", "task-late-2", "task-late-3"]
    assert turns.enter(1), "every turn was given back"


async def test_who_reports_what_is_not_its_to_say_waits_longer_and_longer(clock, monkeypatch):
    pauses: list[float] = []

    async def sleep(seconds):
        pauses.append(seconds)

    journal, fold = Appended(), Fold()
    fold.readable.set()
    late = writer(LATE, clock, journal, fold, Turns())
    with monkeypatch.context() as patched:
        patched.setattr(journal_writer.asyncio, "sleep", sleep)
        for number in range(25):
            await late(f"task-late-{number}", "task-of-another")
    assert journal.subjects == [f"task-late-{number}" for number in range(25)]
    assert pauses[:20] == [0.0] * 20
    assert pauses[20:] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


async def test_a_fold_that_lags_costs_its_peer_no_pause(clock, monkeypatch):
    async def sleep(seconds):
        pytest.fail(f"It was paused for {seconds} s.")

    journal, fold = Appended(), Fold()
    fold.readable.set()
    late = writer(LATE, clock, journal, fold, Turns())
    with monkeypatch.context() as patched:
        patched.setattr(journal_writer.asyncio, "sleep", sleep)
        for number in range(25):
            fold.caught_up = False
            await late(f"task-late-{number}")
    assert fold.asked == len(journal.subjects) == 25
