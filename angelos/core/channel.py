"""The channel protocol as a pure machine: frames and calls in, effects out, time as an argument.

Hub and peer run the same `Machine`; `adapters/net/link.py` connects it to sockets. A session is
one life of one end. For each pair of sessions the machine guarantees:

- each item is delivered once and in order, however often the connection is lost;
- an item is kept until the other end has *processed* it, so a new session of the other end
  receives again everything that was not (at least once across restarts);
- neither end ever holds more than one window of items and bytes.

    >>> from angelos.core.frames import FactReport, read_frame
    >>> hub, node = Machine("h"), Machine("n")
    >>> hello = node.hello(now=0.0)[0].data
    >>> _ = node.receive(hub.accept(read_frame(hello), now=0.0)[0].data, now=0.0)
    >>> node.offer(FactReport("f1", b"..."))
    True
    >>> hub.receive(node.flush()[0].data, now=0.0)
    [Deliver(epoch=1, upto=1, items=(FactReport(id='f1', body=b'...', codec='msgpack'),))]
    >>> node.receive(hub.done(1, 1)[0].data, now=0.0)
    []
    >>> node.waiting
    0
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from angelos.core.errors import AngelError, TooLarge
from angelos.core.frame_codecs import MSGPACK, FrameCodec
from angelos.core.frames import (
    MAX_ITEM_BYTES,
    VERSION,
    Ack,
    Batch,
    Bye,
    EndCode,
    Frame,
    Hello,
    Item,
    Ping,
    Pong,
    Welcome,
)

FATAL: frozenset[str] = frozenset(
    {
        EndCode.fenced,
        EndCode.quarantined,
        EndCode.unauthenticated,
        EndCode.refused,
        EndCode.version,
        EndCode.protocol,
        EndCode.credit,
    }
)
"""Codes after which connecting again is pointless."""
_BATCH_ENVELOPES = 256
_BATCH_BYTES = 1024 * 1024
_PONG_EVERY_S = 1.0
_EMPTY: deque[tuple[Item, int]] = deque(maxlen=0)
"""Shared by all that have nothing to send: a deque of its own takes 760 bytes."""
_VERSIONS = f"This end speaks version {VERSION}, not {{}}."


@dataclass(frozen=True)
class Config:
    """How much one end accepts at once, and how long it waits (seconds)."""

    window: int = 2048
    window_bytes: int = 2 * MAX_ITEM_BYTES
    idle_s: float = 5.0
    """Send a ping after this much silence."""
    dead_s: float = 15.0
    """Give up the connection after this much silence."""
    handshake_s: float = 10.0


@dataclass(frozen=True)
class Transmit:
    """Write these bytes as one message."""

    data: bytes


@dataclass(frozen=True)
class Established:
    """The handshake is done."""

    resumed: bool


@dataclass(frozen=True)
class Deliver:
    """Hand these to the application; call `done(epoch, upto)` when they are processed."""

    epoch: int
    upto: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class End:
    """Close the connection; `by_peer` if the other end did."""

    code: str
    reason: str
    by_peer: bool = False


Effect = Transmit | Established | Deliver | End
Phase = Literal["down", "opening", "up"]


class Machine:
    """One end of a channel over any number of connections, one after the other.

    Args:
        session: the id of this life of this end; new, and hard to guess.
        config: windows and times.
    """

    def __init__(self, session: str, config: Config | None = None) -> None:
        self.session = session
        self.config = config or Config()
        self.codec: FrameCodec = MSGPACK
        """Of the present connection."""
        self.peer = ""
        self.phase: Phase = "down"
        self._heard = self._pinged = 0.0
        self._ponged = float("-inf")
        # Outgoing. `_flight` was transmitted on the present connection, `_queue` was not yet.
        # Both keep an item until it is acknowledged, and `_queue` follows `_flight`: so when
        # a connection is lost, `_down` joins them and the next connection sends all again.
        self._flight: list[tuple[Item, int]] = []
        self._queue: deque[tuple[Item, int]] = _EMPTY
        self._flight_bytes = self._queue_bytes = 0
        self._acked = 0  # sequence number before the first of `_flight`
        self._highest = 0  # ever transmitted in this pair of sessions
        self._peer_window, self._peer_bytes = 0, 0
        # Incoming: delivered up to `_delivered`, processed up to `_done`.
        # `_epoch` counts the pairs of sessions; sequence numbers start anew with each, so a late
        # `done` for an earlier pair must not acknowledge anything in this one.
        self._epoch = self._delivered = self._done = 0
        self._undone: list[int] = []
        self._undone_bytes = 0

    @property
    def waiting(self) -> int:
        """How many items the other end has not processed yet."""
        return len(self._flight) + len(self._queue)

    @property
    def in_flight(self) -> bool:
        """Whether something was transmitted on this connection that is not processed yet."""
        return bool(self._flight)

    @property
    def delivered(self) -> int:
        """The last sequence number that was delivered to the application."""
        return self._delivered

    # -- connections -------------------------------------------------------------------------

    def hello(self, now: float, info: dict[str, str] | None = None) -> list[Effect]:
        """Begin on a connection that this end has opened."""
        self._down()
        self.phase, self._heard, self._pinged = "opening", now, now
        return [
            Transmit(
                self.codec.write(
                    Hello(
                        VERSION,
                        self.session,
                        self.peer,
                        self._done,
                        self.config.window,
                        self.config.window_bytes,
                        info or {},
                    )
                )
            )
        ]

    def remembers(self, hello: Hello) -> bool:
        """Return whether `hello` continues the present pair of sessions."""
        return bool(self.peer) and hello.session == self.peer and hello.peer == self.session

    def accept(self, frame: Frame, now: float) -> list[Effect]:
        """Begin on a connection that the other end has opened: answer its hello."""
        if not isinstance(frame, Hello):
            return self.end(EndCode.protocol, "The first frame must be a hello.")
        if frame.version != VERSION:
            return self.end(EndCode.version, _VERSIONS.format(frame.version))
        self._down()
        self._heard = self._pinged = now
        resumed = self.remembers(frame)
        welcome = Welcome(
            VERSION,
            self.session,
            resumed,
            self._done if resumed else 0,
            self.config.window,
            self.config.window_bytes,
        )
        effects = self._join(frame, frame.session, resumed=resumed)
        return [Transmit(self.codec.write(welcome)), *effects] if self.phase == "up" else effects

    def lost(self) -> None:
        """Note that the connection is lost; what is not acknowledged is kept for the next."""
        self._down()

    def end(self, code: str, reason: str = "") -> list[Effect]:
        """Close the connection with a goodbye."""
        self._down()
        return [Transmit(self.codec.write(Bye(code[:32], reason[:500]))), End(code, reason)]

    def tick(self, now: float) -> list[Effect]:
        """Ping, or give up, when the other end has been silent."""
        if not self._queue:
            self._queue = _EMPTY
        silent = now - self._heard
        if self.phase == "opening" and silent > self.config.handshake_s:
            return self.end(EndCode.timeout, "The other end did not finish the handshake.")
        if self.phase != "up":
            return []
        if silent > self.config.dead_s:
            return self.end(EndCode.timeout, f"Nothing heard for {silent:.0f} s.")
        if silent > self.config.idle_s and now - self._pinged > self.config.idle_s:
            self._pinged = now
            return [Transmit(self.codec.write(Ping()))]
        return []

    # -- the application's side --------------------------------------------------------------

    def offer(self, item: Item) -> bool:
        """Queue an item; False when a whole window is queued already.

        Raises:
            TooLarge: no window can hold it.
        """
        size = item.size
        if size > MAX_ITEM_BYTES:
            raise TooLarge(
                f"A {type(item).__name__.lower()} has {size} bytes; {MAX_ITEM_BYTES} are allowed."
            )
        queued = self._flight_bytes + self._queue_bytes
        if self.waiting and (
            self.waiting >= self.config.window or queued + size > self.config.window_bytes
        ):
            return False
        if self._queue is _EMPTY:
            self._queue = deque()
        self._queue.append((item, size))
        self._queue_bytes += size
        return True

    def flush(self) -> list[Effect]:
        """Transmit as many queued items as the other end's window allows."""
        effects: list[Effect] = []
        while self.phase == "up" and self._queue:
            batch: list[Item] = []
            batch_bytes = 0
            while self._queue and len(batch) < _BATCH_ENVELOPES and batch_bytes < _BATCH_BYTES:
                item, size = self._queue[0]
                if not self._credit(size):
                    break
                self._flight.append(self._queue.popleft())
                self._queue_bytes -= size
                self._flight_bytes += size
                batch_bytes += size
                batch.append(item)
            if not batch:
                break
            first = self._acked + len(self._flight) - len(batch) + 1
            self._highest = max(self._highest, first + len(batch) - 1)
            effects.append(Transmit(self.codec.write(Batch(first, tuple(batch)))))
        return effects

    def _credit(self, size: int) -> bool:
        # One item may always be in flight, or one larger than the window would block for ever.
        return not self._flight or (
            len(self._flight) < self._peer_window and self._flight_bytes + size <= self._peer_bytes
        )

    def done(self, epoch: int, upto: int) -> list[Effect]:
        """Acknowledge everything up to `upto`: the application has processed it durably.

        Args:
            epoch: the delivery's; one of an earlier pair of sessions is ignored.
            upto: the delivery's last sequence number.
        """
        if epoch != self._epoch or not self._done < upto <= self._delivered:
            return []
        count = upto - self._done
        self._undone_bytes -= sum(self._undone[:count])
        del self._undone[:count]
        self._done = upto
        return [Transmit(self.codec.write(Ack(upto)))] if self.phase == "up" else []

    # -- the other end's side ----------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Effect]:
        """Take a message from the other end; an invalid one ends the connection with a code."""
        if self.phase == "down":
            return []
        try:
            frame = self.codec.read(data)
        except AngelError as error:
            return self.end(EndCode.protocol, error.detail)
        self._heard = now
        if isinstance(frame, Bye):
            self._down()
            return [End(frame.code, frame.reason, by_peer=True)]
        if self.phase == "opening":
            return self._welcomed(frame)
        return self._talk(frame, now)

    def _talk(self, frame: Frame, now: float) -> list[Effect]:
        match frame:
            case Batch():
                return self._batch(frame)
            case Ack():
                return self._ack(frame.upto)
            case Ping():
                return self._pong(now)
            case Pong():
                return []
            case _:
                return self.end(EndCode.protocol, "The handshake is over.")

    def _pong(self, now: float) -> list[Effect]:
        # At most one a second: a peer that floods pings and never reads must not fill our buffers.
        if now - self._ponged < _PONG_EVERY_S:
            return []
        self._ponged = now
        return [Transmit(self.codec.write(Pong()))]

    def _welcomed(self, frame: Frame) -> list[Effect]:
        if not isinstance(frame, Welcome):
            return self.end(EndCode.protocol, "The answer to a hello must be a welcome.")
        if frame.version != VERSION:
            return self.end(EndCode.version, _VERSIONS.format(frame.version))
        if frame.resumed and frame.session != self.peer:
            return self.end(EndCode.protocol, "Resumed a session that was never started.")
        return self._join(frame, frame.session, resumed=frame.resumed)

    def _join(self, terms: Hello | Welcome, peer: str, *, resumed: bool) -> list[Effect]:
        """Accept the other end's window; continue the numbering, or start it anew."""
        if not resumed:
            self.peer = peer
            self._epoch += 1
            self._acked = self._highest = 0
            self._delivered = self._done = self._undone_bytes = 0
            self._undone.clear()
        # More than was ever acknowledged is fine (acks were lost with the connection); less than
        # that, or more than was ever sent, is a lie.
        elif not self._acked <= terms.received <= self._highest:
            return self.end(EndCode.protocol, "Acknowledged what was never sent.")
        else:
            self._forget(terms.received)
        self._peer_window, self._peer_bytes = terms.window, terms.window_bytes
        self.phase = "up"
        return [Established(resumed), *self.flush()]

    def _batch(self, batch: Batch) -> list[Effect]:
        last = batch.first + len(batch.items) - 1
        if not 1 <= batch.first <= self._delivered + 1:
            return self.end(
                EndCode.protocol, f"Item {batch.first} does not follow {self._delivered}."
            )
        if last <= self._delivered:
            return []
        # A batch may overlap with what came over the last connection: only its end is new.
        fresh = batch.items[self._delivered + 1 - batch.first :]
        sizes = [item.size for item in fresh]
        self._undone.extend(sizes)
        self._undone_bytes += sum(sizes)
        self._delivered = last
        if len(self._undone) > 1 and (
            len(self._undone) > self.config.window or self._undone_bytes > self.config.window_bytes
        ):
            return self.end(EndCode.credit, "More was sent than there was credit for.")
        return [Deliver(self._epoch, last, fresh)]

    def _ack(self, upto: int) -> list[Effect]:
        if not self._acked <= upto <= self._acked + len(self._flight):
            return self.end(EndCode.protocol, "Acknowledged what was never sent.")
        self._forget(upto)
        return self.flush()

    def _forget(self, upto: int) -> None:
        """Drop the items that the other end has processed."""
        count = upto - self._acked
        self._flight_bytes -= sum(size for _, size in self._flight[:count])
        early = count - len(self._flight)
        del self._flight[:count]
        for _ in range(early):  # acknowledged in a handshake, before it went out again
            self._queue_bytes -= self._queue.popleft()[1]
        self._acked = upto

    def _down(self) -> None:
        self.phase = "down"
        self._flight.extend(self._queue)
        self._queue, self._flight = deque(self._flight) if self._flight else _EMPTY, []
        self._queue_bytes += self._flight_bytes
        self._flight_bytes = 0
