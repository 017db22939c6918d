"""Fairness between peers: limits of rate, bytes and CPU for each identity, and weighted turns.

Whoever spends more than its limits allow is read from more slowly, so that its window fills;
nothing is lost and nobody else waits. What is to be written waits for its turn: those who wait are
served by start-time fair queueing (Goyal, Vin and Cheng, 1996), so a flooder has a turn in each
round like everybody else.

>>> queue = FairQueue()
>>> for name in ["loud", "loud", "loud", "calm"]:
...     queue.push(PrincipalId(name), cost=100.0, weight=1.0, item=name)
>>> [queue.pop() for _ in range(4)]
['loud', 'calm', 'loud', 'loud']
>>> bucket = TokenBucket(rate=10.0, burst=10.0)
>>> bucket.take(5.0, now=0.0), bucket.take(15.0, now=0.0)
(0.0, 1.0)
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, Self

import msgspec

from angelos.core.errors import Busy
from angelos.core.facts import Fact
from angelos.core.ids import Offset, PrincipalId, offset_key
from angelos.core.ports import Admission

BUDGET = 1024.0
"""So many items (or KiB, whichever is more) are being written at the same time."""
SLICE = 256
"""At most so many items of one peer are written in one turn, and one batch of the peer's."""
_LONGEST_PAUSE_S = 1.0
_MOST_IDENTITIES = 4096


Rate = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class IdentityLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one identity may spend in a second, with as much again at once."""

    items: Rate = 200_000
    """Facts, posts, settlements and frames."""
    bytes: Rate = 128 * 1024 * 1024
    """Of frames."""
    cpu: Rate = 0.5
    """Seconds of the hub's one thread, for reading what the peer sends."""
    requests: Rate = 1_000
    """Requests of the control API."""


class TokenBucket:
    """A budget that grows with time, up to `burst`; it may be overdrawn once, and then waits.

    Args:
        rate: How much comes in a second.
        burst: The most that is saved up.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, 0.0

    def take(self, amount: float, now: float) -> float:
        """Spend `amount` and return the seconds until the budget is out of debt."""
        level = self._level
        if now > self._at:
            level = min(self._burst, level + (now - self._at) * self._rate)
        self._at = now
        self._level = level = level - amount
        return 0.0 if level >= 0 else -level / self._rate


class Spending:
    """What one identity has spent."""

    __slots__ = (
        "_bytes",
        "_cpu",
        "_items",
        "_requests",
        "bytes",
        "cpu_s",
        "items",
        "paused_s",
        "requests",
    )

    def __init__(self, limits: IdentityLimits) -> None:
        self._items = TokenBucket(limits.items, limits.items)
        self._bytes = TokenBucket(limits.bytes, limits.bytes)
        self._cpu = TokenBucket(limits.cpu, limits.cpu)
        self._requests = TokenBucket(limits.requests, limits.requests)
        self.items = self.bytes = self.requests = 0
        self.cpu_s = self.paused_s = 0.0

    def frame(self, items: int, size: int, cpu_s: float, now: float) -> float:
        """Note a frame and return for how long the peer must not be read from."""
        self.items += items
        self.bytes += size
        self.cpu_s += cpu_s
        pause = max(
            self._items.take(items, now), self._bytes.take(size, now), self._cpu.take(cpu_s, now)
        )
        if pause:
            pause = min(pause, _LONGEST_PAUSE_S)
            self.paused_s += pause
        return pause

    def request(self, principal: PrincipalId, now: float) -> None:
        """Note a request; raise `Busy` if there were too many."""
        wait = self._requests.take(1, now)
        if wait:
            self._requests.take(-1, now)  # what is refused costs nothing
            raise Busy(
                f"{principal} sends too many requests.",
                hint="Wait for facts instead of asking again and again.",
                retry_after_s=wait,
            )
        self.requests += 1


class Ledger:
    """The spending of all identities of a hub; those that were not seen for longest are dropped."""

    def __init__(self, limits: IdentityLimits | None = None) -> None:
        self._limits = limits or IdentityLimits()
        self._spending: dict[PrincipalId, Spending] = {}

    def of(self, principal: PrincipalId) -> Spending:
        """Return an identity's spending."""
        spending = self._spending.pop(principal, None) or Spending(self._limits)
        self._spending[principal] = spending
        if len(self._spending) > _MOST_IDENTITIES:
            del self._spending[next(iter(self._spending))]
        return spending


