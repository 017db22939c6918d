"""A peer has a bounded number of facts that are not folded; what more it sends waits with it."""

from __future__ import annotations

import asyncio

import msgspec

from angelos.core.facts import Kind
from angelos.core.frames import FactReport
from angelos.core.ids import Offset, PrincipalId, offset_key
from angelos.core.permissions import Principal, Role
from angelos.hub.fairness import FoldCredits, Turns
from angelos.hub.journal_writer import JournalWriter
from angelos.hub.models import Peer
from angelos.testing import eventually, make_fact

LOUD, CALM = PrincipalId("node/loud"), PrincipalId("node/calm")


class Fold:
    """A journal and its fold, which goes on when the test says so."""

    def __init__(self):
        self.journal, self.position, self._moved = [], 0, asyncio.Condition()

    async def append(self, facts):
        first = len(self.journal) + 1
        self.journal += facts
        return [Offset(f"{first + n}-0") for n in range(len(facts))]

    def admitted(self, fact):
        return fact

    def folds(self, kind):
        return kind != Kind.task_output

    async def catch_up(self):
        pass

    async def folded(self, offset):
        async with self._moved:
            await self._moved.wait_for(lambda: offset_key(offset)[0] <= self.position)

    async def fold(self, count):
        async with self._moved:
            self.position = min(len(self.journal), self.position + count)
            self._moved.notify_all()

    def of(self, principal):
        return sum(fact.actor == principal for fact in self.journal)


def writer(fold, turns, granted, principal):
    peer = Peer(principal=Principal(id=principal, role=Role.node), node_role="", not_after=2e9)
    one = JournalWriter(fold, fold, None, None, None, turns, granted.of(principal))
    return lambda facts: one.write(peer, [report(fact) for fact in facts])


def report(fact):
    return FactReport(fact.id, msgspec.msgpack.encode(fact))


def facts(principal, count, kind=Kind.task_started):
    data = {"node": principal} if kind == Kind.task_started else {"stream": "stdout", "text": "x"}
    return [make_fact(kind, f"task-{n:032x}", actor=principal, data=data) for n in range(count)]


async def test_a_burst_waits_at_the_sender_and_others_are_written():
    fold, turns = Fold(), Turns()
    granted = FoldCredits(fold, 1_000)
    loud, calm = (writer(fold, turns, granted, who) for who in (LOUD, CALM))
    burst = facts(LOUD, 5_000)

    async def flood():
        for at in range(0, len(burst), 250):
            await loud(burst[at : at + 250])

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        await eventually(lambda: fold.of(LOUD) == 1_000, "the credit is used up")
        await calm(facts(CALM, 10))
        assert fold.of(LOUD) == 1_000  # the calm one's facts are at most 1,000 from the fold
        again = writer(fold, turns, granted, LOUD)  # a new connection has no new credit
        waiting = group.create_task(again(facts(LOUD, 1)))
        await loud_output(loud, fold)
        await fold.fold(1_010)
        await eventually(lambda: fold.of(LOUD) > 1_700, "it goes on when its facts are folded")
        while fold.position < 5_012:
            assert fold.of(LOUD) - folded(fold, LOUD) <= 1_001
            await fold.fold(300)
            await asyncio.sleep(0)
        await waiting
    assert fold.of(LOUD) == 5_002


async def loud_output(loud, fold):
    """What is not folded needs no credit."""
    await loud(facts(LOUD, 1, Kind.task_output))
    assert fold.of(LOUD) == 1_001


def folded(fold, principal):
    return sum(fact.actor == principal for fact in fold.journal[: fold.position])


async def test_a_batch_of_over_the_limit_waits_for_all_that_is_unfolded():
    fold = Fold()
    write = writer(fold, Turns(), FoldCredits(fold, 100), LOUD)
    await write(facts(LOUD, 150))
    async with asyncio.TaskGroup() as group:
        group.create_task(write(facts(LOUD, 150)))
        await fold.fold(149)
        assert len(fold.journal) == 150
        await fold.fold(1)
    assert len(fold.journal) == 300
