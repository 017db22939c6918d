"""How many tasks run at once on a node, and how many may wait for it.

async with slots.one(deadline=None):
...  # one of those that run
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from angelos.core.errors import Busy, DeadlineExceeded
from angelos.core.ports import Clock


class Slots:
    """Places to run in, given out in the order they were asked for."""

    def __init__(self, places: int, waiting: int, clock: Clock) -> None:
        """Take how many may run and how many may wait beside them."""
        self._free = asyncio.Semaphore(places)
        self._bound = waiting
        self._waiting = 0
        self._clock = clock

    @contextlib.asynccontextmanager
    async def one(self, deadline: float | None) -> AsyncIterator[None]:
        """Hold a place; `Busy` if too many wait, `DeadlineExceeded` if its turn comes too late."""
        if self._free.locked() and self._waiting >= self._bound:
            raise Busy(f"{self._waiting} tasks wait on this node already.")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            if deadline is not None and self._clock.time() > deadline:
                raise DeadlineExceeded("Its deadline had passed before it could be started.")
            yield
        finally:
            self._free.release()
