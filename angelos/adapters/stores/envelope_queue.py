"""`core.ports.EnvelopeQueue` in Valkey: a stream for each destination and lane.

    queue = ValkeyEnvelopeQueue(connect("unix:///run/angelos/valkey.sock"))
    await queue.put(envelope)
    token = await queue.claim(PrincipalId("node/exec1"), "hub-1")
    async with aclosing(queue.take(token)) as deliveries:
        async for delivery in deliveries:
            await queue.ack(token, [delivery.position])

Every change is one script, and every script of a consumer first compares its epoch with the one in
the store: whoever was replaced, or slept meanwhile, reads and changes nothing. Bodies are never
decoded. All consumers of a process share three connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

import msgspec

from angelos.adapters.net.flag import Flag
from angelos.adapters.stores import queue_scripts as scripts
from angelos.adapters.stores.backlog import LANES, Backlog, Row
from angelos.adapters.stores.bell import Bell
from angelos.adapters.stores.gather import Gather
from angelos.adapters.stores.pipeline import Script, StoreError, Word
from angelos.adapters.stores.queue_scripts import BELL, QueueKeys, lane_of
from angelos.adapters.stores.streams import Client, checksum, fields_of, patiently
from angelos.adapters.stores.valkey import IDS_REMEMBERED, letter_fact
from angelos.core.envelopes import (
    DeadLetter,
    DeadReason,
    EnvelopeHeader,
    Lane,
    PutReceipt,
    QueueDelivery,
    QueueDepth,
    RetryPolicy,
    RoutedEnvelope,
    check_envelope,
)
from angelos.core.errors import Busy, Conflict, Fenced, InvalidInput, Unavailable
from angelos.core.fencing import FencingToken
from angelos.core.ids import START, Offset, PrincipalId, is_offset, offset_key
from angelos.core.ports import Journal

log = logging.getLogger(__name__)
_MAX_DETAIL = 500
_BUSY_S = 1.0
_MOST_BYTES = 256 * 1024 * 1024
"""Of all lanes of one destination; one message is always taken, and control passes."""
_PAGE = 128
_PAGE_BYTES = 1024 * 1024
_PUT_BYTES = _PAGE_BYTES // 128
"""What an empty envelope weighs, so that at most 128 are put at once."""
_KEYS_KEPT = 64
Rows = list[Any]
"""Entries of a stream: position, fields, and perhaps what nacks has of it."""
_NAMES = (b"h", b"b", b"c")
_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(EnvelopeHeader).decode


class _Put:
    """One caller of `put`, and the words of its envelope for the script."""

    def __init__(self, envelope: RoutedEnvelope) -> None:
        header = envelope.header
        encoded = _encode_header(header)
        self.envelope = envelope
        self.words: tuple[Word, ...] = (
            _unique(header.source, header.id),
            encoded,
            envelope.body,
            checksum(encoded, envelope.body),
        )
        self.size = _PUT_BYTES + len(envelope.body)
        self.receipt: asyncio.Future[PutReceipt] = asyncio.get_running_loop().create_future()


class ValkeyEnvelopeQueue:
    """Envelopes to each destination, bodies opaque.

    Args:
        client: from `connect`.
        capacity: how many envelopes may wait in one lane of a destination.
        retry: when an envelope that was given back is handed out again.
        journal: gets a fact about each dead letter, if given.
    """

    def __init__(
        self,
        client: Client,
        capacity: int = 10_000,
        retry: RetryPolicy | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._client = client
        self._capacity = capacity
        self._retry = retry or RetryPolicy()
        self._journal = journal
        self._bell = Bell(client)
        self._puts: dict[tuple[PrincipalId, Lane], Gather[_Put]] = {}
        self._keys: dict[PrincipalId, QueueKeys] = {}
        self._consumers: dict[tuple[str, int], _Consumer] = {}
        self._random = random.Random()  # noqa: S311 - it spreads retries

    # -- senders --------------------------------------------------------------------------------

    async def put(self, envelope: RoutedEnvelope) -> PutReceipt:
        """Take an envelope durably."""
        return await self.submit(envelope)

    def submit(self, envelope: RoutedEnvelope) -> asyncio.Future[PutReceipt]:
        """Take an envelope in the order of these calls; the result is done when it is durable."""
        check_envelope(envelope)
        put = _Put(envelope)
        route = (envelope.header.destination, envelope.header.lane)
        puts = self._puts.get(route)
        if puts is None:
            puts = self._puts[route] = Gather(
                self._put, lambda one: one.size, _PAGE_BYTES, 1, lambda: self._puts.pop(route, None)
            )
        puts.add(put)
        return put.receipt

    async def _put(self, puts: list[_Put]) -> None:
        """Put envelopes of one destination and lane in one script."""
        header = puts[0].envelope.header
        lane = header.lane
        args: list[Word] = []
        try:
            for put in puts:
                args += put.words
            answers: list[bytes | tuple[bytes, int, int]] = await self._client.writer.run(
                scripts.PUT,
                self.keys(header.destination).put[lane],
                BELL,
                header.destination,
                IDS_REMEMBERED,
                self._capacity,
                int(lane.lossy),
                LANES.index(lane),
                0 if lane is Lane.control else _MOST_BYTES,
                *args,
            )
        except Exception as error:  # noqa: BLE001 - every caller gets it
            for put in puts:
                if not put.receipt.done():
                    put.receipt.set_exception(error)
            return
        for put, answer in zip(puts, answers, strict=True):
            if put.receipt.done():
                continue
            position, duplicate, dropped = (answer, 0, 0) if isinstance(answer, bytes) else answer
            if position:
                receipt = PutReceipt(
                    id=put.envelope.header.id,
                    position=Offset(position.decode()),
                    duplicate=bool(duplicate),
                    dropped=dropped,
                )
                put.receipt.set_result(receipt)
            else:
                put.receipt.set_exception(_busy(put.envelope.header, self._capacity))

    async def remove(
        self, destination: PrincipalId, source: PrincipalId, ids: Collection[str]
    ) -> int:
        """Remove waiting envelopes of one source by their ids."""
        if not ids:
            return 0
        names = [_unique(source, one) for one in {*ids}]
        removed: list[bytes] = await self._client.writer.run(
            scripts.REMOVE, self.keys(destination).all, *names
        )
        positions = [Offset(position.decode()) for position in removed]
        for consumer in self._consumers.values():
            if consumer.token.resource == destination:
                consumer.backlog.drop(positions)
                consumer.wake()
        return len(positions)

    async def depth(self, destination: PrincipalId) -> QueueDepth:
        """Return what waits for a destination."""
        keys, call = self.keys(destination), self._client.reader.call
        dropped = [f"dropped:{index}" for index in range(len(LANES))]
        lengths, meta, dead = await asyncio.gather(
            asyncio.gather(*(call("XLEN", stream) for stream in keys.lanes)),
            call("HMGET", keys.meta, "bytes", *dropped),
            call("ZCARD", keys.order),
        )
        counts = [int(value or 0) for value in meta]
        return QueueDepth(
            waiting={lane: n for lane, n in zip(LANES, lengths, strict=True) if n},
            waiting_bytes=counts[0],
            dropped={lane: n for lane, n in zip(LANES, counts[1:], strict=True) if n},
            dead=dead,
        )

    # -- the consumer ---------------------------------------------------------------------------

    async def claim(self, destination: PrincipalId, holder: str) -> FencingToken:
        """Become the one consumer of a destination."""
        epoch: int = await self._client.writer.run(
            scripts.CLAIM, self.keys(destination).claim, BELL, destination, holder
        )
        self._bell.ring(destination, epoch)
        await self._announce(destination)
        return FencingToken(destination, holder, epoch)

    async def take(self, token: FencingToken) -> AsyncGenerator[QueueDelivery, None]:
        """Yield all that is not acknowledged, then what comes, for ever."""
        name = (token.resource, token.epoch)
        if name in self._consumers:
            raise Conflict(f"{token.resource} is being taken with this token already.")
        consumer = _Consumer(self, token)
        self._consumers[name] = consumer
        try:
            async with self._bell.heard(token.resource, consumer.ring):
                while True:
                    row = await consumer.next()
                    yield QueueDelivery(
                        envelope=row.envelope, position=row.position, attempt=row.nacks + 1
                    )
        finally:
            del self._consumers[name]

    async def ack(self, token: FencingToken, positions: Collection[Offset]) -> int:
        """Forget envelopes for good."""
        chosen = [position for position in {*positions} if is_offset(position)]
        if not chosen:
            return 0
        count: int = await self.run(token, scripts.ACK, *chosen)
        self._settle(token, chosen)
        return count

    async def nack(
        self, token: FencingToken, position: Offset, detail: str, *, final: bool = False
    ) -> None:
        """Give one envelope back."""
        retry, now = self._retry, time.time()
        answer: list[int] = await self.run(
            token,
            scripts.NACK,
            position,
            LANES.index(lane_of(position)),
            detail[:_MAX_DETAIL],
            int(final),
            retry.first_s * 1000,
            retry.factor,
            retry.most_s * 1000,
            retry.attempts,
            self._random.random(),
            now,
        )
        consumer = self._consumers.get((token.resource, token.epoch))
        if answer[0] == 1 and consumer is not None:
            consumer.give_back(position, answer[1], answer[2] / 1000)
        elif answer[0] == 2:  # noqa: PLR2004 - dead
            self._settle(token, [position])
            await self._announce(PrincipalId(token.resource))

    def _settle(self, token: FencingToken, positions: Collection[Offset]) -> None:
        consumer = self._consumers.get((token.resource, token.epoch))
        if consumer is not None:
            consumer.backlog.settle(positions)
            consumer.wake()

    async def bury(
        self,
        token: FencingToken,
        position: Offset,
        lane: Lane,
        reason: DeadReason,
        detail: str,
        nacks: int,
    ) -> None:
        """Set aside what cannot be handed out."""
        log.warning("%s of %s is a dead letter: %s", position, token.resource, detail)
        notes = {"reason": reason, "detail": detail, "at": time.time(), "attempts": nacks}
        await self.run(
            token,
            scripts.BURY,
            position,
            LANES.index(lane),
            msgspec.json.encode(notes),
            int(reason is not DeadReason.unreadable),
        )
        await self._announce(PrincipalId(token.resource))

    async def _announce(self, destination: PrincipalId) -> None:
        """Append the facts of dead letters that the journal may not have; a failure is no error."""
        if self._journal is None:
            return
        keys = self.keys(destination)
        try:
            unsaid: list[bytes] = await self._client.reader.call("SMEMBERS", keys.unsaid)
            if not unsaid:
                return
            letters = await self._letters(destination, [Offset(p.decode()) for p in unsaid])
            await self._journal.append([_fact(destination, letter) for letter in letters])
            await self._client.writer.call("SREM", keys.unsaid, *unsaid)
        except Unavailable as error:
            log.warning("Dead letters of %s are not in the journal yet: %s", destination, error)

    # -- dead letters ---------------------------------------------------------------------------

    async def dead_letters(
        self, destination: PrincipalId, after: Offset = START, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters with a position after `after`."""
        positions: list[bytes] = await self._client.reader.call(
            "ZRANGEBYSCORE",
            self.keys(destination).order,
            f"({offset_key(after)[0]}" if after != START else "-inf",
            "+inf",
            "LIMIT",
            0,
            limit,
        )
        return await self._letters(destination, [Offset(p.decode()) for p in positions])

    async def _letters(
        self, destination: PrincipalId, positions: Sequence[Offset]
    ) -> list[DeadLetter]:
        keys, call = self.keys(destination), self._client.reader.call
        rows = await asyncio.gather(
            *(call("HMGET", keys.dead, *(f"{p}:{part}" for part in "mhbr")) for p in positions)
        )
        pairs = zip(positions, rows, strict=True)
        return [_letter(position, *row) for position, row in pairs if row[0] is not None]

    async def replay(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Put dead letters at the end of their lanes again."""
        ordered = sorted({p for p in positions if is_offset(p)}, key=offset_key)
        args: list[Word] = []
        headers: list[EnvelopeHeader] = []
        for letter in await self._letters(destination, ordered):
            if letter.envelope is None:
                continue
            header = letter.envelope.header
            if letter.reason is DeadReason.expired:
                header = msgspec.structs.replace(header, deadline=None)
            encoded = _encode_header(header)
            headers.append(header)
            args += (
                letter.position,
                LANES.index(header.lane),
                _unique(header.source, header.id),
                encoded,
                checksum(encoded, letter.envelope.body),
            )
        if not headers:
            return 0
        keys = self.keys(destination).all
        count: int = await self._client.writer.run(
            scripts.REPLAY, keys, BELL, destination, self._capacity, *args
        )
        if count < 0:
            raise _busy(headers[0], self._capacity)
        self._bell.ring(destination)
        return count

    async def drop_dead(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Forget dead letters for good."""
        if not positions:
            return 0
        return await self._client.writer.run(
            scripts.DROP_DEAD, self.keys(destination).all, *{*positions}
        )

    async def destinations_with_dead(self) -> list[PrincipalId]:
        """Return the destinations that have dead letters."""
        suffix = ":dead:order"
        cursor, names = b"0", set[str]()
        while True:
            cursor, keys = await self._client.reader.call(
                "SCAN", cursor, "MATCH", f"{{queue:*}}{suffix}", "COUNT", 1000
            )
            names |= {key.decode()[len("{queue:") : -len(suffix) - 1] for key in keys}
            if cursor == b"0":
                return sorted(PrincipalId(name) for name in names)

    # -- inside ---------------------------------------------------------------------------------

    def keys(self, destination: PrincipalId) -> QueueKeys:
        """Return the keys of a destination."""
        keys = self._keys.get(destination)
        if keys is None:
            keys = self._keys[destination] = QueueKeys(destination)
            if len(self._keys) > _KEYS_KEPT:  # made again in microseconds, 2 KB of each idle node
                del self._keys[next(iter(self._keys))]
        return keys

    async def run(
        self, token: FencingToken, script: Script, *args: Word, reading: bool = False
    ) -> Any:
        """Run a script that compares the token's epoch first; raise `Fenced`."""
        keys = self.keys(PrincipalId(token.resource)).all
        pipeline = self._client.reader if reading else self._client.writer
        try:
            return await pipeline.run(script, keys, token.epoch, *args)
        except StoreError as error:
            if error.code != "FENCED":
                raise
            raise self._replaced(token, int(error.rest)) from None

    async def pages(
        self, token: FencingToken, starts: Sequence[str]
    ) -> tuple[list[tuple[int, Rows]], int]:
        """Return what `scripts.FETCH` does of lanes and bytes, as it is in the store.

        No script has to take it apart and put it together, which costs more than to read it; but a
        page has as many bytes as its entries.
        """
        keys = self.keys(PrincipalId(token.resource))
        lanes = [(stream, start) for stream, start in zip(keys.lanes, starts, strict=True)]
        pages = iter(
            answers := await self._client.reader.together(
                *(("XRANGE", key, start, "+", "COUNT", _PAGE) for key, start in lanes if start),
                ("HLEN", keys.nacks),
                # Last: whoever has the epoch afterwards had it while the others were read.
                ("HMGET", keys.meta, "epoch", "bytes"),
            )
        )
        epoch, held = (int(word or 0) for word in answers[-1])
        if epoch != token.epoch:
            raise self._replaced(token, epoch)
        rows: list[Rows] = [next(pages) if start else [] for start in starts]
        return [(int(len(page) == _PAGE), page) for page in rows], -1 if answers[-2] else held

    def _replaced(self, token: FencingToken, highest: int) -> Fenced:
        self._bell.ring(token.resource, highest)
        return fenced(token, highest)


class _Consumer:
    """One `take`: what it has read, and its wait for more."""

    def __init__(self, queue: ValkeyEnvelopeQueue, token: FencingToken) -> None:
        self.token = token
        self.backlog = Backlog()
        self._queue = queue
        self._news = Flag()
        self._highest = token.epoch
        self._store_ms = 0
        self._waiting_bytes = -1
        """In the store, when it was read last; -1: not known, or some were given back."""
        self._rung: set[Lane] = set()

    def ring(self, epoch: int, lane: Lane | None = None) -> None:
        """Note that there may be more in a lane or in any, or another consumer."""
        self._highest = max(self._highest, epoch)
        lanes = LANES if lane is None else (lane,)
        self._rung.update(lanes)
        self.backlog.changed(lanes)
        self.wake()

    def wake(self) -> None:
        """Have `next` look again."""
        self._news.set()

    def give_back(self, position: Offset, nacks: int, delay_s: float) -> None:
        """Note that an envelope was given back."""
        sender = self.backlog.sender(position)
        if sender is not None:
            due = time.monotonic() + delay_s
            self.backlog.give_back(position, sender, nacks, due)
        self.wake()

    async def next(self) -> Row:
        """Return the next envelope; raise `Fenced` once there is another consumer."""
        while True:
            if self._highest > self.token.epoch:
                raise fenced(self.token, self._highest)
            self._news.clear()
            now = time.monotonic()
            self.backlog.refresh(now)
            row = await self._due(now) if self.backlog.given_back else None
            row = row or self.backlog.next()
            if row is not None:
                deadline = row.envelope.header.deadline
                if deadline is not None and deadline < time.time():
                    await self._expire(row)
                    continue
                self.backlog.hand_out(row)
                return row
            if any(self.backlog.starts()):
                await self._read()
            else:
                await self._wait()

    async def _due(self, now: float) -> Row | None:
        """Return an envelope that was given back and whose time has come."""
        for position in self.backlog.due_retries(now):
            single = (await self._fetch(["" for _ in LANES], [position]))[2]
            rows = [row for entry in single if (row := await self._row(entry, lane_of(position)))]
            if rows:
                return rows[0]
            self.backlog.settle([position])  # it was removed meanwhile
        return None

    async def _expire(self, row: Row) -> None:
        await self._queue.bury(
            self.token,
            row.position,
            row.envelope.header.lane,
            DeadReason.expired,
            "Its deadline passed.",
            row.nacks,
        )
        self.backlog.settle([row.position])

    async def _read(self) -> None:
        starts, asked_at = self.backlog.starts(), time.monotonic()
        self._rung.clear()
        for lane, start, (more, entries) in zip(
            LANES, starts, await self._pages(starts), strict=True
        ):
            if not start:
                continue
            rows = [row for entry in entries if (row := await self._row(entry, lane)) is not None]
            last = entries[-1][0].decode() if entries else ""
            self.backlog.add(lane, rows, last, more=bool(more), now=asked_at)
        self.backlog.changed(self._rung)  # what was put meanwhile may not be in the answer

    async def _pages(self, starts: list[str]) -> list[tuple[int, Rows]]:
        if 0 <= self._waiting_bytes <= _PAGE_BYTES:  # all of it would be no more than a page
            lanes, self._waiting_bytes = await patiently(self._queue.pages, self.token, starts)
            if self._waiting_bytes >= 0:
                return lanes
        return (await self._fetch(starts, []))[1]

    async def _fetch(self, starts: list[str], positions: list[Offset]) -> Any:
        answer = await patiently(self._ask, starts, positions)
        self._store_ms, self._waiting_bytes = answer[0], answer[3]
        return answer

    async def _ask(self, starts: list[str], positions: list[Offset]) -> Any:
        return await self._queue.run(
            self.token, scripts.FETCH, _PAGE, _PAGE_BYTES, *starts, *positions, reading=True
        )

    async def _row(self, entry: Any, lane: Lane) -> Row | None:
        """Return the row of an entry; what is none is set aside."""
        position = Offset(entry[0].decode())
        try:
            envelope = _envelope(entry[1], lane, self.token.resource)
        except InvalidInput as error:
            await self._queue.bury(
                self.token, position, lane, DeadReason.unreadable, error.detail, 0
            )
            return None
        if len(entry) < 3 or not entry[2]:  # noqa: PLR2004 - the note is left out
            return Row(position, envelope)
        nacks, due = entry[2].split()
        wait = max(0, int(due) - self._store_ms) / 1000
        return Row(position, envelope, int(nacks), time.monotonic() + wait)

    async def _wait(self) -> None:
        due = self.backlog.next_due()
        wait = None if due is None else max(0.0, due - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()


def fenced(token: FencingToken, highest: int) -> Fenced:
    """Return the error of a consumer that was replaced."""
    return Fenced(
        f"{token.resource} has a newer owner: epoch {highest}, not {token.epoch}.", epoch=highest
    )


def _unique(source: PrincipalId, id: str) -> str:  # noqa: A002 - the header's own name
    return f"{source} {id}"


def _envelope(words: Sequence[bytes], lane: Lane, destination: str) -> RoutedEnvelope:
    if len(words) == len(_NAMES) * 2 and tuple(words[::2]) == _NAMES:
        header, body, stated = words[1::2]
    else:
        fields = fields_of(words)
        header, body, stated = (fields.get(name, b"") for name in _NAMES)
    if stated != b"%d" % checksum(header, body):
        raise InvalidInput("Its checksum does not fit: it is damaged, or of another writer.")
    try:
        decoded = _decode_header(header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Its header cannot be read: {error}") from error
    if decoded.lane is not lane or decoded.destination != destination:
        raise InvalidInput("It stands in the queue of another destination or lane.")
    return RoutedEnvelope(decoded, body)


def _letter(
    position: Offset, notes: bytes, header: bytes | None, body: bytes | None, raw: bytes | None
) -> DeadLetter:
    about: dict[str, Any] = msgspec.json.decode(notes)
    envelope = None
    if header is not None:
        envelope = RoutedEnvelope(_decode_header(header), body or b"")
    return DeadLetter(
        position=position,
        reason=DeadReason(about["reason"]),
        detail=about["detail"],
        at=float(about["at"]),
        attempts=int(about["attempts"]),
        envelope=envelope,
        raw=raw or b"",
    )


def _fact(destination: PrincipalId, letter: DeadLetter) -> Any:
    header = letter.envelope.header if letter.envelope else None
    return letter_fact(
        destination,
        letter.position,
        letter.reason,
        letter.detail,
        header.source if header else "",
        header.id if header else "",
    )


def _busy(header: EnvelopeHeader, capacity: int) -> Busy:
    return Busy(
        f"{capacity} envelopes of lane {header.lane}, or {_MOST_BYTES} bytes, wait for "
        f"{header.destination} already.",
        hint="Try again when some are done.",
        retry_after_s=_BUSY_S,
    )
