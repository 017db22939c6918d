"""Principals whose runs stand still: holds what has not started, stops what runs where it is.

await pauses.set(ada, paused=True)       # every box that runs for ada is stopped
HeldSandbox(sandbox, pauses, ada)        # starts sessions that belong to ada
"""

from __future__ import annotations

import asyncio
import logging
import weakref

from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.permissions import ALL_AGENTS
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.sessions import SessionSignal, SessionSpec

log = logging.getLogger(__name__)


class PausedPrincipals:
    """Who is paused on this node, and the sessions that run for each."""

    def __init__(self) -> None:
        self._paused: set[PrincipalId] = set()
        self._changed = asyncio.Event()
        self._sessions: dict[PrincipalId, weakref.WeakSet[SandboxSession]] = {}

    def holds(self, principal: PrincipalId) -> bool:
        """Return whether a principal's runs stand still."""
        everybody = ALL_AGENTS in self._paused and principal.startswith("agent/")
        return everybody or principal in self._paused

    async def set(self, principal: PrincipalId, *, paused: bool) -> None:
        """Pause or resume what runs for a principal, or for all agents."""
        (self._paused.add if paused else self._paused.discard)(principal)
        for owner, sessions in self._sessions.items():
            for session in list(sessions):
                await self._hold(session, pause=self.holds(owner))
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_free(self, principal: PrincipalId) -> None:
        """Return when a principal is not paused."""
        while self.holds(principal):
            await self._changed.wait()

    async def add(self, principal: PrincipalId, session: SandboxSession) -> None:
        """Remember a session that has started, and stop it if its principal is paused by now."""
        self._sessions.setdefault(principal, weakref.WeakSet()).add(session)
        if self.holds(principal):
            await self._hold(session, pause=True)

    async def _hold(self, session: SandboxSession, *, pause: bool) -> None:
        """Pause or resume a session; one that cannot be stopped is ended, and holds up no other."""
        try:
            await (session.pause() if pause else session.resume())
        except AngelError as error:
            log.warning("A session that cannot be paused or resumed is ended: %s", error)
            await session.signal(SessionSignal.kill)


class HeldSandbox:
    """A sandbox whose sessions belong to one principal."""

    def __init__(
        self, sandbox: SessionSandbox, paused: PausedPrincipals, principal: PrincipalId
    ) -> None:
        self.tier: Tier = sandbox.tier
        self._sandbox = sandbox
        self._paused = paused
        self._principal = principal

    async def start(self, spec: SessionSpec) -> SandboxSession:
        """Start a session, which stands still while its principal is paused."""
        session = await self._sandbox.start(spec)
        await self._paused.add(self._principal, session)
        return session
