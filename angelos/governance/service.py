"""Governance at work: watches what principals do, and quarantines.

One task folds facts into `state.WatchState` and carries its effects out; while a store is away it
waits for it. The audit log is a service of its own (`log.service`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import Self

from angelos.adapters.host.endless import endless
from angelos.core.facts import (
    AlarmResponse,
    Fact,
    FactPayload,
    PauseCause,
    PrincipalFlagged,
    PrincipalPaused,
)
from angelos.core.ids import START, FactId, PrincipalId, offset_key
from angelos.core.ports import Clock, Journal, Signals
from angelos.governance.config import GovernanceConfig
from angelos.governance.detection.models import Alarm
from angelos.governance.retry import retried
from angelos.governance.state import WATCHED, WatchState, owed, step

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
        self._task = endless("watch over principals", self._watch)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the watch; what it owes is carried out at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        """Watch for ever; started anew, it requests what is still owed again."""
        watch, after = WatchState(), START
        last = await retried(self._journal.last)
        # The past is folded first: most of what it asks for was settled long ago.
        while page := await retried(
            lambda after=after: self._journal.read(after, _PAGE, kinds=WATCHED)
        ):
            for fact in page:
                watch, _ = step(watch, fact, self._config)
            after = page[-1].offset
        await self._carry_out(owed(watch))
        async for fact in self._journal.follow(max(after, last, key=offset_key)):
            watch, alarms = step(watch, fact, self._config)
            await self._carry_out(alarms)

    async def _carry_out(self, alarms: list[Alarm]) -> None:
        """Report each alarm, and then stop whom it is about, where that is to be done."""
        for alarm in alarms:
            log.warning("%s: %s (%s)", alarm.principal, alarm.sighting.reason, alarm.response)
            await retried(lambda a=alarm: self._journal.append([self._report(a)]))
            if alarm.response is AlarmResponse.quarantined:
                reason = f"Detected ({alarm.sighting.signal}): {alarm.sighting.reason}."
                await retried(lambda a=alarm, r=reason: self._signals.quarantine(a.principal, r))
            elif alarm.response is AlarmResponse.paused:
                await retried(lambda a=alarm: self._journal.append([self._pause(a)]))

    def _report(self, alarm: Alarm) -> Fact:
        sighting = alarm.sighting
        flagged = PrincipalFlagged(
            reason=sighting.reason,
            evidence=sighting.figures,
            signal=sighting.signal,
            severity=sighting.severity,
            response=alarm.response,
            acts=sighting.acts,
        )
        return self._fact(flagged, alarm.id, alarm.principal, alarm.response)

    def _pause(self, alarm: Alarm) -> Fact:
        paused = PrincipalPaused(reason=alarm.sighting.reason, cause=PauseCause.suspicion)
        digest = hashlib.sha256(f"pause {alarm.id}".encode()).hexdigest()
        return self._fact(paused, FactId(f"fact-{digest[:32]}"), alarm.principal)

    def _fact(
        self, payload: FactPayload, id_: FactId, subject: PrincipalId, outcome: str = ""
    ) -> Fact:
        return Fact.of(
            payload, id=id_, at=self._clock.time(), actor=ME, subject=subject, outcome=outcome
        )
