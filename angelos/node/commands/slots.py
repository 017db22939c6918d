"""How many tasks run at once on a node, and how many may wait for their turn.

For example:

    async with slots.hold(deadline=None):
        ...  # one of those that run
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from angelos.core.errors import Busy, DeadlineExceeded
from angelos.core.ports import Clock


class Slots:
    """A fixed number of slots, given out in the order in which they were asked for."""

    def __init__(self, slots: int, waiting: int, clock: Clock) -> None:
        self._free = asyncio.Semaphore(slots)
        self.count = slots
        self.busy = 0
        self._max_waiting = waiting
        self._waiting = 0
        self._clock = clock

    @property
    def waiting(self) -> int:
        """How many tasks wait for a slot."""
        return self._waiting

    @contextlib.asynccontextmanager
    async def hold(self, deadline: float | None) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            Busy: as many tasks wait already as may.
            DeadlineExceeded: the slot became free after `deadline`.
        """
        if self._free.locked() and self._waiting >= self._max_waiting:
            raise Busy(f"{self._waiting} tasks wait on this node already.")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            if deadline is not None and self._clock.time() > deadline:
                raise DeadlineExceeded("Its deadline had passed before it could be started.")
            self.busy += 1
            try:
                yield
            finally:
                self.busy -= 1
        finally:
            self._free.release()
