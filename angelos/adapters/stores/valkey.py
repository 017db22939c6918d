"""The journal in a Valkey stream (or Redis >= 7).

    client = connect("unix:///run/angelos/valkey.sock")
    journal = ValkeyJournal(client)
    offset, = await journal.append([fact])
    async with aclosing(journal.follow(offset)) as facts:
        async for fact in facts: ...

`append` is one script, so a batch is stored whole or not at all, and once however often it is
sent; what is appended while scripts are under way shares the next one. An entry holds a block of
facts (`blocks`). The newest ids are kept in two hashes of bounded size that take turns. An entry
that cannot be read is set aside as a dead letter, with a fact, and what is behind it is delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import NamedTuple

import msgspec

from angelos.adapters.stores.blocks import (
    behind,
    entry_key,
    entry_of,
    last_of,
    offset_in,
    offsets_in,
    read_block,
    read_from,
    split,
    write_block,
)
from angelos.adapters.stores.gather import Gather
from angelos.adapters.stores.history import History
from angelos.adapters.stores.pipeline import Script
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import (
    PAGE,
    Client,
    check_server,
    connect,
    matches,
    patiently,
)
from angelos.adapters.stores.tail import Rows, Tail
from angelos.core.envelopes import DeadLetter, DeadReason
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.facts import Fact, LetterDead
from angelos.core.ids import START, FactId, Offset, PrincipalId, is_offset, offset_key
from angelos.core.messages import encode
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

# KEYS: stream, ids, older ids, meta. ARGV: ids remembered, how many blocks; then for each block how
# many facts, body, kinds, checksum, index of the last that does not last (or -1), and the ids.
# Returns {0, the entry of each block}; or, if some were appended before, {1, for each fact its
# offset or ''}, and appends nothing.
_APPEND = Script("""
local at, repeats, offsets = 3, 0, {}
for _ = 1, tonumber(ARGV[2]) do
  local count = tonumber(ARGV[at])
  local new = redis.call('HMGET', KEYS[2], unpack(ARGV, at + 5, at + 4 + count))
  local old = redis.call('HMGET', KEYS[3], unpack(ARGV, at + 5, at + 4 + count))
  for i = 1, count do
    local offset = new[i] or old[i] or ''
    if offset ~= '' then repeats = 1 end
    offsets[#offsets + 1] = offset
  end
  at = at + 5 + count
end
if repeats == 1 then return {1, offsets} end
local meta = redis.call('HMGET', KEYS[4], 'ephemeral', 'count', 'bytes')
local last, total, newest, entries = meta[1] or '0-0', tonumber(meta[2] or '0'), '', {}
local bytes = tonumber(meta[3] or '0')
at = 3
for block = 1, tonumber(ARGV[2]) do
  local count, ephemeral = tonumber(ARGV[at]), tonumber(ARGV[at + 4])
  local entry = redis.call('XADD', KEYS[1], '*', 'b', ARGV[at + 1], 'k', ARGV[at + 2],
    'c', ARGV[at + 3], 'e', last, 'n', string.format('%.0f', total),
    'y', string.format('%.0f', bytes))
  local ms, number = string.match(entry, '^(%d+%-)(%d+)$')
  local first, fresh = tonumber(number) * 512, {}
  for i = 0, count - 1 do
    newest = ms .. string.format('%d', first + i)
    fresh[2 * i + 1], fresh[2 * i + 2] = ARGV[at + 5 + i], newest
  end
  redis.call('HSET', KEYS[2], unpack(fresh))
  if ephemeral >= 0 then last = ms .. string.format('%d', first + ephemeral) end
  bytes = bytes + #ARGV[at + 1]
  entries[block], total, at = entry, total + count, at + 5 + count
end
redis.call('HSET', KEYS[4], 'ephemeral', last, 'count', string.format('%.0f', total),
  'bytes', string.format('%.0f', bytes), 'newest', newest)
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[1]) then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
return {0, entries}
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


# KEYS: stream, meta. ARGV: the entry of an offset, a new epoch. Returns {epoch, oldest entry, gap,
# newest, whether the entry is there}.
_POSITION = Script("""
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[2])
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'ephemeral', 'newest')
local oldest, gap = '', meta[2] or '0-0'
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then
  oldest, gap = first[1], ''
  for i = 1, #first[2], 2 do
    if first[2][i] == 'e' then gap = first[2][i + 1] end
  end
end
local present = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1] and '1' or '0'
return {meta[1], oldest, gap, meta[3] or '0-0', present}
""")

_STREAM = (_KEY, f"{_KEY}:meta")
# KEYS: stream, meta. Returns {oldest entry, how many facts, bytes of bodies}.
_EXTENT = Script("""
local meta = redis.call('HMGET', KEYS[2], 'count', 'bytes')
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return {'', '0', '0'} end
local before = {n = '0', y = '0'}
for i = 1, #first[2], 2 do before[first[2][i]] = first[2][i + 1] end
local facts = tonumber(meta[1] or '0') - (tonumber(before.n) or 0)
local bytes = tonumber(meta[2] or '0') - (tonumber(before.y) or 0)
return {first[1], string.format('%.0f', facts), string.format('%.0f', bytes)}
""")

