"""Governance at work: watches what principals do, and quarantines.

One task folds facts into `state.WatchState` and carries its effects out; while a store is away it
waits for it. The audit log is a service of its own (`log.service`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Self

from angelos.core.facts import Fact, PrincipalFlagged
from angelos.core.ids import START, PrincipalId, offset_key
from angelos.core.ports import Clock, Journal, Signals
from angelos.governance.config import GovernanceConfig
from angelos.governance.retry import RETRY_S, retried
from angelos.governance.state import (
    WATCHED,
    Effect,
    FlagRequest,
    QuarantineRequest,
    WatchState,
    owed,
    step,
)

log = logging.getLogger(__name__)

ME = PrincipalId("system/governance")
_PAGE = 1_000


class Governance:
    """The watch over principals."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        signals: Signals,
        config: GovernanceConfig | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._signals = signals
        self._config = config or GovernanceConfig()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the watch."""
        self._task = asyncio.create_task(self._watch_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the watch; what it owes is carried out at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch_on(self) -> None:
        """Watch for ever; after a failure start again, and request what is still owed again."""
        while True:
            try:
                await self._watch()
            except Exception:
                log.critical("the watch over principals failed and starts again", exc_info=True)
                await asyncio.sleep(RETRY_S[-1])

    async def _watch(self) -> None:
        watch, effects, after = WatchState(), [], START
        last = await retried(self._journal.last)
        # The past is folded first: most of what it asks for was settled long ago.
        while page := await retried(
            lambda after=after: self._journal.read(after, _PAGE, kinds=WATCHED)
        ):
            for fact in page:
                watch, more = step(watch, fact, self._config)
                effects += more
            after = page[-1].offset
        await self._carry_out(owed(watch, effects))
        async for fact in self._journal.follow(max(after, last, key=offset_key), kinds=WATCHED):
            watch, effects = step(watch, fact, self._config)
            await self._carry_out(effects)

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, QuarantineRequest):
                log.warning("quarantine of %s: it %s", effect.principal, effect.reason)
                await retried(
                    lambda e=effect: self._signals.quarantine(e.principal, f"It {e.reason}.")
                )
            else:
                await retried(lambda e=effect: self._journal.append([self._flag(e)]))

    def _flag(self, flag: FlagRequest) -> Fact:
        return Fact.of(
            PrincipalFlagged(reason=flag.reason, evidence=flag.evidence),
            id=flag.id,
            at=self._clock.time(),
            actor=ME,
            subject=flag.principal,
        )
