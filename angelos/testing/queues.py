"""Envelopes and leases in memory, with the promises of the real ports except that they do not last.

For example:

    queue = MemoryEnvelopeQueue(capacity=20)
    await queue.put(envelope)
    token = await queue.claim(PrincipalId("node/exec1"), "hub-1")
    async with aclosing(queue.take(token)) as deliveries:
        async for delivery in deliveries:
            await queue.ack(token, [delivery.position])
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Iterator

import msgspec

from angelos.adapters.host.clock import SystemClock
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
    retry_delay_s,
)
from angelos.core.errors import Busy, Conflict, Fenced
from angelos.core.fencing import FencingToken, check_epoch
from angelos.core.ids import START, Offset, PrincipalId, offset_key
from angelos.core.ports import Clock

MAX_DETAIL = 500
_BUSY_S = 1.0


class _Waiting:
    """An envelope that is not acknowledged."""

    def __init__(self, position: Offset, envelope: RoutedEnvelope) -> None:
        self.position = position
        self.envelope = envelope
        self.nacks = 0
        self.due = 0.0
        """Monotonic seconds before which it is not handed out again."""
        self.out = False
        self.raw: bytes | None = None
        """What is stored in its place, if that is not an envelope."""

    @property
    def stream(self) -> tuple[PrincipalId, Lane]:
        """Within it, order is kept."""
        return self.envelope.header.source, self.envelope.header.lane


class _Destination:
    """The queue of one destination."""

    def __init__(self) -> None:
        self.waiting: dict[Offset, _Waiting] = {}
        self.positions: dict[tuple[PrincipalId, str], Offset] = {}
        self.dropped: dict[Lane, int] = {}
        self.dead: dict[Offset, DeadLetter] = {}
        self.epoch = 0
        self.taking: set[int] = set()
        self.last = 0

    def lane(self, lane: Lane) -> list[_Waiting]:
        return [row for row in self.waiting.values() if row.envelope.header.lane is lane]

    def next_position(self) -> Offset:
        self.last += 1
        return Offset(f"1-{self.last}")


class MemoryEnvelopeQueue:
    """`core.ports.EnvelopeQueue` in dictionaries."""

    def __init__(
        self,
        capacity: int = 10_000,
        retry: RetryPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Take how many envelopes may wait in one lane of a destination, and when to retry."""
        self._capacity = capacity
        self._retry = retry or RetryPolicy()
        self._clock = clock or SystemClock()
        self._random = random.Random(0)  # noqa: S311 - it spreads retries
        self._destinations: dict[PrincipalId, _Destination] = {}
        self._changed = asyncio.Condition()

    async def put(self, envelope: RoutedEnvelope) -> PutReceipt:
        """Take an envelope durably."""
        check_envelope(envelope)
        header = envelope.header
        queue = self._queue(header.destination)
        earlier = queue.positions.get((header.source, header.id))
        if earlier is not None:
            return PutReceipt(id=header.id, position=earlier, duplicate=True)
        dropped = self._make_room(queue, header)
        position = queue.next_position()
        queue.positions[header.source, header.id] = position
        queue.waiting[position] = _Waiting(position, envelope)
        await self._notify()
        return PutReceipt(id=header.id, position=position, dropped=dropped)

    def _make_room(self, queue: _Destination, header: EnvelopeHeader) -> int:
        rows = queue.lane(header.lane)
        if len(rows) < self._capacity:
            return 0
        oldest = next((row for row in rows if not row.out), None)
        if not header.lane.lossy or oldest is None:
            raise _busy(header, self._capacity)
        del queue.waiting[oldest.position]
        queue.dropped[header.lane] = queue.dropped.get(header.lane, 0) + 1
        return 1

    async def claim(self, destination: PrincipalId, holder: str) -> FencingToken:
        """Become the one consumer of a destination."""
        queue = self._queue(destination)
        queue.epoch += 1
        await self._notify()
        return FencingToken(destination, holder, queue.epoch)

    async def take(self, token: FencingToken) -> AsyncGenerator[QueueDelivery, None]:
        """Yield all that is not acknowledged, then what comes, for ever."""
        queue = self._owned(token)
        if token.epoch in queue.taking:
            raise Conflict(f"{token.resource} is being taken with this token already.")
        queue.taking.add(token.epoch)
        try:
            for row in queue.waiting.values():
                row.out = False
            while True:
                row = await self._next(token)
                row.out = True
                yield QueueDelivery(
                    envelope=row.envelope, position=row.position, attempt=row.nacks + 1
                )
        finally:
            queue.taking.discard(token.epoch)

    async def _next(self, token: FencingToken) -> _Waiting:
        async with self._changed:
            while True:
                queue = self._owned(token)
                self._bury(queue)
                ready = next(_ready(queue, self._clock.monotonic()), None)
                if ready is not None:
                    return ready
                due = [r.due for r in queue.waiting.values() if r.due and not r.out]
                wait = max(0.0, min(due) - self._clock.monotonic()) if due else None
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _bury(self, queue: _Destination) -> None:
        """Set aside what cannot be handed out."""
        now = self._clock.time()
        for row in [*queue.waiting.values()]:
            deadline = row.envelope.header.deadline
            if row.raw is not None:
                self._set_aside(queue, row, DeadReason.unreadable, "It is not an envelope.")
            elif not row.out and deadline is not None and deadline < now:
                self._set_aside(queue, row, DeadReason.expired, "Its deadline passed.")

    def _set_aside(
        self, queue: _Destination, row: _Waiting, reason: DeadReason, detail: str
    ) -> None:
        del queue.waiting[row.position]
        queue.dead[row.position] = DeadLetter(
            position=row.position,
            reason=reason,
            detail=detail[:MAX_DETAIL],
            at=self._clock.time(),
            attempts=row.nacks,
            envelope=row.envelope if row.raw is None else None,
            raw=row.raw or b"",
        )

    async def ack(self, token: FencingToken, positions: Collection[Offset]) -> int:
        """Forget envelopes for good."""
        queue = self._owned(token)
        present = [position for position in {*positions} if position in queue.waiting]
        for position in present:
            del queue.waiting[position]
        await self._notify()
        return len(present)

    async def nack(
        self, token: FencingToken, position: Offset, detail: str, *, final: bool = False
    ) -> None:
        """Give one envelope back."""
        queue = self._owned(token)
        row = queue.waiting.get(position)
        if row is None:
            return
        row.nacks += 1
        row.out = False
        row.due = self._clock.monotonic() + retry_delay_s(
            self._retry, row.nacks, self._random.random()
        )
        if final:
            self._set_aside(queue, row, DeadReason.refused, detail)
        elif row.nacks >= self._retry.attempts:
            self._set_aside(queue, row, DeadReason.attempts, detail)
        await self._notify()

    async def depth(self, destination: PrincipalId) -> QueueDepth:
        """Return what waits for a destination."""
        queue = self._queue(destination)
        return QueueDepth(
            waiting={lane: len(rows) for lane in Lane if (rows := queue.lane(lane))},
            waiting_bytes=sum(len(row.envelope.body) for row in queue.waiting.values()),
            dropped=dict(queue.dropped),
            dead=len(queue.dead),
        )

    async def remove(
        self, destination: PrincipalId, source: PrincipalId, ids: Collection[str]
    ) -> int:
        """Remove waiting envelopes of one source by their ids."""
        queue = self._queue(destination)
        positions = (queue.positions.get((source, one), START) for one in {*ids})
        present = [position for position in positions if position in queue.waiting]
        for position in present:
            del queue.waiting[position]
        await self._notify()
        return len(present)

    async def dead_letters(
        self, destination: PrincipalId, after: Offset = START, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters with a position after `after`."""
        dead = self._queue(destination).dead
        later = [p for p in dead if offset_key(p) > offset_key(after)]
        return [dead[position] for position in sorted(later, key=offset_key)][:limit]

    async def replay(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Put dead letters at the end of their lanes again."""
        queue = self._queue(destination)
        letters = [
            (position, letter, letter.envelope)
            for position, letter in sorted(queue.dead.items(), key=lambda row: offset_key(row[0]))
            if position in positions
        ]
        envelopes = [(p, letter, e) for p, letter, e in letters if e is not None]
        for lane in {envelope.header.lane for _, _, envelope in envelopes}:
            coming = [e for _, _, e in envelopes if e.header.lane is lane]
            if len(queue.lane(lane)) + len(coming) > self._capacity:
                raise _busy(coming[0].header, self._capacity)
        for position, letter, envelope in envelopes:
            header = envelope.header
            if letter.reason is DeadReason.expired:
                header = msgspec.structs.replace(header, deadline=None)
            del queue.dead[position]
            again = queue.next_position()
            queue.positions[header.source, header.id] = again
            queue.waiting[again] = _Waiting(again, RoutedEnvelope(header, envelope.body))
        await self._notify()
        return len(envelopes)

    async def drop_dead(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Forget dead letters for good."""
        dead = self._queue(destination).dead
        return sum(dead.pop(position, None) is not None for position in {*positions})

    def damage(self, destination: PrincipalId, position: Offset, raw: bytes) -> None:
        """Be a store in which something else stands in an envelope's place."""
        self._queue(destination).waiting[position].raw = raw

    def _queue(self, destination: PrincipalId) -> _Destination:
        return self._destinations.setdefault(destination, _Destination())

    def _owned(self, token: FencingToken) -> _Destination:
        queue = self._queue(PrincipalId(token.resource))
        check_epoch(token, queue.epoch)
        return queue

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _ready(queue: _Destination, now: float) -> Iterator[_Waiting]:
    """Yield what may be handed out, control first, else in the order in which it was put."""
    held: set[tuple[PrincipalId, Lane]] = set()
    ready: list[_Waiting] = []
    for position in sorted(queue.waiting, key=offset_key):
        row = queue.waiting[position]
        if row.out and not row.nacks:
            continue
        if not row.out and row.due <= now and row.stream not in held:
            ready.append(row)
        if row.nacks:
            held.add(row.stream)
    yield from sorted(ready, key=lambda row: row.envelope.header.lane is not Lane.control)


def _busy(header: EnvelopeHeader, capacity: int) -> Busy:
    return Busy(
        f"{capacity} envelopes of lane {header.lane} wait for {header.destination} already.",
        hint="Try again when some are done.",
        retry_after_s=_BUSY_S,
    )


class MemoryLeases:
    """`core.ports.Leases` in a dictionary; time is the clock that it is given."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the clock by which leases expire."""
        self._clock = clock or SystemClock()
        self._epochs: dict[str, int] = {}
        self._holders: dict[str, tuple[str, float]] = {}

    async def acquire(self, resource: str, holder: str, ttl_s: float) -> FencingToken:
        """Take a free or expired resource."""
        now = self._clock.monotonic()
        owner, until = self._holders.get(resource, ("", 0.0))
        if owner not in ("", holder) and until > now:
            raise Conflict(f"{resource} belongs to {owner}.", holder=owner, free_in_s=until - now)
        self._epochs[resource] = self._epochs.get(resource, 0) + 1
        self._holders[resource] = (holder, now + ttl_s)
        return FencingToken(resource, holder, self._epochs[resource])

    async def renew(self, token: FencingToken, ttl_s: float) -> None:
        """Keep a resource for `ttl_s` more from now on."""
        await self.check(token)
        self._holders[token.resource] = (token.holder, self._clock.monotonic() + ttl_s)

    async def release(self, token: FencingToken) -> None:
        """Give a resource back."""
        if self._epochs.get(token.resource) == token.epoch:
            self._holders.pop(token.resource, None)

    async def check(self, token: FencingToken) -> None:
        """Return if the token has the highest epoch that was given."""
        check_epoch(token, self._epochs.get(token.resource, 0))
        if token.resource not in self._holders:
            raise Fenced(f"{token.resource} was released.")
