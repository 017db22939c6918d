"""The journal in memory, with the promises of the real adapter except durability.

>>> import asyncio
>>> asyncio.run(MemoryJournal().last())
'0-0'
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection, Sequence

import msgspec

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.stores.streams import matches
from angelos.core.errors import NotFound
from angelos.core.facts import Fact
from angelos.core.ids import START, FactId, Offset, offset_key
from angelos.core.ports import Clock, JournalPosition


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

    async def position(self, offset: Offset) -> JournalPosition:
        """Return where an offset stands."""
        newest = await self.last()
        return JournalPosition(
            epoch="memory",
            oldest=self._facts[0].offset if self._facts else START,
            newest=newest,
            present=offset == newest or offset in self._ids.values(),
        )

    def _after(self, after: Offset) -> list[Fact]:
        key = offset_key(after)
        return [fact for fact in self._facts if offset_key(fact.offset) > key]


class MemoryContents:
    """`core.ports.ContentStore` in memory; nothing is ever forgotten."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    async def put(self, content: bytes) -> str:
        """Keep a content and return its hash."""
        digest = hashlib.sha256(content).hexdigest()
        self._bodies[digest] = content
        return digest

    async def get(self, digest: str) -> bytes:
        """Return a content."""
        if digest not in self._bodies:
            raise NotFound(f"The file {digest[:12]} is not kept.")
        return self._bodies[digest]

    async def has(self, digests: Collection[str]) -> set[str]:
        """Return those of the hashes whose contents are kept."""
        return self._bodies.keys() & set(digests)
