"""The journal and the queues in Valkey streams (or Redis >= 7).

    client = connect("unix:///run/angelos/valkey.sock")
    journal = ValkeyJournal(client)
    offset, = await journal.append([fact])
    async with aclosing(journal.follow(offset)) as facts:
        async for fact in facts: ...

`append` and `put` are one script each, so a batch is stored whole or not at all, and once however
often it is sent. The newest ids are kept in two hashes of bounded size that take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Sequence
from typing import Any, cast

import msgspec

from angelos.adapters.stores.history import History
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import (
    PAGE,
    Client,
    Stream,
    busy,
    check_server,
    connect,
    matches,
    patiently,
    unavailable,
)
from angelos.core.facts import Fact
from angelos.core.ids import START, CommandId, Offset, PrincipalId, offset_key
from angelos.core.messages import Command, decode, encode
from angelos.core.ports import Receipt

log = logging.getLogger(__name__)

__all__ = ["Client", "ValkeyDelivery", "ValkeyJournal", "ValkeyQueue", "check_server", "connect"]

_TOGETHER = 256
IDS_REMEMBERED = 65_536
"""At least this many of the newest ids are kept, at most twice as many."""

# KEYS: stream, ids, older ids. ARGV: ids remembered, then id and body of each fact.
_APPEND = """
local offsets = {}
for i = 2, #ARGV, 2 do
  local offset = redis.call('HGET', KEYS[2], ARGV[i]) or redis.call('HGET', KEYS[3], ARGV[i])
  if not offset then
    offset = redis.call('XADD', KEYS[1], '*', 'b', ARGV[i + 1])
    redis.call('HSET', KEYS[2], ARGV[i], offset)
  end
  offsets[#offsets + 1] = offset
end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[1]) then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
return offsets
"""

# KEYS as above. ARGV: ids remembered, capacity, id, body. Returns {position, 1 if duplicate}.
_PUT = """
local known = redis.call('HGET', KEYS[2], ARGV[3]) or redis.call('HGET', KEYS[3], ARGV[3])
if known then return {known, 1} end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return {'', 0} end
local position = redis.call('XADD', KEYS[1], '*', 'b', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[3], position)
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[1]) then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
return {position, 0}
"""

# KEYS as above. ARGV: ids of commands. Returns how many were waiting and were removed.
_DROP = """
local removed = 0
for _, id in ipairs(ARGV) do
  local position = redis.call('HGET', KEYS[2], id) or redis.call('HGET', KEYS[3], id)
  if position then removed = removed + redis.call('XDEL', KEYS[1], position) end
end
return removed
"""


class _Append:
    """One caller of `append` whose facts are still to be sent."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.offsets: list[Offset] = []


