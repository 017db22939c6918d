"""Appends a fact for each part of the system that was started again.

    async with RestartFacts(valkey_url) as facts:
        facts.add(Restart("valkey", failure, seconds=1.2))

The journal itself may be one of those parts, so facts wait here until it takes them; the newest
`_MOST` are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from types import TracebackType
from typing import Self

from angelos.adapters.host.endless import endless
from angelos.adapters.host.supervision import Restart
from angelos.adapters.stores.streams import patiently
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.facts import Fact, PartRestarted
from angelos.core.ids import PrincipalId

log = logging.getLogger(__name__)
KEEPER = PrincipalId("system/keeper")
_MOST = 100
_LAST_WORD_S = 1.0


class RestartFacts:
    """One task that appends to the journal at `valkey_url`."""

    def __init__(self, valkey_url: str) -> None:
        self._url = valkey_url
        self._waiting: deque[Fact] = deque(maxlen=_MOST)
        self._news = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = endless("facts of restarts", self._append)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_S):
                    await self._flushed.wait()
            self._task.cancel()
            await asyncio.wait({self._task})

    def add(self, restart: Restart) -> None:
        """Append the fact of a restart as soon as the journal takes it."""
        payload = PartRestarted(
            part=restart.part,
            cause=restart.failure.cause,
            exit_code=restart.failure.exit_code,
            seconds=round(restart.seconds, 3),
        )
        subject = f"system/{restart.part}"
        self._waiting.append(Fact.of(payload, at=time.time(), actor=KEEPER, subject=subject))
        self._flushed.clear()
        self._news.set()

    async def _append(self) -> None:
        client = connect(self._url)
        try:
            journal = ValkeyJournal(client)
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    fact = self._waiting[0]
                    await patiently(journal.append, [fact])
                    with contextlib.suppress(ValueError):  # pushed out by newer ones meanwhile
                        self._waiting.remove(fact)
                self._flushed.set()
        finally:
            await client.aclose()
