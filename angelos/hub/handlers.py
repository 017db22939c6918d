"""The hub's two WebSockets: the channel of nodes and agents, and the stream of events.

Both authenticate the peer before the upgrade: a stranger gets a problem document, not a socket.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from tornado.httputil import HTTPServerRequest
from tornado.websocket import WebSocketHandler

from angelos.adapters.net.frame_loop import FrameLoop, FrameLoopHandler
from angelos.adapters.net.http import ProblemHandler, permit
from angelos.adapters.net.websocket import SocketWire
from angelos.core.errors import AngelError
from angelos.core.frame_codecs import MSGPACK, FrameCodec, choose_codec
from angelos.core.frames import MAX_FRAME_BYTES, Bye, EndCode, Hello
from angelos.core.permissions import Permission, Principal
from angelos.hub.events import (
    EPOCH_HEADER,
    REFUSED,
    EventsQuery,
    events_query,
    events_subprotocol,
    resume,
    stream,
)
from angelos.hub.models import Peer

if TYPE_CHECKING:
    from angelos.hub.service import Hub
    from angelos.hub.sessions import Session

_WRITE_BUFFER_BYTES = 64 * 1024 * 1024
_SMALL_BYTES, _SAMPLED = 4096, 8
"""Of small frames, which cost some microseconds each, one of so many is measured, for all."""


class PeerSocket(ProblemHandler, FrameLoopHandler, WebSocketHandler):
    """What both have in common: the peer is authenticated before the socket opens."""

    # Tornado's attributes, so that the dictionary has fewer than 30 keys and is shared.
    __slots__ = (
        "_auto_finish",
        "_finished",
        "_headers",
        "_headers_written",
        "_on_close_called",
        "_prepared_future",
        "_reason",
        "_status_code",
        "_transforms",
        "_write_buffer",
        "application",
        "close_code",
        "close_reason",
        "hub",
        "open_args",
        "open_kwargs",
        "path_args",
        "path_kwargs",
        "request",
        "ui",
        "ws_connection",
    )
    peer: Peer
    principal: Principal | None = None

    def initialize(self, hub: Hub) -> None:
        """Serve `hub`."""
        self.hub = hub

    async def prepare(self) -> None:
        """Refuse strangers."""
        try:
            self.peer = await self.hub.peer_of(self.request)
            self.principal = self.peer.principal
            self.check()
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
            self.give_up(error)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log: once the socket is open, no problem document follows that would."""
        WebSocketHandler.log_exception(self, typ, value, tb)

    def check(self) -> None:
        """Raise an `AngelError` if this peer may not have this socket."""

    def check_origin(self, origin: str) -> bool:
        """Refuse browsers' cross-site requests: peers are programs and send no Origin."""
        del origin
        return False

    def get_compression_options(self) -> dict[str, Any] | None:
        """Do not compress: it takes half as much CPU again."""
        return None

    def bound_writes(self) -> None:
        """End the connection of a peer that does not read, rather than buffer without bound."""
        self.set_nodelay(True)
        stream = getattr(self.ws_connection, "stream", None)
        if stream is not None:
            stream.max_write_buffer_size = _WRITE_BUFFER_BYTES
        self._forget_handshake()

    def _forget_handshake(self) -> None:
        """Let go of both sides' headers and of HTTP: thousands of idle peers would keep them."""
        self.request.headers.clear()  # in place, for Tornado holds them as well
        self.request.connection = None
        self.ui = None
        for name in [name for name, _ in self._headers.get_all()]:
            self.clear_header(name)


