"""The end of the journal, read once in a process for all who follow it.

One connection waits for new entries; a bounded ring keeps the newest, each decoded once and only
if a follower wants one of its kinds. A follower that is within the ring costs no command at all;
one that is behind it reads pages until it is.

    tail = Tail(client, "{journal}", decode)
    async with tail.joined(kinds, subject) as follower:
        if tail.covers(after):
            follower.start(after)
            facts = await follower.next()
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from angelos.adapters.host.endless import endless
from angelos.adapters.stores.blocks import Key, behind, entry_key, kinds_of, offset_in
from angelos.adapters.stores.pipeline import CommandPipeline, StoreError
from angelos.adapters.stores.streams import BACKOFF_S, PAGE, Client, matches
from angelos.core.errors import Unavailable
from angelos.core.facts import Fact
from angelos.core.ids import START, Offset, offset_key

log = logging.getLogger(__name__)
RING = 2_048
"""How many blocks the ring keeps; a decoded one takes some 3 KB, however small its facts are."""
RING_BYTES = 8 * 1024 * 1024
_BLOCK_MS = 5_000
_PATIENCE_S = 15.0
_BUSY_S, _GATHER_S = 0.005, 0.001
"""Reads that follow each other within the first wait for the second: a few facts come together."""
Rows = list[tuple[bytes, list[bytes]]]
Decode = Callable[[Rows], Awaitable[list[Fact]]]


class Block:
    """An entry of the journal, decoded when the first reader wants one of its kinds.

    Args:
        entry: Its id.
        words: Its fields.
        decode: Returns the facts of rows, and sets aside what cannot be read.
    """

    __slots__ = ("_decode", "_facts", "_kinds", "_words", "entry", "size")

    def __init__(self, entry: bytes, words: list[bytes], decode: Decode) -> None:
        self.entry = entry
        self.size = sum(map(len, words))
        self._words = words
        self._decode = decode
        self._kinds = kinds_of(words)
        self._facts: list[Fact] | None = None

    def concerns(self, kinds: Collection[str]) -> bool:
        """Return whether it may hold a fact of these kinds, all if empty; damage is everybody's."""
        return not kinds or self._kinds is None or not self._kinds.isdisjoint(kinds)

    async def facts(self) -> list[Fact]:
        """Return its facts, which all readers share."""
        if self._facts is None:
            self._facts = await self._decode([(self.entry, self._words)])
            self._words = []
        return self._facts


class Ring:
    """The newest blocks by number; what is taken out at its beginning keeps its number.

    >>> ring = Ring((0, 0), most=2)
    >>> ring.end
    0
    """

    def __init__(self, floor: Key, most: int = RING, most_bytes: int = RING_BYTES) -> None:
        self.floor = floor
        """The offset before the first block: every later fact is in the ring, or not read yet."""
        self.first = 0
        self._most, self._most_bytes = most, most_bytes
        self._blocks: list[Block] = []
        self._bytes = 0

    @property
    def end(self) -> int:
        """The number of the next block."""
        return self.first + len(self._blocks)

    def add(self, blocks: list[Block]) -> None:
        """Put blocks at the end and drop the oldest over the bounds."""
        self._blocks += blocks
        self._bytes += sum(block.size for block in blocks)
        over = max(0, len(self._blocks) - self._most)
        size = self._bytes - sum(block.size for block in self._blocks[:over])
        while size > self._most_bytes and over < len(self._blocks):
            size -= self._blocks[over].size
            over += 1
        if over:
            self.floor = offset_key(behind(self._blocks[over - 1].entry))
            self.first += over
            del self._blocks[:over]
        self._bytes = size

    def restart(self, floor: Key) -> None:
        """Forget every block: some behind them are missing."""
        self.first = self.end
        self._blocks.clear()
        self._bytes, self.floor = 0, floor

    def number_after(self, key: Key) -> int:
        """Return the number of the first block with a fact after an offset that is covered."""
        return self.first + bisect_right(
            self._blocks, key, key=lambda block: offset_key(behind(block.entry))
        )

    def since(self, number: int) -> list[Block]:
        """Return the blocks from this number on."""
        return self._blocks[number - self.first :]


