"""`/angelos/api/events`: the journal as a WebSocket, one JSON object of a fact per message.

Signed in by Jupyter, sent by the hub's code (`hub/events.py`). A reader who is too slow is
closed with 1013, one whom the journal fails with 1011; either goes on from its last offset.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketHandler

from angelos.core.errors import Forbidden, Unauthenticated
from angelos.core.permissions import Permission
from angelos.hub.events import events_query, stream
from jupyter_ext.api.handlers import JUPYTERS_OWN, ProblemHandler

MAX_MESSAGE_BYTES = 4096
"""Readers have nothing to say."""


class EventsHandler(WebSocketMixin, WebSocketHandler, ProblemHandler):  # pyright: ignore[reportIncompatibleMethodOverride] - Jupyter's own classes
    """One reader of the journal."""

    _pumping: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Return the largest message that is read, in bytes."""
        return MAX_MESSAGE_BYTES

    @allow_unauthenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Check who asks and for what before the connection is upgraded."""
        who = self.principal()
        if who is None:
            raise Unauthenticated(hint="Send a token: Authorization: token ...")
        if not who.may(Permission.events_read):
            raise Forbidden(f"{who.id} is {who.role} and may not {Permission.events_read}.")
        if not self.check_origin():
            raise Forbidden("A page of another origin may not read the events with your cookie.")
        self._journal = self.binding.require().journal
        arguments = self.request.query_arguments
        self._query = events_query({k: v for k, v in arguments.items() if k not in JUPYTERS_OWN})
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin to send."""
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._pumping = asyncio.create_task(stream(self._journal, self._query, self), name="events")
        self.binding.streams.add(self._pumping)
        self._pumping.add_done_callback(self.binding.streams.discard)

    def on_message(self, message: str | bytes) -> None:
        """Ignore what a reader says."""

    def on_close(self) -> None:
        """Stop sending."""
        if self._pumping is not None:
            self._pumping.cancel()
        super().on_close()