class ChannelSocket(PeerSocket):
    """The hub's end of one connection of a channel."""

    session: Session | None = None
    codec: FrameCodec = MSGPACK
    _hello_timeout: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Choose the codec; raise `InvalidInput` if the peer offers none that is spoken here."""
        self.codec = choose_codec(offered_subprotocols(self.request))

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return the name of the codec, if the peer offered any."""
        return self.codec.subprotocol if subprotocols else None

    @property
    def max_message_size(self) -> int:
        """The largest frame, in bytes."""
        return MAX_FRAME_BYTES

    @property
    def ping_interval(self) -> float:
        """0: the protocol of the channel has pings of its own, in both directions."""
        return 0

    def open(self, *args: str, **kwargs: str) -> None:
        """Wait for the hello, within bounds."""
        del args, kwargs
        self.bound_writes()
        assert isinstance(self.ws_connection, FrameLoop)  # noqa: S101 - by FrameLoopHandler
        self.wire = SocketWire(self, self.ws_connection, self.codec)
        loop = asyncio.get_running_loop()
        patience = self.hub.config.channel.handshake_s
        self._hello_timeout = loop.call_later(
            patience, self._refuse, EndCode.timeout, "No hello came in time."
        )

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Pass a frame to the session; the first one, the hello, finds or starts it.

        Nothing more is read until the returned pause is over: a peer that spends too much waits.
        """
        data = self.wire.data_of(message)
        if self.session is None:
            self._greet(data)
            return None
        machine, weight = self.session.link.machine, frame_weight(len(data))
        began, before = time.thread_time() if weight else 0.0, machine.delivered
        self.session.link.message(self.wire, data)
        items = 1 + max(0, machine.delivered - before)
        spent = (time.thread_time() - began) * weight if weight else 0.0
        pause = self.hub.count_frame(self.peer.principal.id, items, len(data), spent)
        return asyncio.sleep(pause) if pause else None

    def _greet(self, data: bytes) -> None:
        self._stop_timeout()
        try:
            hello = self.codec.read(data)
        except AngelError as error:
            self._refuse(EndCode.protocol, error.detail)
            return
        if not isinstance(hello, Hello):
            self._refuse(EndCode.protocol, "The first frame must be a hello.")
            return
        try:
            self.session = self.hub.admit(self.peer, hello, self.wire)
        except AngelError as error:
            self._refuse(EndCode.quarantined, error.detail)

    def on_close(self) -> None:
        """Tell the session, which waits for the next connection."""
        self._stop_timeout()
        if self.session is not None:
            self.session.link.lost(self.wire)

    def _stop_timeout(self) -> None:
        if self._hello_timeout is not None:  # None for a peer that hung up before `open`
            self._hello_timeout.cancel()

    def _refuse(self, code: str, reason: str) -> None:
        self.wire.write(self.codec.write(Bye(code, reason[:500])))
        self.wire.close(code, reason)


class EventsSocket(PeerSocket):
    """The journal, for a peer that may read it."""

    query: EventsQuery
    notice: bytes | None = None
    task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Demand the permission and a valid query."""
        permit(Permission.events_read, self.peer.principal)
        self.query = events_query(self.request.query_arguments)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return the one that events have."""
        return events_subprotocol(subprotocols)

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Serve the connection to its end, if this identity may have one more."""
        with self.hub.event_sockets.held(self.peer.principal.id):
            position = await self.hub.journal.position(self.query.after)
            self.notice = resume(self.query, position)
            self.set_header(EPOCH_HEADER, position.epoch)
            await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        """Start to send."""
        del args, kwargs
        self.bound_writes()
        work = stream(
            self.hub.journal,
            self.query,
            self,
            self.hub.config.patience_s,
            lambda fact: self.hub.shown(fact, self.peer.principal),
            self.notice,
        )
        self.task = self.hub.background.start(work, f"events for {self.peer.principal.id}")

    def on_message(self, message: str | bytes) -> None:
        """Close: readers send nothing."""
        del message
        self.close(REFUSED, "readers send nothing")

    def on_close(self) -> None:
        """Stop sending."""
        if self.task is not None:
            self.task.cancel()


def frame_weight(size: int) -> int:
    """Return for how many frames one of this size is measured, by chance; 0: it is not."""
    if size > _SMALL_BYTES:
        return 1
    return 0 if random.random() * _SAMPLED >= 1 else _SAMPLED  # noqa: S311 - no secret


def offered_subprotocols(request: HTTPServerRequest) -> list[str]:
    """Return the subprotocols that a client offers, in its order."""
    header = request.headers.get("Sec-WebSocket-Protocol", "")
    return [name for part in header.split(",") if (name := part.strip())]
