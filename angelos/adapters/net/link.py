"""A `Channel` on the protocol machine, over one connection after the other.

Both ends use it: the hub has one `Link` per peer, a peer has one (`adapters/net/websocket.py`). A
connection is a `Wire`; when it is lost the link waits for the next one, over which everything that
the other end has not processed is sent again.

`recv` acknowledges: a call for the next batch means that the last one is processed durably.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from angelos.adapters.net.flag import Flag
from angelos.core.channel import Deliver, Effect, End, Established, Machine, Transmit
from angelos.core.errors import Unavailable
from angelos.core.frame_codecs import FrameCodec
from angelos.core.frames import EndCode, Item
from angelos.core.ids import PrincipalId
from angelos.core.ports import Clock

_FLUSH_S = 0.001
"""How long an item may wait for others, while earlier ones are on their way."""


class Wire(Protocol):
    """One open connection that carries messages."""

    @property
    def codec(self) -> FrameCodec:
        """How frames are written on it."""
        ...

    def write(self, data: bytes) -> None:
        """Send one message; a failure ends the connection and is never raised here."""
        ...

    def close(self, code: str, reason: str) -> None:
        """Close it. Idempotent."""
        ...


class Link:
    """`core.ports.Channel` for one peer and one session of this end. It starts disconnected."""

    def __init__(self, peer: PrincipalId, machine: Machine, clock: Clock) -> None:
        self.peer = peer
        self.machine = machine
        self.clock = clock
        self.wire: Wire | None = None
        self.ended: End | None = None
        """Why there will be no further connection; None while there may be one."""
        self.down = Flag()
        """Set while there is no connection."""
        self.down.set()
        self.up = Flag()
        """Set while the handshake is done, and when the link has ended."""
        self.last_end: End | None = None
        self._inbox: list[Deliver] = []
        self._taken: tuple[int, int] | None = None
        self._news = Flag()
        self._room = Flag()
        self._flushing: asyncio.Handle | None = None

    # -- core.ports.Channel ------------------------------------------------------------------

    async def send(self, batch: Sequence[Item], *, more: bool = False) -> None:
        """Queue items; waits while a whole window is unacknowledged.

        They survive lost connections.

        Args:
            batch: The items.
            more: Others may follow in this turn of the event loop, and leave with them.

        Raises:
            TooLarge: no frame can hold an item.
            Unavailable: the link has ended.
        """
        for item in batch:
            self._check()
            while not self.machine.offer(item):
                self._flush()
                self._room.clear()
                await self._room.wait()
                self._check()
        self._flush_soon(more=more)

    def _flush_soon(self, *, more: bool) -> None:
        """Transmit at once if nothing is on its way, else with what comes within a millisecond."""
        if self._flushing is not None:
            return
        if self.machine.in_flight:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)
        elif more:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._carry_out(self.machine.flush())

    @property
    def online(self) -> bool:
        """Whether the handshake is done on a connection that is open."""
        return self.ended is None and self.up.is_set()

    @property
    def idle(self) -> bool:
        """Whether it is online, and the other end has processed all that was sent."""
        return self.online and not self.machine.waiting

    async def drained(self) -> None:
        """Wait until the other end has processed everything that was sent.

        Raises:
            Unavailable: the link has ended.
        """
        while self.machine.waiting:
            self._check()
            self._room.clear()
            await self._room.wait()

    async def recv(self, most: int = 0) -> list[Item]:
        """Return what has arrived, and acknowledge the items of the last call.

        Args:
            most: At most so many items; 0 for all.

        Raises:
            Unavailable: the link has ended, and everything that arrived before was returned.
        """
        if self._taken is not None:
            taken, self._taken = self._taken, None
            self._carry_out(self.machine.done(*taken))
        while not self._inbox:
            self._check()
            self._news.clear()
            await self._news.wait()
        items: list[Item] = []
        while self._inbox and (not most or len(items) < most):
            delivery = self._inbox.pop(0)
            rest = len(items) + len(delivery.items) - most
            if most and rest > 0:
                self._inbox.insert(0, replace(delivery, items=delivery.items[-rest:]))
                items_now = delivery.items[:-rest]
                delivery = replace(delivery, upto=delivery.upto - rest, items=items_now)
            items += delivery.items
            self._taken = (delivery.epoch, delivery.upto)
        return items

    async def close(self, reason: str = "") -> None:
        """End the link for good."""
        self.end(EndCode.shutdown, reason)

    # -- connections -------------------------------------------------------------------------

    def connected(self, wire: Wire, begin: Callable[[float], list[Effect]]) -> None:
        """Continue over `wire`; `begin(now)` returns the machine's first effects on it."""
        if self.wire is not None and self.wire is not wire:
            self._carry_out(self.machine.end(EndCode.fenced, "Another connection took over."))
        self.wire, self.last_end, self.machine.codec = wire, None, wire.codec
        self.down.clear()
        self._carry_out(begin(self.clock.monotonic()))

    def message(self, wire: Wire, data: bytes) -> None:
        """Take a message from `wire`; one from an older connection is dropped."""
        if wire is self.wire:
            self._carry_out(self.machine.receive(data, self.clock.monotonic()))

    def lost(self, wire: Wire) -> None:
        """Note that the connection is lost."""
        if wire is self.wire:
            self.machine.lost()
            self._unwire()

    def tick(self) -> None:
        """Let the machine ping or give up."""
        self._carry_out(self.machine.tick(self.clock.monotonic()))

    def drop(self, code: str, reason: str = "") -> None:
        """End the present connection only; the peer may come back and continue."""
        if self.wire is not None:
            self._flush()  # what was sent before the goodbye goes before it
            self._carry_out(self.machine.end(code, reason))

    def end(self, code: str, reason: str = "") -> None:
        """End the link for good and tell the peer why. Idempotent."""
        if self.ended is None:
            self.ended = End(code, reason)
            self.drop(code, reason)
            self._wake()

    def finish(self, end: End) -> None:
        """Note that there will be no further connection."""
        if self.ended is None:
            self.ended = end
        self._wake()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(data) if self.wire is not None:
                    self.wire.write(data)
                case Deliver():
                    self._inbox.append(effect)
                    self._news.set()
                case Established(resumed):
                    if not resumed:  # the peer has a new session and will send all of it again
                        self._inbox.clear()
                        self._taken = None
                    self.up.set()
                case End(code, reason):
                    self.last_end = effect
                    if self.wire is not None:
                        self.wire.close(code, reason)
                        self._unwire()
                case _:
                    pass
        self._room.set()

    def _unwire(self) -> None:
        self.wire = None
        self.down.set()
        if self.ended is None:
            self.up.clear()

    def _wake(self) -> None:
        self.up.set()
        self.down.set()
        self._news.set()
        self._room.set()

    def _check(self) -> None:
        if self.ended is not None:
            raise Unavailable(
                f"The channel to {self.peer} has ended ({self.ended.code}): "
                f"{self.ended.reason or 'no reason given'}",
                code=self.ended.code,
            )
