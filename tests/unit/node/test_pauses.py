"""Runs of a principal stand still: sessions that run, that start meanwhile, and the wait before."""

from __future__ import annotations

import asyncio

from angelos.core.errors import Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.permissions import ALL_AGENTS
from angelos.core.sessions import SessionSignal
from angelos.node.commands.pauses import HeldSandbox, PausedPrincipals

ADA, EVE, PAT = (PrincipalId(name) for name in ("agent/ada", "agent/eve", "person/pat"))


class Session:
    def __init__(self):
        self.still = False

    async def pause(self):
        self.still = True

    async def resume(self):
        self.still = False


class Sandbox:
    tier = Tier.full

    async def start(self, spec):
        return Session()


async def sessions(paused):
    return [await HeldSandbox(Sandbox(), paused, p).start(None) for p in (ADA, EVE, PAT)]


async def test_a_pause_stops_what_runs_and_what_starts_and_nobody_else():
    paused = PausedPrincipals()
    before = await sessions(paused)
    await paused.set(ADA, paused=True)
    after = await sessions(paused)
    assert [s.still for s in before + after] == [True, False, False] * 2
    waiting = asyncio.create_task(paused.until_free(ADA))
    await paused.until_free(EVE)
    await asyncio.sleep(0)
    assert not waiting.done()
    await paused.set(ADA, paused=False)
    await waiting
    assert not any(s.still for s in before + after)


async def test_all_agents_at_once_and_one_that_stays_paused():
    paused = PausedPrincipals()
    running = await sessions(paused)
    await paused.set(ALL_AGENTS, paused=True)
    assert [s.still for s in running] == [True, True, False]
    await paused.set(EVE, paused=True)
    await paused.set(ALL_AGENTS, paused=False)
    assert [s.still for s in running] == [False, True, False]


async def test_a_session_that_cannot_be_stopped_is_ended_and_holds_up_no_other():
    class Slippery(Session):
        def __init__(self):
            super().__init__()
            self.signals = []

        async def pause(self):
            raise Unavailable("New processes came faster than they were stopped.")

        async def signal(self, signal):
            self.signals.append(signal)

    paused, slippery = PausedPrincipals(), Slippery()
    await paused.add(ADA, slippery)
    before = await sessions(paused)
    await paused.set(ALL_AGENTS, paused=True)
    assert [s.still for s in before] == [True, True, False]
    assert slippery.signals == [SessionSignal.kill]
    await paused.add(EVE, slippery)  # one that starts meanwhile
    assert slippery.signals == [SessionSignal.kill] * 2
