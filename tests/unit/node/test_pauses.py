"""Runs of a principal stand still: their sessions, their slots, and the wait before."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from angelos.core.errors import Busy, Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.permissions import ALL_AGENTS
from angelos.core.sessions import SessionSignal
from angelos.node.commands.pauses import HeldSandbox, PausedPrincipals
from angelos.node.commands.slots import Slots
from angelos.testing import ManualClock

ADA, EVE, PAT = (PrincipalId(name) for name in ("agent/ada", "agent/eve", "person/pat"))


class Session:
    def __init__(self):
        self.still = False
        self.signals = []

    async def pause(self):
        self.still = True

    async def resume(self):
        self.still = False

    async def signal(self, signal):
        self.signals.append(signal)


class Slippery(Session):
    async def pause(self):
        raise Unavailable("New processes came faster than they were stopped.")


class Sandbox:
    tier = Tier.full

    async def start(self, spec):
        return Session()


class Node:
    """Slots and pauses, and runs that stay until the test ends."""

    def __init__(self, slots=3, memory_mb=2048):
        self.slots = Slots(slots, 8, ManualClock())
        self.paused = PausedPrincipals(memory_mb)
        self.ended = {}
        self.stack = contextlib.AsyncExitStack()

    async def run(self, principal, sandbox=None):
        slot = await self.stack.enter_async_context(self.slots.hold(None))
        run = await self.stack.enter_async_context(
            self.paused.run(principal, slot, 512, lambda why: self.ended.update({principal: why}))
        )
        return await HeldSandbox(sandbox or Sandbox(), run).start(None)


@pytest.fixture
async def node():
    node = Node()
    async with node.stack:
        yield node
    assert node.slots.busy == 0


async def until(predicate):
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110 - a fact of the loop itself
            await asyncio.sleep(0)


async def test_a_pause_stops_what_runs_and_what_starts_and_nobody_else(node):
    before = [await node.run(p) for p in (ADA, EVE, PAT)]
    await node.paused.set(ADA, paused=True)
    assert [s.still for s in before] == [True, False, False]
    waiting = asyncio.create_task(node.paused.until_free(ADA))
    await node.paused.until_free(EVE)
    await asyncio.sleep(0)
    assert not waiting.done()
    await node.paused.set(ADA, paused=False)
    await waiting
    await until(lambda: not any(s.still for s in before))


async def test_all_agents_at_once_and_one_that_stays_paused(node):
    running = [await node.run(p) for p in (ADA, EVE, PAT)]
    await node.paused.set(ALL_AGENTS, paused=True)
    assert [s.still for s in running] == [True, True, False]
    await node.paused.set(EVE, paused=True)
    await node.paused.set(ALL_AGENTS, paused=False)
    await until(lambda: not running[0].still)
    assert [s.still for s in running] == [False, True, False]


async def test_a_session_that_cannot_be_stopped_is_ended_and_holds_up_no_other(node):
    class SlipperySandbox(Sandbox):
        async def start(self, spec):
            return Slippery()

    slippery, other = await node.run(ADA, SlipperySandbox()), await node.run(EVE)
    await node.paused.set(ALL_AGENTS, paused=True)
    assert other.still
    assert slippery.signals == [SessionSignal.kill]


async def test_what_stands_still_gives_its_slot_back_and_waits_for_one_again():
    node = Node(slots=1)
    async with node.stack:
        ada = await node.run(ADA)
        await node.paused.set(ADA, paused=True)
        assert node.slots.busy == 0
        pat = await node.run(PAT)
        await node.paused.set(ADA, paused=False)
        await until(lambda: node.slots.waiting == 1)
        assert (ada.still, pat.still) == (True, False)
        await node.paused.set(ADA, paused=True)  # it does not wait any more
        assert (ada.still, node.slots.waiting) == (True, 0)
        await node.paused.set(ADA, paused=False)
        await node.paused.set(PAT, paused=True)
        await until(lambda: not ada.still)
        assert node.slots.busy == 1
    assert (node.slots.busy, node.slots.waiting) == (0, 0)


async def test_a_run_that_starts_under_a_pause_stands_still(node):
    await node.paused.set(ADA, paused=True)
    assert (await node.run(ADA)).still


async def test_what_stands_still_has_a_budget_of_memory_and_what_is_more_is_ended():
    node = Node(slots=3, memory_mb=1024)
    async with node.stack:
        for principal in (ADA, EVE, PAT):
            await node.run(principal)
        for principal in (ADA, EVE, PAT):
            await node.paused.set(principal, paused=True)
        assert list(node.ended) == [PAT]
        assert "no memory left" in node.ended[PAT]
        await node.paused.set(ADA, paused=False)
        await until(lambda: node.paused.keep(512))  # Ada's is free again
        assert not node.paused.keep(512)


async def test_every_fourth_slot_is_for_the_background_and_half_the_places():
    slots, order = Slots(1, 8, ManualClock()), []

    async def one(name, priority):
        async with slots.hold(None, priority):
            order.append(name)

    async with asyncio.TaskGroup() as group, slots.hold(None):
        for number in range(4):
            group.create_task(one(f"b{number}", "background"))
        await until(lambda: slots.waiting == 4)
        with pytest.raises(Busy):
            await one("b4", "background")
        for number in range(4):
            group.create_task(one(f"n{number}", "normal"))
        await until(lambda: slots.waiting == 8)
        with pytest.raises(Busy):
            await one("n4", "normal")
    assert order == ["n0", "n1", "n2", "b0", "n3", "b1", "b2", "b3"]
    assert (slots.busy, slots.waiting) == (0, 0)


async def test_who_goes_away_while_it_waits_takes_no_slot():
    slots = Slots(1, 8, ManualClock())

    async def one():
        async with slots.hold(None):
            pass

    async with slots.hold(None):
        jobs = [asyncio.create_task(one()) for _ in range(3)]
        await until(lambda: slots.waiting == 3)
        jobs[0].cancel()
        await asyncio.wait(jobs[:1])
    jobs[1].cancel()  # it was given the slot at this moment
    await asyncio.wait(jobs)
    assert (slots.busy, slots.waiting) == (0, 0)
    assert not jobs[2].cancelled()
