"""The journal in a Valkey stream (or Redis >= 7).

    client = connect("unix:///run/angelos/valkey.sock")
    journal = ValkeyJournal(client)
    offset, = await journal.append([fact])
    async with aclosing(journal.follow(offset)) as facts:
        async for fact in facts: ...

`append` is one script, so a batch is stored whole or not at all, and once however often it is
sent. The newest ids are kept in two hashes of bounded size that take turns. An entry carries a
checksum; one that cannot be read is set aside as a dead letter, with a fact, and what is behind it
is delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Sequence

import msgspec

from angelos.adapters.stores.history import History
from angelos.adapters.stores.pipeline import Script
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import (
    PAGE,
    Client,
    check_server,
    checksum,
    connect,
    fields_of,
    matches,
    patiently,
)
from angelos.adapters.stores.tail import Rows, Tail
from angelos.core.envelopes import DeadLetter, DeadReason
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.facts import EPHEMERAL, Fact, LetterDead
from angelos.core.ids import START, FactId, Offset, PrincipalId, is_offset, offset_key
from angelos.core.messages import decode, encode
from angelos.core.ports import JournalPosition

log = logging.getLogger(__name__)

__all__ = ["JOURNAL", "Client", "ValkeyJournal", "check_server", "connect", "letter_fact"]

JOURNAL = PrincipalId("system/journal")
"""Whose dead letters are entries of the journal."""
_HUB = PrincipalId("system/hub")
_KEY = "{journal}"
_TOGETHER = 512
_PAGES_AT_ONCE = 4
IDS_REMEMBERED = 65_536
"""At least this many of the newest ids are kept, at most twice as many."""

# KEYS: stream, ids, older ids, meta. ARGV: ids remembered, then id, body, checksum and whether it
# does not last (1 or 0) of each fact. An entry's `e` is the last fact before it that does not last.
_APPEND = Script("""
local offsets, before = {}, redis.call('HGET', KEYS[4], 'ephemeral') or '0-0'
local last = before
for i = 2, #ARGV, 4 do
  local offset = redis.call('HGET', KEYS[2], ARGV[i]) or redis.call('HGET', KEYS[3], ARGV[i])
  if not offset then
    offset = redis.call('XADD', KEYS[1], '*', 'b', ARGV[i + 1], 'c', ARGV[i + 2], 'e', last)
    redis.call('HSET', KEYS[2], ARGV[i], offset)
    if ARGV[i + 3] == '1' then last = offset end
  end
  offsets[#offsets + 1] = offset
end
if last ~= before then redis.call('HSET', KEYS[4], 'ephemeral', last) end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[1]) then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
return offsets
""")
_KEYS = (_KEY, f"{_KEY}:ids", f"{_KEY}:ids:old", f"{_KEY}:meta")

# KEYS: stream, dead letters, their order. ARGV: position, raw bytes, detail and time, order.
_SET_ASIDE = Script("""
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2], ARGV[1] .. ':m', ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
return 1
""")
_DEAD, _DEAD_ORDER = f"{_KEY}:dead", f"{_KEY}:dead:order"


# KEYS: stream, meta. ARGV: offset, a new epoch. Returns {epoch, oldest, newest, gap, present}.
_POSITION = Script("""
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[2])
local epoch, gap = redis.call('HGET', KEYS[2], 'epoch'), redis.call('HGET', KEYS[2], 'ephemeral')
local oldest, newest, present = '0-0', '0-0', '0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if first then
    oldest, gap = first[1], first[1]
    for i = 1, #first[2], 2 do
      if first[2][i] == 'e' then gap = first[2][i + 1] end
    end
  end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then newest = info[i + 1] end
  end
  if redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1] then present = '1' end
end
return {epoch, oldest, newest, gap or '0-0', present}
""")


class _Append:
    """One caller of `append` whose facts are still to be sent."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.offsets: asyncio.Future[list[Offset]] = asyncio.get_running_loop().create_future()


