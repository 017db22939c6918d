"""The control API on a Unix socket in one kernel's box, for the person whose kernel it is.

The socket takes that kernel's token and nothing else: no cookie, no server token, no token of a
person or of another kernel. So what a box learns of others' tokens opens nothing here, and its own
token opens nothing outside of it.

    socket = ApiSocket(gate, kernel_id, folder / "api.sock")
    socket.open()
    await socket.close()
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from angelos.adapters.net.http import NoSuchRoute, ProblemHandler, RouteHandler, permit
from angelos.core.errors import Unauthenticated
from angelos.core.permissions import Permission
from angelos.core.routes import MAX_BODY_BYTES, PREFIX
from angelos.hub.events import events_query, events_subprotocol, stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tornado.httputil import HTTPServerRequest

    from angelos.core.permissions import Principal
    from jupyter_ext.binding import Binding

_SCHEMES = ("token ", "Bearer ")
_MAX_CONNECTION_BUFFER = 2 * MAX_BODY_BYTES
_WRITE_BUFFER_BYTES = 16 * 1024 * 1024


def token_of(request: HTTPServerRequest) -> str:
    """Return the token in a request's header, or an empty string."""
    header = request.headers.get("Authorization", "")
    return next((header[len(s) :].strip() for s in _SCHEMES if header.startswith(s)), "")


class ApiSocket:
    """One kernel's door to the control API.

    Args:
        binding: The running system.
        person: Returns the caller of a token; raises `AngelError` while nobody can be looked up.
        path: Where the socket is made.
    """

    def __init__(
        self, binding: Binding, person: Callable[[str], Awaitable[Principal | None]], path: Path
    ) -> None:
        self._path = path
        options = {"binding": binding, "person": person}
        self._server = HTTPServer(
            Application(
                [(f"{PREFIX}/events", _Events, options), (f"{PREFIX}(?:/.*)?", _Routes, options)],
                default_handler_class=NoSuchRoute,
                default_handler_args={"principal_of": _nobody},
                websocket_ping_interval=20,
                log_function=lambda _: None,
            ),
            max_buffer_size=_MAX_CONNECTION_BUFFER,
        )

    def open(self) -> None:
        """Accept requests."""
        self._server.add_socket(bind_unix_socket(str(self._path), mode=0o600))

    async def close(self) -> None:
        """Accept no more, and end what is connected."""
        self._server.stop()
        await self._server.close_all_connections()


async def _nobody(request: HTTPServerRequest) -> None:
    del request


class _Routes(RouteHandler):
    """Every route of the running system."""

    def initialize(self, binding: Binding, person: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Serve the kernel whose tokens `person` knows."""
        self.binding, self._person = binding, person
        self.body = bytearray()

    async def sign_in(self) -> Principal | None:
        """Return the person; only this kernel's token counts."""
        self.binding.require()
        self.routes = self.binding.routes
        principal = await self._person(token_of(self.request))
        if principal is None:
            raise Unauthenticated(hint="The kernel's token is void: start the kernel again.")
        return principal


class _Events(WebSocketHandler, ProblemHandler):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The journal, as far as the person may read it."""

    _pumping: asyncio.Task[None] | None = None
    max_message_size = 4096  # pyright: ignore[reportAssignmentType,reportIncompatibleMethodOverride] - readers send nothing

    def initialize(self, binding: Binding, person: Any) -> None:
        """Serve the kernel whose tokens `person` knows."""
        self.binding, self._person = binding, person

    async def prepare(self) -> None:
        """Refuse strangers before the upgrade."""
        since = time.monotonic()
        try:
            principal = permit(Permission.events_read, await self._person(token_of(self.request)))
            if not self.binding.presence.enter(principal, self, since):
                raise Unauthenticated  # noqa: TRY301
            self._holder = principal.id
            self._query = events_query(self.request.query_arguments)
            server = self.binding.require()
            self._journal = server.journal
            self._shown = lambda fact: server.shown(fact, principal)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
            self.give_up(error)

    async def get(self, *args: str, **kwargs: str) -> None:
        """Upgrade the connection, within the number that the person may have."""
        if self._finished:
            return
        with self.binding.event_sockets.held(self._holder):
            await super().get(*args, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log: once the socket is open, no problem document follows that would."""
        WebSocketHandler.log_exception(self, typ, value, tb)

    def check_origin(self, origin: str) -> bool:
        """Refuse browsers: programs send no Origin."""
        del origin
        return False

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return the one that events have."""
        return events_subprotocol(subprotocols)

    def open(self, *args: str, **kwargs: str) -> None:
        """Start to send; end the connection of a reader that does not read."""
        del args, kwargs
        connection = getattr(self.ws_connection, "stream", None)
        if connection is not None:
            connection.max_write_buffer_size = _WRITE_BUFFER_BYTES
        events = stream(self._journal, self._query, self, shown=self._shown)
        self._pumping = asyncio.create_task(events, name="events")
        self.binding.streams.add(self._pumping)
        self._pumping.add_done_callback(self.binding.streams.discard)

    def on_message(self, message: str | bytes) -> None:
        """Ignore it: readers send nothing."""

    def on_close(self) -> None:
        """Stop sending."""
        if self._pumping is not None:
            self._pumping.cancel()