class FoldCredit:
    """How many facts of one peer the journal has that are not folded yet.

    Args:
        admission: Whoever folds them.
        most: So many may wait for the fold.
    """

    def __init__(self, admission: Admission, most: int) -> None:
        self._admission = admission
        self._most = most
        self._appended: deque[tuple[Offset, int]] = deque()
        self.unfolded = 0

    async def wait(self, facts: int) -> None:
        """Return when so many more may be appended; a batch of over the limit waits for all."""
        while facts and self._appended and self.unfolded + facts > self._most:
            oldest = self._appended[0]
            await self._admission.folded(oldest[0])
            if self._appended and self._appended[0] is oldest:
                self._appended.popleft()
                self.unfolded -= oldest[1]

    def spend(self, facts: Sequence[Fact], offsets: Sequence[Offset]) -> None:
        """Note facts that were appended."""
        folding = [
            offset
            for fact, offset in zip(facts, offsets, strict=True)
            if self._admission.folds(fact.kind)
        ]
        if folding:
            self._appended.append((max(folding, key=offset_key), len(folding)))
            self.unfolded += len(folding)


class FoldCredits:
    """The credit of each identity of a hub, however often it connects.

    Args:
        admission: Whoever folds facts.
        most: So many of one identity may wait for the fold.
    """

    def __init__(self, admission: Admission, most: int) -> None:
        self._admission = admission
        self._most = most
        self._credits: dict[PrincipalId, FoldCredit] = {}

    def of(self, principal: PrincipalId) -> FoldCredit:
        """Return an identity's credit; whose facts are all folded begins anew."""
        if len(self._credits) >= _MOST_IDENTITIES:
            self._credits = {key: one for key, one in self._credits.items() if one.unfolded}
        return self._credits.setdefault(principal, FoldCredit(self._admission, self._most))


class FairQueue:
    """Whose turn it is: who has had least for its weight, and came first. Pure."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._number = itertools.count()
        self._time = 0.0
        self._ends: dict[PrincipalId, float] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, principal: PrincipalId, *, cost: float, weight: float, item: Any) -> None:
        """Have `item` wait for a turn of `principal`."""
        start = max(self._time, self._ends.get(principal, 0.0))
        self._ends[principal] = start + cost / weight
        heapq.heappush(self._heap, (start, next(self._number), item))

    @property
    def next(self) -> Any:
        """What has the next turn; there must be something."""
        return self._heap[0][2]

    def pop(self) -> Any:
        """Remove and return what has the next turn."""
        self._time, _, item = heapq.heappop(self._heap)
        if not self._heap:  # whoever comes now starts anew
            self._time, self._ends = 0.0, {}
        return item


class _Waiter:
    """Somebody who waits for a turn."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Turns:
    """Lets as much work be under way as the budget allows; the rest waits for its turn.

    Args:
        budget: The cost of all that is under way; one piece of work may always be.
    """

    def __init__(self, budget: float = BUDGET) -> None:
        self._budget = budget
        self._busy = 0.0
        self._queue = FairQueue()

    def turn(self, principal: PrincipalId, cost: float, weight: float = 1.0) -> Turn:
        """Return what is entered, by `async with`, when it is this principal's turn.

        Args:
            principal: Who works.
            cost: How much the work is, in the unit of the budget.
            weight: Who has twice the weight has twice the share while others wait.
        """
        return Turn(self, principal, cost, weight)

    def enter(self, cost: float) -> bool:
        """Begin work if nobody waits and there is room; return whether it has begun."""
        if len(self._queue) or not self._fits(cost):
            return False
        self._busy += cost
        return True

    async def wait(self, principal: PrincipalId, cost: float, weight: float) -> None:
        """Begin work when it is this principal's turn."""
        waiter = _Waiter(cost)
        self._queue.push(principal, cost=cost, weight=weight, item=waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if not waiter.turn.cancelled():
                self.leave(cost)  # it had its turn in the same moment
            raise

    def _fits(self, cost: float) -> bool:
        return not self._busy or self._busy + cost <= self._budget

    def leave(self, cost: float) -> None:
        """End work and let the next begin."""
        self._busy -= cost
        while len(self._queue):
            waiter: _Waiter = self._queue.next
            if not waiter.turn.done():
                if not self._fits(waiter.cost):
                    return
                self._busy += waiter.cost
                waiter.turn.set_result(None)
            self._queue.pop()


class Turn:
    """One turn of `Turns`, entered by `async with`; it may be given back for a while.

    Args:
        turns: Of whom.
        principal: Who works.
        cost: How much.
        weight: Of the principal.
    """

    __slots__ = ("_cost", "_held", "_principal", "_turns", "_weight")

    def __init__(self, turns: Turns, principal: PrincipalId, cost: float, weight: float) -> None:
        self._turns = turns
        self._principal, self._cost, self._weight = principal, cost, weight
        self._held = False

    async def __aenter__(self) -> Self:
        if not self._turns.enter(self._cost):
            await self._turns.wait(self._principal, self._cost, self._weight)
        self._held = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """Let others work meanwhile; afterwards wait for the next turn."""
        self._leave()
        yield
        await self.__aenter__()

    def _leave(self) -> None:
        if self._held:
            self._held = False
            self._turns.leave(self._cost)
