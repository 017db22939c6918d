"""A TLS listener that knows every open connection, so that a peer can be cut off at once.

listener = Listener(application, "127.0.0.1", port, pki.server_context())
listener.cut(PrincipalId("agent/rogue"))     # channel, events and keep-alive requests alike
"""

from __future__ import annotations

import logging
import ssl
from typing import Any
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application

from angelos.adapters.identity.authority import identity_of
from angelos.core.errors import Unauthenticated, Unavailable
from angelos.core.ids import PrincipalId

log = logging.getLogger(__name__)
_HEADER_BYTES = 32_768
_IDLE_S = 60.0
_BODY_S = 120.0


class _Server(HTTPServer):
    """Tornado's server, with its connections at hand."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        self.streams: WeakSet[IOStream] = WeakSet()
        super().initialize(*args, **kwargs)

    def handle_stream(self, stream: IOStream, address: tuple) -> None:  # type: ignore[type-arg]
        self.streams.add(stream)
        super().handle_stream(stream, address)


class Listener:
    """One port with one application behind TLS."""

    def __init__(
        self, application: Application, host: str, port: int, context: ssl.SSLContext
    ) -> None:
        """Listen at once; port 0, or one that is taken, becomes a free one."""
        self.context = context
        # Bodies of routes have limits of their own; nothing else here has a body.
        self._server = _Server(
            application,
            ssl_options=context,
            max_body_size=_HEADER_BYTES,
            max_header_size=_HEADER_BYTES,
            idle_connection_timeout=_IDLE_S,
            body_timeout=_BODY_S,
        )
        try:
            sockets = bind_sockets(port, host)
        except OSError:
            try:
                sockets = bind_sockets(0, host)
            except OSError as error:
                raise Unavailable(f"The hub cannot listen on {host}: {error}") from error
        self._server.add_sockets(sockets)
        self.url = f"https://{host}:{sockets[0].getsockname()[1]}"

    def renew_context(self, context: ssl.SSLContext) -> None:
        """Use a fresh context for new connections: the old one resumes sessions it has seen."""
        self.context = context
        self._server.ssl_options = context

    def cut(self, principal: PrincipalId) -> int:
        """Close every connection of a principal and return how many there were."""
        found = [s for s in list(self._server.streams) if _owner(s) == principal]
        for stream in found:
            stream.close()
        return len(found)

    async def close(self) -> None:
        """Stop listening and close all connections."""
        self._server.stop()
        await self._server.close_all_connections()
        for stream in list(self._server.streams):
            stream.close()


def _owner(stream: IOStream) -> PrincipalId | None:
    if stream.closed() or not isinstance(stream.socket, ssl.SSLSocket):
        return None
    try:
        return identity_of(stream.socket.getpeercert(binary_form=True))[0]
    except (ValueError, Unauthenticated):  # still shaking hands: asked for its name later
        return None