class ValkeyJournal:
    """`core.ports.Journal` in one stream.

    With a database, readers that start before the stream's first entry get the lasting facts
    from the audit log first, and `trim` may be used.

    Args:
        client: from `connect`.
        database: the one that holds the audit log, if any.
    """

    def __init__(self, client: Client, database: Database | None = None) -> None:
        self._client = client
        self._history = History(database) if database is not None else None
        self._waiting: list[_Append] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._tail = Tail(client, _KEY, self._facts)
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)

    # -- writing ------------------------------------------------------------------------------

    async def append(self, facts: Sequence[Fact]) -> list[Offset]:
        """Append facts, all or none; raise `Unavailable`, after which it may be repeated."""
        if not facts:
            return []
        call = _Append(facts)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send_waiting)
        self._waiting.append(call)
        return await call.offsets

    def _send_waiting(self) -> None:
        """Send what was asked for in this turn of the event loop, in as few scripts as it fits."""
        waiting, self._waiting = self._waiting, []
        batch: list[_Append] = []
        count = 0
        for call in waiting:
            if batch and count + len(call.facts) > _TOGETHER:
                self._start(batch)
                batch, count = [], 0
            batch.append(call)
            count += len(call.facts)
        self._start(batch)

    def _start(self, batch: list[_Append]) -> None:
        # Not in the task of a caller, who may be cancelled while others wait for their facts.
        task = asyncio.create_task(self._send(batch), name="journal append")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, batch: list[_Append]) -> None:
        try:
            args: list[str | bytes | int] = [IDS_REMEMBERED]
            for fact in (fact for call in batch for fact in call.facts):
                bare = msgspec.structs.replace(fact, offset=Offset("")) if fact.offset else fact
                body = encode(bare)
                args += (fact.id, body, checksum(body), int(fact.kind in EPHEMERAL))
            answer: list[bytes] = await self._client.writer.run(_APPEND, _KEYS, *args)
        except Exception as error:  # noqa: BLE001 - every caller gets it
            for call in batch:
                if not call.offsets.done():
                    call.offsets.set_exception(error)
            return
        offsets = (Offset(offset.decode()) for offset in answer)
        for call in batch:
            of_call = list(itertools.islice(offsets, len(call.facts)))
            if not call.offsets.done():
                call.offsets.set_result(of_call)

    # -- reading ------------------------------------------------------------------------------

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
        while len(facts) < limit and (page := await self._page(position)):
            position = Offset(page[-1][0].decode())
            newer = await self._facts(page)
            facts += [fact for fact in newer if matches(fact, kinds, subject)]
        return facts[:limit]

    async def follow(
        self, after: Offset, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncGenerator[Fact, None]:
        """Yield facts after `after` for ever; close it with `contextlib.aclosing`."""
        async with self._tail.joined(kinds, subject) as follower:
            while True:
                while not self._tail.covers(after):
                    page, after = await patiently(self._past, after)
                    for fact in page:
                        after = fact.offset
                        if matches(fact, kinds, subject):
                            yield fact
                follower.start(after)
                while (facts := await follower.next()) is not None:
                    for fact in facts:
                        after = fact.offset
                        yield fact

    async def _past(self, after: Offset) -> tuple[list[Fact], Offset]:
        """Return facts after `after`, and the offset of the last entry that was looked at."""
        if self._history is not None:
            first = await self._first()
            if first is None or offset_key(first) > offset_key(after):
                facts = await self._history.read(after, first, PAGE)
                if facts:
                    return facts, after
        floor = self._tail.floor
        page = await self._page(after)
        facts = await self._facts(page)
        if facts:
            return facts, after
        # Nothing lies between `after` and where the tail began before the page was read.
        return [], Offset(page[-1][0].decode()) if page else max(after, floor, key=offset_key)

    async def last(self) -> Offset:
        """Return the newest offset (`START` when nothing was ever appended)."""
        rows: Rows = await self._client.reader.call("XREVRANGE", _KEY, "+", "-", "COUNT", 1)
        if rows:
            return Offset(rows[0][0].decode())
        return await self._history.projected() if self._history is not None else START

    async def position(self, offset: Offset) -> JournalPosition:
        """Return where an offset stands."""
        answer: list[bytes] = await self._client.writer.run(
            _POSITION, (_KEY, f"{_KEY}:meta"), offset, secrets.token_hex(8)
        )
        epoch, oldest, newest, gap, present = (word.decode() for word in answer)
        return JournalPosition(
            epoch=epoch,
            oldest=Offset(oldest),
            newest=Offset(newest),
            gap=Offset(gap) if is_offset(gap) else Offset(oldest),
            present=present == "1" or offset == newest,
        )

    async def trim(self, keep: int = 100_000) -> int:
        """Remove all but about the `keep` newest facts, and none that the audit log lacks.

        Returns how many were removed. Facts that do not last are lost for good.
        """
        if self._history is None or keep <= PAGE:
            raise ValueError("trim needs a database, and to keep more than one page")
        projected = await self._history.projected()
        excess = await self._client.reader.call("XLEN", _KEY) - keep
        if excess <= 0:
            return 0
        rows: Rows = await self._client.reader.call("XRANGE", _KEY, "-", "+", "COUNT", excess + 1)
        upto = min(Offset(rows[-1][0].decode()), projected, key=offset_key)
        return await self._client.writer.call("XTRIM", _KEY, "MINID", "=", upto)

    async def _page(self, after: Offset) -> Rows:
        async with self._pages:
            return await self._client.reader.call("XRANGE", _KEY, f"({after}", "+", "COUNT", PAGE)

    async def _first(self) -> Offset | None:
        rows: Rows = await self._client.reader.call("XRANGE", _KEY, "-", "+", "COUNT", 1)
        return Offset(rows[0][0].decode()) if rows else None

    # -- what cannot be read ------------------------------------------------------------------

    async def _facts(self, rows: Rows) -> list[Fact]:
        """Return the facts of rows; what is none is set aside."""
        facts: list[Fact] = []
        for position, words in rows:
            try:
                facts.append(_fact(position, words))
            except InvalidInput as error:
                # Where the store takes no writes it stays, and is set aside when read again.
                with contextlib.suppress(Unavailable):
                    await self._set_aside(position, words, error.detail)
        return facts

    async def _set_aside(self, position: bytes, words: list[bytes], detail: str) -> None:
        offset = Offset(position.decode())
        log.error("Entry %s of the journal is set aside: %s", offset, detail)
        # The fact comes first and has a fixed id: after a crash in between it is appended once.
        await self.append([letter_fact(JOURNAL, offset, DeadReason.unreadable, detail)])
        raw = b"".join(words[1::2])
        notes = encode({"detail": detail[:500], "at": time.time()})
        await self._client.writer.run(
            _SET_ASIDE, (_KEY, _DEAD, _DEAD_ORDER), position, raw, notes, offset_key(offset)[0]
        )

    async def dead_letters(self, after: Offset = START, limit: int = 100) -> list[DeadLetter]:
        """Return entries that were set aside, with a position after `after`."""
        call = self._client.reader.call
        positions: list[bytes] = await call(
            "ZRANGEBYSCORE", _DEAD_ORDER, offset_key(after)[0], "+inf", "LIMIT", 0, limit + PAGE
        )
        later = [p for p in positions if offset_key(Offset(p.decode())) > offset_key(after)]
        letters: list[DeadLetter] = []
        for position in later[:limit]:
            raw, notes = await call("HMGET", _DEAD, position, position + b":m")
            if raw is not None:
                letters.append(_letter(position, raw, notes))
        return letters

    async def drop_dead(self, positions: Collection[Offset]) -> int:
        """Forget entries that were set aside for good and return how many there were."""
        dropped = 0
        for position in {*positions}:
            await self._client.writer.call("HDEL", _DEAD, position, f"{position}:m")
            dropped += await self._client.writer.call("ZREM", _DEAD_ORDER, position)
        return dropped


def letter_fact(
    destination: PrincipalId,
    position: Offset,
    reason: DeadReason,
    detail: str,
    source: str = "",
    envelope: str = "",
) -> Fact:
    """Return the fact that announces a dead letter: the same, however often it is made."""
    digest = hashlib.sha256(f"dead {destination} {position}".encode()).hexdigest()
    payload = LetterDead(
        position=position, reason=reason, detail=detail[:500], source=source, envelope=envelope
    )
    return Fact.of(
        payload,
        at=time.time(),
        actor=_HUB,
        subject=destination,
        id=FactId(f"fact-{digest[:32]}"),
    )


def _fact(position: bytes, words: list[bytes]) -> Fact:
    """Return the fact of an entry; raise `InvalidInput` if there is none."""
    fields = fields_of(words)
    body = fields.get(b"b", b"")
    if fields.get(b"c") != b"%d" % checksum(body):
        raise InvalidInput("Its checksum does not fit: it is damaged, or of another writer.")
    fact = decode(body, Fact)
    return msgspec.structs.replace(fact, offset=Offset(position.decode()))


def _letter(position: bytes, raw: bytes, notes: bytes | None) -> DeadLetter:
    about = msgspec.msgpack.decode(notes) if notes else {}
    return DeadLetter(
        position=Offset(position.decode()),
        reason=DeadReason.unreadable,
        detail=about.get("detail", ""),
        at=about.get("at", 0.0),
        attempts=0,
        envelope=None,
        raw=raw,
    )
