"""The hub's two WebSockets: the channel of nodes and agents, and the stream of events.

Both find out who is there before the upgrade: a stranger gets a problem document, not a socket.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tornado.websocket import WebSocketHandler

from angelos.adapters.net.http import ProblemHandler, permit
from angelos.adapters.net.websocket import SocketWire
from angelos.core.errors import AngelError
from angelos.core.frames import MAX_FRAME_BYTES, Bye, EndCode, Hello, read_frame, write_frame
from angelos.core.permissions import Permission
from angelos.hub.events import REFUSED, EventsQuery, events_query, stream
from angelos.hub.models import Peer

if TYPE_CHECKING:
    from angelos.hub.service import Hub
    from angelos.hub.sessions import Session

_WRITE_BUFFER_BYTES = 64 * 1024 * 1024


class PeerSocket(ProblemHandler, WebSocketHandler):
    """What both have in common: the peer is known before anything else happens."""

    peer: Peer

    def initialize(self, hub: Hub) -> None:
        """Belong to `hub`."""
        self.hub = hub

    async def prepare(self) -> None:
        """Refuse strangers."""
        try:
            self.peer = await self.hub.peer_of(self.request)
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
        """Do not compress: it costs half as much CPU again."""
        return None

    def bound_writes(self) -> None:
        """End the connection rather than buffer without bound for a peer that does not read."""
        self.set_nodelay(True)
        stream = getattr(self.ws_connection, "stream", None)
        if stream is not None:
            stream.max_write_buffer_size = _WRITE_BUFFER_BYTES


class ChannelSocket(PeerSocket):
    """The hub's end of one connection of a channel."""

    session: Session | None = None
    late: asyncio.TimerHandle | None = None

    @property
    def max_message_size(self) -> int:
        """The largest frame, in bytes."""
        return MAX_FRAME_BYTES

    def open(self, *args: str, **kwargs: str) -> None:
        """Wait for the hello, but not for ever."""
        del args, kwargs
        self.bound_writes()
        self.wire = SocketWire(self)
        loop = asyncio.get_running_loop()
        patience = self.hub.config.channel.handshake_s
        self.late = loop.call_later(patience, self._refuse, EndCode.timeout, "No hello has come.")

    def on_message(self, message: str | bytes) -> None:
        """Hand a frame to the session; the first one finds or begins it."""
        data = message if isinstance(message, bytes) else b""  # text is no frame
        if self.session is not None:
            self.session.link.message(self.wire, data)
            return
        self._in_time()
        try:
            hello = read_frame(data)
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
        """Tell the session; it waits for the next connection."""
        self._in_time()
        if self.session is not None:
            self.session.link.lost(self.wire)

    def _in_time(self) -> None:
        if self.late is not None:  # a peer may hang up before it was let in
            self.late.cancel()

    def _refuse(self, code: str, reason: str) -> None:
        self.wire.write(write_frame(Bye(code, reason[:500])))
        self.wire.close(code, reason)


class EventsSocket(PeerSocket):
    """The journal for a peer that may read it."""

    query: EventsQuery
    task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Demand the permission and a query that makes sense."""
        permit(Permission.events_read, self.peer.principal)
        self.query = events_query(self.request.query_arguments)

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin to send."""
        del args, kwargs
        self.bound_writes()
        work = stream(self.hub.journal, self.query, self, self.hub.config.patience_s)
        self.task = self.hub.background.start(work, f"events for {self.peer.principal.id}")

    def on_message(self, message: str | bytes) -> None:
        """Readers have nothing to say."""
        del message
        self.close(REFUSED, "nothing is read here")

    def on_close(self) -> None:
        """Stop sending."""
        if self.task is not None:
            self.task.cancel()