class Follower:
    """One reader of the ring, with its filters."""

    def __init__(self, ring: Ring, kinds: Collection[str], subject: str) -> None:
        self._ring = ring
        self._kinds, self._subject = kinds, subject
        self._number = -1
        self._after: Key = (0, 0)
        self._news = asyncio.Event()

    def start(self, after: Offset) -> None:
        """Begin behind an offset that the ring covers."""
        self._after = offset_key(after)
        self._number = self._ring.number_after(self._after)
        self._news.set()

    def notice(self, fresh: list[Block]) -> None:
        """Wake up if one of the newest blocks concerns this reader, else go past them."""
        if self._number < 0 or self._news.is_set():
            return
        if any(block.concerns(self._kinds) for block in fresh):
            self._news.set()
        else:
            self._number = self._ring.end

    def wake(self) -> None:
        """Have the reader look again."""
        self._news.set()

    async def next(self) -> list[Fact] | None:
        """Return the facts that came since the last call; None if some have left the ring."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._number < self._ring.first:
                return None
            blocks = self._ring.since(self._number)
            self._number = self._ring.end
            chosen: list[Fact] = []
            for block in blocks:
                if block.concerns(self._kinds):
                    facts = await block.facts()
                    chosen += [fact for fact in facts if matches(fact, self._kinds, self._subject)]
            if self._after != (0, 0):  # the first block may begin before it
                chosen = [fact for fact in chosen if offset_key(fact.offset) > self._after]
                self._after = (0, 0)
            if chosen:
                return chosen


class Tail:
    """Reads the end of one stream while somebody follows it.

    Args:
        client: of whose server; the tail has a connection of its own.
        key: the stream.
        decode: returns the facts of rows, and sets aside what cannot be read.
    """

    def __init__(self, client: Client, key: str, decode: Decode) -> None:
        self._client = client
        self._key = key
        self._decode = decode
        self._followers: set[Follower] = set()
        self._ring = Ring((0, 0))
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def floor(self) -> Offset:
        """The offset before the first fact of the ring."""
        return Offset(f"{self._ring.floor[0]}-{self._ring.floor[1]}")

    def covers(self, after: Offset) -> bool:
        """Return whether every fact after `after` is in the ring, or still to come."""
        return self._ready.is_set() and offset_key(after) >= self._ring.floor

    @asynccontextmanager
    async def joined(
        self, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncGenerator[Follower, None]:
        """Yield a follower; the stream is read until the last one has left."""
        follower = Follower(self._ring, kinds, subject)
        self._followers.add(follower)
        try:
            if self._task is None:
                self._task = endless(f"tail of {self._key}", self._run)
            await self._ready.wait()
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers and self._task is not None:
                task, self._task = self._task, None
                self._ready.clear()
                task.cancel()
                await asyncio.wait([task])

    async def _run(self) -> None:
        pipeline = CommandPipeline(self._client.connection_pool)
        loop = asyncio.get_running_loop()
        try:
            position = await self._last(pipeline)
            self._ring.restart(_floor(position))
            self._ready.set()
            for follower in self._followers:  # of an earlier run, which has failed
                follower.wake()
            read_at = float("-inf")
            while True:
                if loop.time() - read_at < _BUSY_S:  # let a few come together
                    await asyncio.sleep(_GATHER_S)
                rows = await self._next(pipeline, position)
                if not rows:
                    continue
                read_at = loop.time()
                if len(rows) >= PAGE and await self._is_gap(pipeline, position, rows):
                    self._ring.restart(_before(rows[0][0]))
                    for follower in self._followers:
                        follower.wake()
                position = rows[-1][0].decode()
                fresh = [Block(entry, words, self._decode) for entry, words in rows]
                self._ring.add(fresh)
                for follower in self._followers:
                    follower.notice(fresh)
        finally:
            await pipeline.close()

    async def _last(self, pipeline: CommandPipeline) -> str:
        rows = await _retried(pipeline, "XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return rows[0][0].decode() if rows else START

    async def _next(self, pipeline: CommandPipeline, position: str) -> Rows:
        answer: Any = await _retried(
            pipeline, "XREAD", "COUNT", PAGE, "BLOCK", _BLOCK_MS, "STREAMS", self._key, position
        )
        return answer[0][1] if answer else []

    async def _is_gap(self, pipeline: CommandPipeline, position: str, rows: Rows) -> bool:
        """Return whether entries between `position` and the rows were trimmed unread.

        Trimming keeps more than a page, so that can be only where a whole page came.
        """
        first = await _retried(pipeline, "XRANGE", self._key, "-", "+", "COUNT", 1)
        oldest = entry_key(first[0][0].decode()) if first else (0, 0)
        return oldest >= entry_key(rows[0][0].decode()) > entry_key(position)


def _floor(position: str) -> Key:
    """Return the key of an offset behind every fact of an entry."""
    return offset_key(behind(position.encode())) if position != START else (0, 0)


def _before(entry: bytes) -> Key:
    """Return the key of an offset before every fact of an entry."""
    ms, sequence = offset_key(offset_in(entry.decode(), 0))
    return (ms, sequence - 1) if sequence else (ms - 1, 2**53)


async def _retried(pipeline: CommandPipeline, *words: str | int) -> Rows:
    """Return the answer, through restarts of the server."""
    tries = 0
    while True:
        try:
            return await pipeline.call(*words, patience_s=_PATIENCE_S)
        except (Unavailable, StoreError) as error:
            if tries == 0:
                log.warning("reading %s: %s Trying again.", words[1], error)
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1