_TRIM_STEP = 32
# KEYS: stream, meta. ARGV: the first ms that is young enough, bytes that may stay, the entry (ms,
# number) up to which everything is kept elsewhere, how many entries are looked at, how many stay
# however large they are. Returns how many facts were removed.
_TRIM = Script("""
local meta = redis.call('HMGET', KEYS[2], 'count', 'bytes')
local total, bytes = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
local young, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local ms_kept, number_kept = tonumber(ARGV[3]), tonumber(ARGV[4])
local many = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[6])
local begin, upto, ending
for index, row in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[5])) do
  local before = {n = '0', y = '0'}
  for i = 1, #row[2], 2 do before[row[2][i]] = row[2][i + 1] end
  ending = tonumber(before.n) or ending or 0  -- others may have written to the stream
  begin, upto = begin or ending, row[1]
  local ms, number = string.match(row[1], '^(%d+)-(%d+)$')
  ms, number = tonumber(ms), tonumber(number)
  if ms > ms_kept or (ms == ms_kept and number >= number_kept) then break end
  if ms >= young and (bytes - (tonumber(before.y) or 0) <= most or index > many) then break end
end
if not upto or redis.call('XTRIM', KEYS[1], 'MINID', '=', upto) == 0 then return 0 end
return math.max(1, ending - begin)
""")


class JournalExtent(NamedTuple):
    """How much the journal's stream holds."""

    facts: int
    bytes: int
    """Of their bodies; the store needs somewhat more."""
    oldest_at: float | None
    """When the oldest was appended, by the store's clock; None if there is none."""


