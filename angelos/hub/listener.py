"""TLS listeners that know every open connection, so that a peer can be cut off at once.

For example:

    listener = Listener("127.0.0.1", port, pki.server_context())     # the port is taken now
    listener.serve(application)                                      # connections are accepted
    listener.cut(PrincipalId("agent/rogue"))     # channel, events and keep-alive requests alike
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import bind_sockets, ssl_wrap_socket
from tornado.web import Application

from angelos.adapters.identity.authority import identity_of
from angelos.core.errors import Unauthenticated, Unavailable
from angelos.core.ids import PrincipalId

log = logging.getLogger(__name__)
_HEADER_BYTES = 32_768
_IDLE_S = 60.0
_BODY_S = 120.0
_BACKLOG = 1024
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.0025, 0.1
"""Between two connections: at most 400 in a second, at least 10."""
_PAUSES, _NEWEST = 4, 0.25
"""The pause is so many times as long as the loop was late, of late."""


class LeanStream(SSLIOStream):
    """Tornado's stream in less memory: its attributes have slots instead of a dictionary.

    One that Tornado may add finds its place in the dictionary.
    """

    __slots__ = (
        "_after_user_read_buffer",
        "_close_callback",
        "_closed",
        "_connect_future",
        "_connecting",
        "_handshake_reading",
        "_handshake_writing",
        "_read_buffer",
        "_read_buffer_size",
        "_read_bytes",
        "_read_delimiter",
        "_read_future",
        "_read_max_bytes",
        "_read_partial",
        "_read_regex",
        "_read_until_close",
        "_server_hostname",
        "_ssl_accepting",
        "_ssl_connect_future",
        "_ssl_options",
        "_state",
        "_total_write_done_index",
        "_total_write_index",
        "_user_read_buffer",
        "_write_buffer",
        "_write_futures",
        "error",
        "io_loop",
        "max_buffer_size",
        "max_write_buffer_size",
        "read_chunk_size",
        "socket",
    )


class _Server(HTTPServer):
    """Tornado's server, with its connections at hand."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        self.streams: WeakSet[IOStream] = WeakSet()
        super().initialize(*args, **kwargs)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on these sockets, a few in each turn of the event loop."""
        for listening in sockets:
            number = listening.fileno()
            self._sockets[number] = listening
            self._handlers[number] = accept_paced(listening, self._connected)

    def _connected(self, connection: socket.socket, address: tuple) -> None:  # type: ignore[type-arg]
        try:
            secured = ssl_wrap_socket(
                connection, self.ssl_options or {}, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:  # it was closed at once, as a port scanner does
            log.info("A connection ended before its handshake: %s", error)
            connection.close()
            return
        self.handle_stream(LeanStream(secured), address)

    def handle_stream(self, stream: IOStream, address: tuple) -> None:  # type: ignore[type-arg]
        self.streams.add(stream)
        super().handle_stream(stream, address)


class AcceptPace:
    """For how long no connection is accepted after one was: longer, the later the loop is. Pure.

    What a newcomer costs (a handshake, questions to the stores, a session) comes in pieces of up to
    a millisecond, and all established peers wait for each. So newcomers get a share of the event
    loop's time only: a timer that comes late shows how long its turns are.

    >>> pace = AcceptPace()
    >>> pace.pause_s
    0.0025
    >>> pace.was_late(0.1)
    >>> pace.pause_s
    0.1
    """

    def __init__(self) -> None:
        self._late_s = 0.0

    def was_late(self, late_s: float) -> None:
        """Note how much later than wanted the loop ran a timer."""
        self._late_s += (late_s - self._late_s) * _NEWEST

    @property
    def pause_s(self) -> float:
        """For how long none is accepted."""
        return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, _PAUSES * self._late_s))


def accept_paced(
    listening: socket.socket, accepted: Callable[[socket.socket, Any], None]
) -> Callable[[], None]:
    """Accept connections, each after a pause; return what ends that.

    In a storm of reconnects the rest waits in the backlog of the socket.
    """
    loop, number, pace = asyncio.get_running_loop(), listening.fileno(), AcceptPace()
    pause: list[asyncio.TimerHandle] = []

    def ready() -> None:
        loop.remove_reader(number)
        pause[:] = [loop.call_later(pace.pause_s, listen)]
        try:
            connection, address = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:  # aborted meanwhile, or no descriptor is left
            log.warning("A connection was not accepted: %s", error)
            return
        accepted(connection, address)

    def listen() -> None:
        pace.was_late(loop.time() - pause.pop().when())
        loop.add_reader(number, ready)

    def end() -> None:
        loop.remove_reader(number)
        for timer in pause:
            timer.cancel()

    loop.add_reader(number, ready)
    return end


class Listener:
    """One port behind TLS. Its address is known before its application is.

    Args:
        host: the address to listen on.
        port: 0 for any free one; one that is taken is replaced, unless `fixed`.
        context: the TLS context.
        public: the host in `url`, by which others reach it; `host` if empty.
        fixed: whether the port must not be replaced.

    Raises:
        Unavailable: it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        public: str = "",
        fixed: bool = False,
    ) -> None:
        self.context = context
        try:
            self._sockets = _bind(host, port, fixed=fixed)
        except OSError as error:
            raise Unavailable(f"The hub cannot listen on {host}, port {port}: {error}") from error
        self.port: int = self._sockets[0].getsockname()[1]
        self.url = address(public or host, self.port)
        self._server: _Server | None = None

    def serve(self, application: Application) -> None:
        """Accept connections, those that have been waiting since the port was taken included."""
        # Bodies of routes have limits of their own; nothing else here has a body.
        server = _Server(
            application,
            ssl_options=self.context,
            max_body_size=_HEADER_BYTES,
            max_header_size=_HEADER_BYTES,
            idle_connection_timeout=_IDLE_S,
            body_timeout=_BODY_S,
        )
        server.add_sockets(self._sockets)
        self._server = server

    @property
    def streams(self) -> list[IOStream]:
        """The connections that are open now."""
        return list(self._server.streams) if self._server is not None else []

    def renew_context(self, context: ssl.SSLContext) -> None:
        """Use a fresh context for new connections.

        A TLS 1.3 session ticket lets a client resume without showing its certificate again, and
        a context honours every ticket that it has issued. Only a new one forgets them.
        """
        self.context = context
        if self._server is not None:
            self._server.ssl_options = context

    def cut(self, principal: PrincipalId) -> int:
        """Close every connection of a principal and return how many there were."""
        streams = [stream for stream in self.streams if _owner(stream) == principal]
        for stream in streams:
            stream.close()
        return len(streams)

    def release(self) -> None:
        """Free the port of a listener that does not serve yet."""
        for listening in self._sockets:
            listening.close()

    async def close(self) -> None:
        """Free the port and close all connections. Idempotent."""
        if self._server is None:
            self.release()
            return
        self._server.stop()
        await self._server.close_all_connections()
        for stream in self.streams:
            stream.close()


def address(host: str, port: int) -> str:
    """Return the URL of a host and a port.

    >>> address("::1", 7443)
    'https://[::1]:7443'
    """
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _bind(host: str, port: int, *, fixed: bool) -> list[socket.socket]:
    try:
        return bind_sockets(port, host, backlog=_BACKLOG)
    except OSError:
        if fixed or not port:
            raise
        return bind_sockets(0, host, backlog=_BACKLOG)


@dataclass(frozen=True)
class Listeners:
    """The hub's two ports."""

    peers: Listener
    """Demands a certificate."""
    enrolment: Listener
    """For those that have no certificate yet."""

    async def close(self) -> None:
        """Close both. Idempotent."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.enrolment.close)
            stack.push_async_callback(self.peers.close)


def _owner(stream: IOStream) -> PrincipalId | None:
    if stream.closed() or not isinstance(stream.socket, ssl.SSLSocket):
        return None
    try:
        return identity_of(stream.socket.getpeercert(binary_form=True))[0]
    except (ValueError, Unauthenticated):  # the handshake is not over: it is asked again later
        return None
