"""The ports in memory, with the promises of the real adapters except durability.

>>> import asyncio
>>> asyncio.run(MemoryJournal().last())
'0-0'
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

import msgspec

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.stores.streams import busy, matches
from angelos.core.facts import Fact
from angelos.core.ids import START, CommandId, FactId, Offset, PrincipalId, offset_key
from angelos.core.messages import Command
from angelos.core.ports import Clock, Receipt


class ManualClock:
    """A clock that moves only by `advance`; it starts at `now`, in Unix seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._elapsed = 0.0

    def time(self) -> float:
        """Return Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now += seconds
        self._elapsed += seconds


class _Offsets:
    """Makes `<ms>-<seq>` as a Valkey stream does: increasing, even if the clock goes back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = (0, 0)

    def next(self) -> Offset:
        ms = int(self._clock.time() * 1000)
        self._last = (ms, 0) if ms > self._last[0] else (self._last[0], self._last[1] + 1)
        return Offset(f"{self._last[0]}-{self._last[1]}")


class MemoryJournal:
    """`core.ports.Journal` in a list; offsets are made of the clock's time."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._offsets = _Offsets(clock or SystemClock())
        self._facts: list[Fact] = []
        self._ids: dict[FactId, Offset] = {}
        self._more = asyncio.Condition()

    async def append(self, facts: Sequence[Fact]) -> list[Offset]:
        """Append facts in order; one with an id that was appended before keeps its offset."""
        async with self._more:
            for fact in facts:
                if fact.id not in self._ids:
                    self._ids[fact.id] = self._offsets.next()
                    self._facts.append(msgspec.structs.replace(fact, offset=self._ids[fact.id]))
            self._more.notify_all()
            return [self._ids[fact.id] for fact in facts]

    async def read(
        self, after: Offset, limit: int = 1000, kinds: Collection[str] = (), subject: str = ""
    ) -> list[Fact]:
        """Return at most `limit` facts after `after` that are there now."""
        return [f for f in self._after(after) if matches(f, kinds, subject)][:limit]

    async def follow(
        self, after: Offset, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncGenerator[Fact, None]:
        """Yield facts after `after` for ever."""
        while True:
            async with self._more:
                while not (batch := self._after(after)):
                    await self._more.wait()
            for fact in batch:
                after = fact.offset
                if matches(fact, kinds, subject):
                    yield fact

    async def last(self) -> Offset:
        """Return the newest offset."""
        return self._facts[-1].offset if self._facts else START

    def _after(self, after: Offset) -> list[Fact]:
        key = offset_key(after)
        return [fact for fact in self._facts if offset_key(fact.offset) > key]


class MemoryDelivery:
    """A command handed out by `MemoryQueue`."""

    def __init__(self, queue: MemoryQueue, to: PrincipalId, offset: Offset, body: Command) -> None:
        self._queue, self._to = queue, to
        self.position = offset
        self.command = body

    async def ack(self) -> None:
        """Remove it for good."""
        self._queue.waiting(self._to).pop(self.position, None)

    async def nack(self, reason: str) -> None:
        """Hand it out again, before anything that came after it."""
        del reason
        await self._queue.give_back(self._to, self.position)


class MemoryQueue:
    """`core.ports.Queue` in dictionaries; one consumer per destination.

    Args:
        capacity: how many commands may wait for one destination.
        clock: the time of which positions are made.
    """

    def __init__(self, capacity: int = 10_000, clock: Clock | None = None) -> None:
        self._capacity = capacity
        self._offsets = _Offsets(clock or SystemClock())
        self._waiting: dict[PrincipalId, dict[Offset, Command]] = {}
        self._out: dict[PrincipalId, set[Offset]] = {}
        self._ids: dict[tuple[PrincipalId, CommandId], Offset] = {}
        self._changed = asyncio.Condition()

    def waiting(self, to: PrincipalId) -> dict[Offset, Command]:
        """Return what is not acknowledged by `to`, oldest first."""
        return self._waiting.setdefault(to, {})

    async def put(self, to: PrincipalId, command: Command) -> Receipt:
        """Take a command; raise `Busy` when the destination's queue is full."""
        earlier = self._ids.get((to, command.id))
        if earlier is not None:
            return Receipt(command=command.id, position=earlier, duplicate=True)
        if len(self.waiting(to)) >= self._capacity:
            raise busy(to, self._capacity)
        async with self._changed:
            position = self._offsets.next()
            self._ids[to, command.id] = position
            self.waiting(to)[position] = command
            self._changed.notify_all()
        return Receipt(command=command.id, position=position)

    async def take(self, me: PrincipalId) -> AsyncGenerator[MemoryDelivery, None]:
        """Yield what is not acknowledged, oldest first, then what comes, for ever."""
        out = self._out[me] = set()
        while True:
            async with self._changed:
                while (position := self._next(me, out)) is None:
                    await self._changed.wait()
            out.add(position)
            yield MemoryDelivery(self, me, position, self.waiting(me)[position])

    def _next(self, me: PrincipalId, out: set[Offset]) -> Offset | None:
        out &= self.waiting(me).keys()
        fresh = (position for position in self.waiting(me) if position not in out)
        return min(fresh, key=offset_key, default=None)

    async def give_back(self, to: PrincipalId, position: Offset) -> None:
        """Let `take` hand `position` out again."""
        async with self._changed:
            self._out.get(to, set()).discard(position)
            self._changed.notify_all()

    async def depth(self, to: PrincipalId) -> int:
        """Return how many commands wait for `to`."""
        return len(self.waiting(to))

    async def drop(self, to: PrincipalId, commands: Collection[CommandId]) -> int:
        """Remove waiting commands by id and return how many were removed."""
        positions = [p for p, c in self.waiting(to).items() if c.id in commands]
        for position in positions:
            del self.waiting(to)[position]
        return len(positions)
