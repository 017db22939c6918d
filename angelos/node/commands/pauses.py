"""Principals whose runs stand still: holds what has not started, stops what runs where it is.

    async with pauses.run(ada, slot, 512, end) as run:
        HeldSandbox(sandbox, run)            # starts sessions that belong to this run
    await pauses.set(ada, paused=True)       # every box that runs for ada is stopped

A run that stands still gives its slot back, since others would wait for it for ever, and takes
one again before it goes on. It keeps its memory meanwhile, of which a node has a budget for such
runs: one that does not fit in is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable

from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.permissions import ALL_AGENTS
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.sessions import SessionSignal, SessionSpec
from angelos.node.commands.slots import Slot

log = logging.getLogger(__name__)
End = Callable[[str], None]
"""Ends a run for a reason."""


class PausedPrincipals:
    """Who is paused on this node, and the runs of each."""

    def __init__(self, memory_mb: int) -> None:
        """Let runs that stand still keep `memory_mb` in all."""
        self._paused: set[PrincipalId] = set()
        self._changed = asyncio.Event()
        self._runs: set[HeldRun] = set()
        self._free_mb = memory_mb

    def holds(self, principal: PrincipalId) -> bool:
        """Return whether a principal's runs stand still."""
        everybody = ALL_AGENTS in self._paused and principal.startswith("agent/")
        return everybody or principal in self._paused

    async def set(self, principal: PrincipalId, *, paused: bool) -> None:
        """Pause or resume what runs for a principal, or for all agents."""
        (self._paused.add if paused else self._paused.discard)(principal)
        for run in list(self._runs):
            if self.holds(run.principal):
                await run.pause()
            else:
                run.resume()
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_free(self, principal: PrincipalId) -> None:
        """Return when a principal is not paused."""
        while self.holds(principal):
            await self._changed.wait()

    @contextlib.asynccontextmanager
    async def run(
        self, principal: PrincipalId, slot: Slot, memory_mb: int, end: End
    ) -> AsyncIterator[HeldRun]:
        """Hold a run of a principal, which may use `memory_mb`; `end` ends it.

        It stands still from the start if its principal was paused while it waited for its slot.
        """
        run = HeldRun(self, principal, slot, memory_mb, end)
        self._runs.add(run)
        try:
            if self.holds(principal):
                await run.pause()
            yield run
        finally:
            self._runs.discard(run)
            await run.close()

    def keep(self, memory_mb: int) -> bool:
        """Take memory out of the budget; return whether there is as much."""
        if memory_mb > self._free_mb:
            return False
        self._free_mb -= memory_mb
        return True

    def free(self, memory_mb: int) -> None:
        """Put memory back into the budget."""
        self._free_mb += memory_mb


class HeldRun:
    """One run, with its slot and its sessions; it runs, stands still, or waits for a slot."""

    def __init__(
        self, paused: PausedPrincipals, principal: PrincipalId, slot: Slot, memory_mb: int, end: End
    ) -> None:
        self.principal = principal
        self._paused = paused
        self._slot = slot
        self._memory_mb = memory_mb
        self._end = end
        self._sessions: weakref.WeakSet[SandboxSession] = weakref.WeakSet()
        self._still = False
        self._resuming: asyncio.Task[None] | None = None

    async def add(self, session: SandboxSession) -> None:
        """Remember a session that has started, and stop it if the run stands still."""
        self._sessions.add(session)
        if self._still:
            await _hold(session, pause=True)

    async def pause(self) -> None:
        """Stop every session and give the slot back."""
        await self._stop_resuming()
        if self._still:
            return
        self._still = True
        for session in list(self._sessions):
            await _hold(session, pause=True)
        if not self._paused.keep(self._memory_mb):
            self._memory_mb = 0
            self._end(f"{self.principal} is paused, and the node has no memory left to keep it")
            return
        self._slot.give_back()

    def resume(self) -> None:
        """Go on as soon as there is a slot."""
        if self._still and self._resuming is None:
            self._resuming = asyncio.create_task(self._resume(), name="a run that goes on")

    async def close(self) -> None:
        """Forget the run, which has ended."""
        await self._stop_resuming()
        if self._still:
            self._paused.free(self._memory_mb)

    async def _resume(self) -> None:
        await self._slot.take_again()
        self._resuming = None
        self._still = False
        self._paused.free(self._memory_mb)
        for session in list(self._sessions):
            await _hold(session, pause=False)

    async def _stop_resuming(self) -> None:
        if self._resuming is not None:
            resuming, self._resuming = self._resuming, None
            resuming.cancel()
            await asyncio.gather(resuming, return_exceptions=True)


async def _hold(session: SandboxSession, *, pause: bool) -> None:
    """Pause or resume a session; one that cannot be stopped is ended, and holds up no other."""
    try:
        await (session.pause() if pause else session.resume())
    except AngelError as error:
        log.warning("A session that cannot be paused or resumed is ended: %s", error)
        await session.signal(SessionSignal.kill)


class HeldSandbox:
    """A sandbox whose sessions belong to one run."""

    def __init__(self, sandbox: SessionSandbox, run: HeldRun) -> None:
        self.tier: Tier = sandbox.tier
        self._sandbox = sandbox
        self._run = run

    async def start(self, spec: SessionSpec) -> SandboxSession:
        """Start a session, which stands still while its principal is paused."""
        session = await self._sandbox.start(spec)
        await self._run.add(session)
        return session
