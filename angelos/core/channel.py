"""The channel protocol as a pure machine: frames and wishes in, effects out, time as an argument.

Hub and peer run the same `Machine`; sockets are somebody else's (`adapters/net/link.py`). What it
promises, for each pair of sessions (a session is one life of one end):

- each envelope is delivered once and in order, however often the connection is lost;
- an envelope stays here until the other end says that it has *processed* it, so a new session
  of the other end gets everything again that was not (at least once across restarts);
- neither end ever holds more than one window of envelopes and bytes.

    >>> hub, node = Machine("h"), Machine("n")
    >>> hello = node.hello(now=0.0)[0].data
    >>> _ = node.receive(hub.accept(read_frame(hello), now=0.0)[0].data, now=0.0)
    >>> node.offer(Envelope("fact", "f1", b"..."))
    True
    >>> hub.receive(node.flush()[0].data, now=0.0)
    [Deliver(epoch=1, upto=1, envelopes=(Envelope(kind='fact', id='f1', body=b'...'),))]
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
from angelos.core.frames import (
    MAX_ENVELOPE_BYTES,
    VERSION,
    Ack,
    Batch,
    Bye,
    Envelope,
    Frame,
    Hello,
    Ping,
    Pong,
    Welcome,
    envelope_size,
    read_frame,
    write_frame,
)

FATAL = frozenset(
    {"fenced", "quarantined", "unauthenticated", "refused", "version", "protocol", "credit"}
)
"""Codes after which connecting again is pointless; after others (`timeout`, `shutdown`,
`unavailable`, `gone`, `lost`, `expired`) it is not."""
_BATCH_ENVELOPES = 256
_BATCH_BYTES = 1024 * 1024
_PONG_EVERY_S = 1.0


@dataclass(frozen=True)
class Config:
    """What one end takes and how long it waits (seconds)."""

    window: int = 2048
    window_bytes: int = 2 * MAX_ENVELOPE_BYTES
    idle_s: float = 10.0
    """Send a ping after hearing nothing for so long."""
    dead_s: float = 30.0
    """Give the connection up after hearing nothing for so long."""
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
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True)
class End:
    """Close the connection; `by_peer` if the other end said so."""

    code: str
    reason: str
    by_peer: bool = False


Effect = Transmit | Established | Deliver | End
Phase = Literal["down", "opening", "up"]


class Machine:
    """One end of a channel over any number of connections, one after the other."""

    def __init__(self, session: str, config: Config | None = None) -> None:
        """Begin a life; `session` must be new and hard to guess."""
        self.session = session
        self.config = config or Config()
        self.peer = ""
        self.phase: Phase = "down"
        self._heard = self._pinged = 0.0
        self._ponged = float("-inf")
        # What goes out: `_flight` is transmitted on this connection, `_queue` is not yet.
        self._flight: deque[tuple[Envelope, int]] = deque()
        self._queue: deque[tuple[Envelope, int]] = deque()
        self._flight_bytes = self._queue_bytes = 0
        self._acked = 0  # sequence number before the first of `_flight`
        self._highest = 0  # ever transmitted in this pair of sessions
        self._peer_window, self._peer_bytes = 0, 0
        # What comes in: delivered up to `_seen`, processed up to `_done`.
        # `_epoch` counts the pairs of sessions; sequence numbers begin anew with each.
        self._epoch = self._seen = self._done = 0
        self._undone: deque[int] = deque()
        self._undone_bytes = 0

    @property
    def waiting(self) -> int:
        """How many envelopes are kept because the other end has not processed them yet."""
        return len(self._flight) + len(self._queue)

    @property
    def seen(self) -> int:
        """Sequence number up to which envelopes were delivered to the application."""
        return self._seen

    # -- connections -------------------------------------------------------------------------

    def hello(self, now: float, info: dict[str, str] | None = None) -> list[Effect]:
        """A connection is there and we opened it: say hello."""
        self._down()
        self.phase, self._heard, self._pinged = "opening", now, now
        return [
            Transmit(
                write_frame(
                    Hello(
                        VERSION, self.session, self.peer, self._done,
                        self.config.window, self.config.window_bytes, info or {},
                    )
                )
            )
        ]  # fmt: skip

    def remembers(self, hello: Hello) -> bool:
        """Tell whether `hello` continues the pair of sessions that this machine is in."""
        return bool(self.peer) and hello.session == self.peer and hello.peer == self.session

    def accept(self, frame: Frame, now: float) -> list[Effect]:
        """A connection is there and the other end opened it: answer its hello."""
        if not isinstance(frame, Hello):
            return self.end("protocol", "The first frame must be a hello.")
        if frame.version != VERSION:
            return self.end("version", f"This end speaks version {VERSION}, not {frame.version}.")
        self._down()
        self._heard = self._pinged = now
        resumed = self.remembers(frame)
        welcome = Welcome(
            VERSION, self.session, resumed, self._done if resumed else 0,
            self.config.window, self.config.window_bytes,
        )  # fmt: skip
        effects = self._join(frame, frame.session, resumed=resumed)
        return [Transmit(write_frame(welcome)), *effects] if self.phase == "up" else effects

    def lost(self) -> None:
        """The connection is gone; everything not acknowledged is kept for the next."""
        self._down()

    def end(self, code: str, reason: str = "") -> list[Effect]:
        """Say goodbye and close the connection."""
        self._down()
        return [Transmit(write_frame(Bye(code[:32], reason[:500]))), End(code, reason)]

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: ping or give up."""
        silent = now - self._heard
        if self.phase == "opening" and silent > self.config.handshake_s:
            return self.end("timeout", "The other end did not finish the handshake.")
        if self.phase != "up":
            return []
        if silent > self.config.dead_s:
            return self.end("timeout", f"Nothing heard for {silent:.0f} s.")
        if silent > self.config.idle_s and now - self._pinged > self.config.idle_s:
            self._pinged = now
            return [Transmit(write_frame(Ping()))]
        return []

    # -- the application's side --------------------------------------------------------------

    def offer(self, envelope: Envelope) -> bool:
        """Keep an envelope for sending; False when one window is kept already, try again later.

        Raises `TooLarge` for one that no window takes.
        """
        size = envelope_size(envelope)
        if size < 0:
            raise TooLarge(
                f"The envelope {envelope.id[:64]!r} has {len(envelope.body)} bytes; "
                f"{MAX_ENVELOPE_BYTES} are allowed with its id."
            )
        kept = self._flight_bytes + self._queue_bytes
        if self.waiting and (
            self.waiting >= self.config.window or kept + size > self.config.window_bytes
        ):
            return False
        self._queue.append((envelope, size))
        self._queue_bytes += size
        return True

    def flush(self) -> list[Effect]:
        """Transmit as much of what is kept as the other end has given credit for."""
        effects: list[Effect] = []
        while self.phase == "up" and self._queue:
            batch: list[Envelope] = []
            batch_bytes = 0
            while self._queue and len(batch) < _BATCH_ENVELOPES and batch_bytes < _BATCH_BYTES:
                envelope, size = self._queue[0]
                if not self._credit(size):
                    break
                self._flight.append(self._queue.popleft())
                self._queue_bytes -= size
                self._flight_bytes += size
                batch_bytes += size
                batch.append(envelope)
            if not batch:
                break
            first = self._acked + len(self._flight) - len(batch) + 1
            self._highest = max(self._highest, first + len(batch) - 1)
            effects.append(Transmit(write_frame(Batch(first, tuple(batch)))))
        return effects

    def _credit(self, size: int) -> bool:
        # One envelope may always be under way, however small the window in bytes.
        return not self._flight or (
            len(self._flight) < self._peer_window and self._flight_bytes + size <= self._peer_bytes
        )

    def done(self, epoch: int, upto: int) -> list[Effect]:
        """The application has processed everything up to `upto` durably: acknowledge it.

        `epoch` is the delivery's: what an earlier session of the other end sent is not counted.
        """
        if epoch != self._epoch or not self._done < upto <= self._seen:
            return []
        for _ in range(upto - self._done):
            self._undone_bytes -= self._undone.popleft()
        self._done = upto
        return [Transmit(write_frame(Ack(upto)))] if self.phase == "up" else []

    # -- the other end's side ----------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Effect]:
        """A message has come; whatever is wrong with it ends the connection with a code."""
        if self.phase == "down":
            return []
        try:
            frame = read_frame(data)
        except AngelError as error:
            return self.end("protocol", error.detail)
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
                return self.end("protocol", "The handshake is over.")

    def _pong(self, now: float) -> list[Effect]:
        # Seldom, so that a flood of pings that nobody reads the answers to buffers nothing.
        if now - self._ponged < _PONG_EVERY_S:
            return []
        self._ponged = now
        return [Transmit(write_frame(Pong()))]

    def _welcomed(self, frame: Frame) -> list[Effect]:
        if not isinstance(frame, Welcome):
            return self.end("protocol", "The answer to a hello must be a welcome.")
        if frame.version != VERSION:
            return self.end("version", f"This end speaks version {VERSION}, not {frame.version}.")
        if frame.resumed and frame.session != self.peer:
            return self.end("protocol", "Resumed a session that was never begun.")
        return self._join(frame, frame.session, resumed=frame.resumed)

    def _join(self, terms: Hello | Welcome, peer: str, *, resumed: bool) -> list[Effect]:
        """Take the other end's terms; go on where we were, or number everything anew."""
        if not resumed:
            self.peer = peer
            self._epoch += 1
            self._acked = self._highest = 0
            self._seen = self._done = self._undone_bytes = 0
            self._undone.clear()
        elif not self._acked <= terms.received <= self._highest:
            return self.end("protocol", "Acknowledged what was never sent.")
        else:
            self._forget(terms.received)
        self._peer_window, self._peer_bytes = terms.window, terms.window_bytes
        self.phase = "up"
        return [Established(resumed), *self.flush()]

    def _batch(self, batch: Batch) -> list[Effect]:
        last = batch.first + len(batch.envelopes) - 1
        if not 1 <= batch.first <= self._seen + 1:
            return self.end("protocol", f"Expected envelope {self._seen + 1}, got {batch.first}.")
        if last <= self._seen:
            return []
        fresh = batch.envelopes[self._seen + 1 - batch.first :]
        sizes = [envelope_size(envelope) for envelope in fresh]
        self._undone.extend(sizes)
        self._undone_bytes += sum(sizes)
        self._seen = last
        if len(self._undone) > 1 and (
            len(self._undone) > self.config.window or self._undone_bytes > self.config.window_bytes
        ):
            return self.end("credit", "More was sent than there was credit for.")
        return [Deliver(self._epoch, last, fresh)]

    def _ack(self, upto: int) -> list[Effect]:
        if not self._acked <= upto <= self._acked + len(self._flight):
            return self.end("protocol", "Acknowledged what was never sent.")
        self._forget(upto)
        return self.flush()

    def _forget(self, upto: int) -> None:
        """Drop what the other end has processed."""
        for _ in range(upto - self._acked):
            if self._flight:
                self._flight_bytes -= self._flight.popleft()[1]
            else:  # acknowledged in a handshake, before anything went out on this connection
                self._queue_bytes -= self._queue.popleft()[1]
        self._acked = upto

    def _down(self) -> None:
        self.phase = "down"
        self._flight.extend(self._queue)
        self._queue, self._flight = self._flight, deque()
        self._queue_bytes += self._flight_bytes
        self._flight_bytes = 0
