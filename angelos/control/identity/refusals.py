"""Refused calls in the journal: `access.refused`, so that the log tells who keeps asking.

async with RefusalLog(journal, clock) as refusals:
refusals.record(RefusedCall(principal=..., door="api", act="POST /people", code="forbidden"))
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Self

from angelos.adapters.host.endless import endless
from angelos.core.errors import AngelError
from angelos.core.facts import AccessRefused, Fact
from angelos.core.ids import PrincipalId
from angelos.core.ports import Clock, Journal
from angelos.core.refusals import RefusalState, RefusedCall, Repeated, due, take

log = logging.getLogger(__name__)
DOOR = PrincipalId("system/door")
_TICK_S = 0.5
_MAX_WAITING = 5_000
"""Facts that wait while the journal is away; the oldest go first."""
_MAX_TEXT = 300


class RefusalLog:
    """Appends refusals in the background; recording one never waits."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._state = RefusalState()
        self._waiting: deque[Repeated] = deque(maxlen=_MAX_WAITING)
        self._more = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = endless("refusals", self._write)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        self._waiting.extend(due(self._state, float("inf")))
        await self._flush()

    def record(self, refusal: RefusedCall) -> None:
        """Take a refusal: the first of its kind is written at once, repeated ones as a count."""
        first = take(self._state, refusal, self._clock.monotonic())
        if first is not None:
            self._waiting.append(first)
            self._more.set()

    async def _write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._more.wait()
            except TimeoutError:
                self._waiting.extend(due(self._state, self._clock.monotonic()))
            self._more.clear()
            if self._waiting and not await self._flush():
                await asyncio.sleep(_TICK_S)

    async def _flush(self) -> bool:
        """Append what waits; return whether it is in the journal."""
        batch = list(self._waiting)
        if not batch:
            return True
        try:
            await self._journal.append([self._fact(repeated) for repeated in batch])
        except (AngelError, OSError) as error:
            log.warning("%d refusals are not in the journal yet: %s", len(batch), error)
            return False
        for _ in batch:
            if self._waiting:
                self._waiting.popleft()
        return True

    def _fact(self, repeated: Repeated) -> Fact:
        refusal = repeated.refusal
        return Fact.of(
            AccessRefused(
                door=refusal.door,
                act=refusal.act[:_MAX_TEXT],
                reason=refusal.reason[:_MAX_TEXT],
                count=repeated.count,
            ),
            at=self._clock.time(),
            actor=DOOR,
            subject=refusal.principal,
            outcome=refusal.code,
            trace=refusal.trace,
        )
