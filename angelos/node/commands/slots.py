"""How many tasks run at once on a node, and how many may wait for their turn.

For example:

    async with slots.hold(deadline=None) as slot:
        ...                      # one of those that run
        slot.give_back()         # it stands still: another may run
        await slot.take_again()

Tasks that wait are served in the order in which they came, those in the background after all
others; while some of them wait, every fourth slot is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from angelos.core.errors import Busy, DeadlineExceeded
from angelos.core.messages import Priority
from angelos.core.ports import Clock

_TURN = 4


class Slot:
    """A slot of one task."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.held = True
        """Whether the task may run."""

    def give_back(self) -> None:
        """Let another task run in place of this one, which stands still."""
        if self.held:
            self.held = False
            self._slots.release()

    async def take_again(self) -> None:
        """Wait until the task may run again; it comes before those that have not started."""
        if not self.held:
            await self._slots.acquire(None)
            self.held = True


class Slots:
    """A fixed number of slots."""

    def __init__(self, slots: int, waiting: int, clock: Clock) -> None:
        self.count = slots
        self.busy = 0
        self._max_waiting = waiting
        self._clock = clock
        self._resumed: deque[asyncio.Future[None]] = deque()
        self._normal: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()
        self._passed_over = 0

    @property
    def waiting(self) -> int:
        """How many tasks wait for a slot."""
        return len(self._resumed) + len(self._normal) + len(self._background)

    @contextlib.asynccontextmanager
    async def hold(
        self, deadline: float | None, priority: Priority = "normal"
    ) -> AsyncIterator[Slot]:
        """Hold a slot.

        Raises:
            Busy: as many tasks wait already as may; of those in the background, half as many may.
            DeadlineExceeded: the slot became free after `deadline`.
        """
        most = self._max_waiting
        if priority == "background":
            most //= 2
        if self.busy >= self.count and self.waiting >= most:
            raise Busy(f"{self.waiting} tasks wait on this node already.")
        await self.acquire(priority)
        slot = Slot(self)
        try:
            if deadline is not None and self._clock.time() > deadline:
                raise DeadlineExceeded("Its deadline had passed before it could be started.")
            yield slot
        finally:
            slot.give_back()

    async def acquire(self, priority: Priority | None) -> None:
        """Wait for a slot; without a priority, before all that have one."""
        if self.busy < self.count and not self.waiting:
            self.busy += 1
            return
        lanes = {None: self._resumed, "normal": self._normal, "background": self._background}
        lane = lanes[priority]
        turn = asyncio.get_running_loop().create_future()
        lane.append(turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given a slot at the same moment
                self.release()
            elif turn in lane:
                lane.remove(turn)
            raise

    def release(self) -> None:
        """Give the slot to whoever has waited, else keep it for whoever comes."""
        self.busy -= 1
        self._serve()

    def _serve(self) -> None:
        while self.busy < self.count and (lane := self._next_lane()):
            turn = lane.popleft()
            if not turn.done():
                self.busy += 1
                turn.set_result(None)

    def _next_lane(self) -> deque[asyncio.Future[None]] | None:
        """Return the lane whose turn it is, None if nobody waits."""
        if self._background and self._passed_over >= _TURN - 1:
            self._passed_over = 0
            return self._background
        for lane in (self._resumed, self._normal):
            if lane:
                self._passed_over += bool(self._background)
                return lane
        self._passed_over = 0
        return self._background or None