class ValkeyJournal:
    """`core.ports.Journal` in one stream.

    With a database, readers that start before the stream's first entry get the lasting facts
    from the audit log first, and `trim` may be used.

    Args:
        client: from `connect`.
        database: the one that holds the audit log, if any.
    """

    def __init__(self, client: Client, database: Database | None = None) -> None:
        self._stream = Stream(client, "journal")
        self._history = History(database) if database is not None else None
        self._append = client.register_script(_APPEND)
        self._waiting: dict[_Append, None] = {}  # in order of arrival
        self._sending = asyncio.Lock()

    async def append(self, facts: Sequence[Fact]) -> list[Offset]:
        """Append facts, all or none; raise `Unavailable`, after which it may be repeated."""
        if not facts:
            return []
        call = _Append(facts)
        self._waiting[call] = None
        try:
            # The holder of the lock sends for all callers that wait: one connection, one round
            # trip.
            async with self._sending:
                if call in self._waiting:
                    rest = (waiting for waiting in self._waiting if waiting is not call)
                    await self._send([call, *rest])
        finally:
            self._waiting.pop(call, None)
        return call.offsets

    async def _send(self, batch: list[_Append]) -> None:
        """Append for the first of `batch`, and for the rest as far as they fit.

        Only the first sees a failure; the rest try for themselves. Facts that were stored in
        spite of it keep their offsets, because ids are deduplicated.
        """
        batch = batch[:_TOGETHER]
        args: list[Any] = [IDS_REMEMBERED]
        for fact in (fact for waiting in batch for fact in waiting.facts):
            args += (fact.id, encode(msgspec.structs.replace(fact, offset=Offset(""))))
        async with unavailable():
            answer = await self._append(keys=self._stream.keys, args=args)
        offsets = iter([Offset(offset.decode()) for offset in cast("list[bytes]", answer)])
        for waiting in batch:
            waiting.offsets = list(itertools.islice(offsets, len(waiting.facts)))
            self._waiting.pop(waiting, None)

    async def read(
        self, after: Offset, limit: int = 1000, kinds: Collection[str] = (), subject: str = ""
    ) -> list[Fact]:
        """Return at most `limit` facts after `after` that are there now."""
        facts: list[Fact] = []
        if self._history is not None:
            first = await self._first()
            if first is None or offset_key(first) > offset_key(after):
                facts = await self._history.read(after, first, limit, kinds, subject)
        position = max(after, facts[-1].offset, key=offset_key) if facts else after
        while len(facts) < limit and (page := await self._stream.after(position, PAGE)):
            position = Offset(page[-1][0])
            newer = (_fact(*row) for row in page)
            facts += [fact for fact in newer if matches(fact, kinds, subject)]
        return facts[:limit]

    async def follow(
        self, after: Offset, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncGenerator[Fact, None]:
        """Yield facts after `after` for ever; close it with `contextlib.aclosing`."""
        while True:
            start = after
            if self._history is not None:
                start = await patiently(self._first)
                while page := await patiently(self._history.read, after, start, PAGE):
                    for fact in page:
                        after = fact.offset
                        if matches(fact, kinds, subject):
                            yield fact
            async with contextlib.aclosing(self._stream.follow(after)) as pages:
                async for page in pages:
                    # `trim` keeps more than a page: entries can be missing only after a full one.
                    if len(page) == PAGE and await self._trimmed(after, start):
                        break
                    for row in page:
                        fact = _fact(*row)
                        after = fact.offset
                        if matches(fact, kinds, subject):
                            yield fact

    async def last(self) -> Offset:
        """Return the newest offset (`START` when nothing was ever appended)."""
        rows = await self._stream.ask("XREVRANGE", "+", "-", "COUNT", 1)
        if rows:
            return Offset(rows[0][0].decode())
        return await self._history.projected() if self._history is not None else START

    async def trim(self, keep: int = 100_000) -> int:
        """Remove all but about the `keep` newest facts, and none that the audit log lacks.

        Returns how many were removed. Facts that do not last are lost for good.
        """
        if self._history is None or keep <= PAGE:
            raise ValueError("trim needs a database, and to keep more than one page")
        projected = await self._history.projected()
        excess = await self._stream.ask("XLEN") - keep
        if excess <= 0:
            return 0
        rows = await self._stream.ask("XRANGE", "-", "+", "COUNT", excess + 1)
        upto = min(Offset(rows[-1][0].decode()), projected, key=offset_key)
        return await self._stream.ask("XTRIM", "MINID", "=", upto)

    async def _trimmed(self, after: Offset, start: Offset | None) -> bool:
        """Return whether entries after `after` were trimmed since the first one was `start`."""
        if self._history is None:
            return False
        first = await patiently(self._first)
        newest = offset_key(max(after, start or START, key=offset_key))
        return first is None or offset_key(first) > newest

    async def _first(self) -> Offset | None:
        rows = await self._stream.ask("XRANGE", "-", "+", "COUNT", 1)
        return Offset(rows[0][0].decode()) if rows else None


class ValkeyDelivery:
    """A command handed out by `ValkeyQueue`."""

    def __init__(self, taking: _Taking, position: Offset, command: Command) -> None:
        self._taking = taking
        self.position = position
        self.command = command

    async def ack(self) -> None:
        """Remove it for good; raise `Unavailable`, after which the call may be repeated."""
        await self._taking.stream.ask("XDEL", self.position)
        self._taking.out.discard(self.position)

    async def nack(self, reason: str) -> None:
        """Hand it out again, before anything that came after it."""
        log.info("%s is given back: %s", self.command.id, reason)
        self._taking.out.discard(self.position)
        self._taking.given_back.set()


class _Taking:
    """What one consumer holds: commands that were delivered and not acknowledged."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.out: set[str] = set()
        self.given_back = asyncio.Event()


class ValkeyQueue:
    """`core.ports.Queue`: a stream per destination, one consumer each.

    A new `take` begins with the oldest command that is not acknowledged, so a consumer that
    was killed loses nothing; what had been delivered to it is delivered again.

    Args:
        client: from `connect`.
        capacity: how many commands may wait for one destination.
    """

    def __init__(self, client: Client, capacity: int = 10_000) -> None:
        self._client = client
        self._capacity = capacity
        self._put = client.register_script(_PUT)
        self._drop = client.register_script(_DROP)

    async def put(self, to: PrincipalId, command: Command) -> Receipt:
        """Store a command durably; raise `Busy` when full, or `Unavailable`."""
        args = [IDS_REMEMBERED, self._capacity, command.id, encode(command)]
        async with unavailable():
            answer = await self._put(keys=self._stream(to).keys, args=args)
        position, duplicate = cast("tuple[bytes, int]", answer)
        if not position:
            raise busy(to, self._capacity)
        return Receipt(
            command=command.id, position=Offset(position.decode()), duplicate=bool(duplicate)
        )

    async def take(self, me: PrincipalId) -> AsyncGenerator[ValkeyDelivery, None]:
        """Yield what is not acknowledged, oldest first, then what comes, for ever."""
        taking = _Taking(self._stream(me))
        while True:
            # From the start: acknowledged ones were removed, delivered ones are skipped.
            taking.given_back.clear()
            async with contextlib.aclosing(taking.stream.follow(START)) as pages:
                while (page := await _first_of(pages, taking.given_back)) is not None:
                    for position, body in page:
                        if position in taking.out:
                            continue
                        taking.out.add(position)
                        command = decode(body, Command)
                        yield ValkeyDelivery(taking, Offset(position), command)
                        if taking.given_back.is_set():
                            break

    async def depth(self, to: PrincipalId) -> int:
        """Return how many commands wait for `to`."""
        return await self._stream(to).ask("XLEN")

    async def drop(self, to: PrincipalId, commands: Collection[CommandId]) -> int:
        """Remove waiting commands by id and return how many were removed."""
        if not commands:
            return 0
        async with unavailable():
            removed = await self._drop(keys=self._stream(to).keys, args=list(commands))
        return cast("int", removed)

    def _stream(self, to: PrincipalId) -> Stream:
        return Stream(self._client, f"queue:{to}")


async def _first_of(
    pages: AsyncIterator[list[tuple[str, bytes]]], given_back: asyncio.Event
) -> list[tuple[str, bytes]] | None:
    """Return the next page, or None as soon as a command was given back."""
    if given_back.is_set():
        return None
    page = asyncio.ensure_future(cast("Awaitable[list[tuple[str, bytes]]]", anext(pages)))
    signal = asyncio.ensure_future(given_back.wait())
    try:
        await asyncio.wait({page, signal}, return_when=asyncio.FIRST_COMPLETED)
        return page.result() if page.done() else None
    finally:
        page.cancel()
        signal.cancel()
        await asyncio.wait({page, signal})


def _fact(offset: str, body: bytes) -> Fact:
    return msgspec.structs.replace(decode(body, Fact), offset=Offset(offset))
