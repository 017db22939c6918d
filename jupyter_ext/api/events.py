"""`/angelos/api/events`: the journal as a WebSocket, one JSON object of a fact per message.

Jupyter signs the reader in; the hub's code sends (`hub/events.py`). A reader that is too slow is
closed with 1013, every reader with 1011 when the journal fails; it continues from its last offset.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketHandler

from angelos.adapters.net.http import permit
from angelos.core.errors import Forbidden
from angelos.core.permissions import Permission
from angelos.hub.events import EPOCH_HEADER, events_query, events_subprotocol, resume, stream
from jupyter_ext.api.handlers import JupyterProblemHandler

MAX_MESSAGE_BYTES = 4096
"""Readers send nothing."""


class EventsHandler(WebSocketMixin, WebSocketHandler, JupyterProblemHandler):  # pyright: ignore[reportIncompatibleMethodOverride] - Jupyter's own classes
    """One reader of the journal."""

    _notice: bytes | None = None
    _pumping: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Return the largest message that is read, in bytes."""
        return MAX_MESSAGE_BYTES

    @allow_unauthenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Check the caller and the query before the connection is upgraded."""
        principal = permit(Permission.events_read, self.signed_in())
        if not self.check_origin():
            raise Forbidden("A page of another origin may not read the events with your cookie.")
        server = self.binding.require()
        self._journal = server.journal
        self._shown = lambda fact: server.shown(fact, principal)
        self._query = events_query(self.own_query())
        with self.binding.event_sockets.held(principal.id):
            position = await self._journal.position(self._query.after)
            self._notice = resume(self._query, position)
            self.set_header(EPOCH_HEADER, position.epoch)
            await super().get(*args, **kwargs)  # returns when the connection has ended

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return the one that events have."""
        return events_subprotocol(subprotocols)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Start to send."""
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._pumping = asyncio.create_task(
            stream(self._journal, self._query, self, shown=self._shown, notice=self._notice),
            name="events",
        )
        self.binding.streams.add(self._pumping)
        self._pumping.add_done_callback(self.binding.streams.discard)

    def on_message(self, message: str | bytes) -> None:
        """Ignore it: readers send nothing."""

    def on_close(self) -> None:
        """Stop sending, and let go of what the connection held."""
        if self._pumping is not None:
            self._pumping.cancel()
        if self.ping_callback is not None:  # Jupyter's own would hold this object until its time
            self.ping_callback.stop()
        super().on_close()