class _Append:
    """One caller of `append` whose facts are still to be sent."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.offsets: asyncio.Future[list[Offset]] = asyncio.get_running_loop().create_future()


class _Beginning(NamedTuple):
    """Where a stream begins, as a reader sees it."""

    first: Offset | None
    """None: it is empty, or begins before what the reader has read."""
    behind: bool
    """Whether what comes next may lie before the stream: the audit log has it."""


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
        self._appends = Gather(self._send, lambda call: len(call.facts), _TOGETHER)
        self._tail = Tail(client, _KEY, self._facts)
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)

    # -- writing ------------------------------------------------------------------------------

    async def append(self, facts: Sequence[Fact]) -> list[Offset]:
        """Append facts, all or none; raise `Unavailable`, after which it may be repeated."""
        if not facts:
            return []
        call = _Append(facts)
        self._appends.add(call)
        return await call.offsets

    async def _send(self, batch: list[_Append]) -> None:
        try:
            facts: dict[FactId, Fact] = {}
            for call in batch:
                for fact in call.facts:
                    facts.setdefault(fact.id, fact)
            offsets = await self._write(list(facts.values()))
        except Exception as error:  # noqa: BLE001 - every caller gets it
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for call in batch:  # one of them is to blame, and the others did nothing wrong
                    await self._send([call])
                return
            for call in batch:
                if not call.offsets.done():
                    call.offsets.set_exception(error)
            return
        for call in batch:
            if not call.offsets.done():
                call.offsets.set_result([offsets[fact.id] for fact in call.facts])

    async def _write(self, facts: list[Fact]) -> dict[FactId, Offset]:
        """Append facts with different ids in one script and return the offset of each."""
        offsets: dict[FactId, Offset] = {}
        while facts:
            blocks = list(split(facts))
            args: list[str | bytes | int] = [IDS_REMEMBERED, len(blocks)]
            for block in blocks:
                args += (len(block), *write_block(block), *[fact.id for fact in block])
            repeated, answer = await self._client.writer.run(_APPEND, _KEYS, *args)
            if not repeated:
                for block, entry in zip(blocks, answer, strict=True):
                    places = offsets_in(entry, len(block))
                    offsets.update(zip([fact.id for fact in block], places, strict=True))
                break
            earlier = list(zip(facts, answer, strict=True))
            offsets |= {fact.id: Offset(place.decode()) for fact, place in earlier if place}
            facts = [fact for fact, place in earlier if not place]
        return offsets

    # -- reading ------------------------------------------------------------------------------

    async def read(
        self, after: Offset, limit: int = 1000, kinds: Collection[str] = (), subject: str = ""
    ) -> list[Fact]:
        """Return at most `limit` facts after `after` that are there now."""
        facts: list[Fact] = []
        position = after
        while (rest := limit - len(facts)) > 0:
            begin = await self._begin(position)
            if begin.behind and self._history is not None:
                older = await self._history.read(position, begin.first, rest, kinds, subject)
                if older:
                    facts += older
                    position = older[-1].offset
                    continue
            page = await self._page(position)
            if await self._begin(position) != begin:
                continue  # it was trimmed meanwhile, and the page may lack what was
            if not page:
                break
            newer = await self._facts(page, position)
            facts += [fact for fact in newer if matches(fact, kinds, subject)]
            position = behind(page[-1][0])
        return facts[:limit]

    async def past(self, subject: str) -> list[Fact]:
        """Return what lasts about a subject and is in the audit log; nothing without a database."""
        if self._history is None:
            return []
        return await self._history.read(START, None, PAGE, subject=subject)

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
                        if offset_key(fact.offset) > offset_key(after):  # the tail may begin anew
                            after = fact.offset
                            yield fact

    async def _past(self, after: Offset) -> tuple[list[Fact], Offset]:
        """Return facts after `after`, and the offset of the last entry that was looked at."""
        begin = await self._begin(after)
        if begin.behind and self._history is not None:
            facts = await self._history.read(after, begin.first, PAGE)
            if facts:
                return facts, after
        floor = self._tail.floor
        page = await self._page(after)
        if await self._begin(after) != begin:
            return [], after  # it was trimmed meanwhile, and the page may lack what was
        facts = await self._facts(page, after)
        if facts:
            return facts, after
        # Nothing lies between `after` and where the tail began before the page was read.
        return [], behind(page[-1][0]) if page else max(after, floor, key=offset_key)

    async def last(self) -> Offset:
        """Return the newest offset (`START` when nothing was ever appended)."""
        rows: Rows = await self._client.reader.call("XREVRANGE", _KEY, "+", "-", "COUNT", 1)
        if rows:
            return last_of(*rows[0])
        return await self._history.projected() if self._history is not None else START

    async def position(self, offset: Offset) -> JournalPosition:
        """Return where an offset stands."""
        answer: list[bytes] = await self._client.writer.run(
            _POSITION, (_KEY, f"{_KEY}:meta"), entry_of(offset), secrets.token_hex(8)
        )
        epoch, entry, gap, newest, present = (word.decode(errors="replace") for word in answer)
        oldest = offset_in(entry, 0) if entry else START
        return JournalPosition(
            epoch=epoch,
            oldest=oldest,
            newest=Offset(newest),
            gap=Offset(gap) if is_offset(gap) else oldest,
            present=present == "1" or offset == newest,
        )

    async def extent(self) -> JournalExtent:
        """Return how much the stream holds now."""
        answer: list[bytes] = await self._client.writer.run(_EXTENT, _STREAM)
        entry, facts, size = (word.decode() for word in answer)
        return JournalExtent(
            facts=int(facts),
            bytes=int(size),
            oldest_at=entry_key(entry)[0] / 1000 if entry else None,
        )

    async def trim(self, before: float, most_bytes: int) -> int:
        """Remove the oldest facts that are too old or too much; never the newest entry.

        A bounded step: call it again while it returns something. What lasts goes only once it is
        in the audit log, from where readers get it; the rest is lost for good.

        Args:
            before: What was appended before is too old (Unix seconds, by the store's clock).
            most_bytes: What is more than this is too much; a page of entries stays all the same.

        Returns:
            How many facts were removed; 0 when nothing is left to remove.

        Raises:
            ValueError: The journal has no database, so what is trimmed would be nowhere.
        """
        if self._history is None:
            raise ValueError("trim needs a database")
        floor = entry_key(entry_of(await self._history.projected()))
        limits = (int(before * 1000), most_bytes, *floor, _TRIM_STEP, PAGE)
        return int(await self._client.writer.run(_TRIM, _STREAM, *limits))

    async def _page(self, after: Offset) -> Rows:
        async with self._pages:
            return await self._client.reader.call(
                "XRANGE", _KEY, read_from(after), "+", "COUNT", PAGE
            )

    async def _begin(self, after: Offset) -> _Beginning:
        """Return where the stream begins, and whether that is behind `after`."""
        if self._history is None:
            return _Beginning(None, behind=False)
        rows: Rows = await self._client.reader.call("XRANGE", _KEY, "-", "+", "COUNT", 1)
        first = offset_in(rows[0][0].decode(), 0) if rows else None
        behind = first is None or offset_key(first) > offset_key(after)
        return _Beginning(first if behind else None, behind)

    # -- what cannot be read ------------------------------------------------------------------

    async def _facts(self, rows: Rows, after: Offset = START) -> list[Fact]:
        """Return the facts of rows that are behind an offset; what is none is set aside."""
        facts: list[Fact] = []
        for entry, words in rows:
            try:
                facts += read_block(entry, words)
            except InvalidInput as error:
                # Where the store takes no writes it stays, and is set aside when read again.
                with contextlib.suppress(Unavailable):
                    await self._set_aside(entry, words, error.detail)
        key = offset_key(after)
        start = 0
        while start < len(facts) and offset_key(facts[start].offset) <= key:
            start += 1
        return facts[start:] if start else facts

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
