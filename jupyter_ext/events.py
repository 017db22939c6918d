"""`/angelos/api/events`: the journal as a WebSocket, one JSON object of a fact per message.

Signed in by Jupyter, pumped by the hub's code (`hub/events.py`). A reader who is too slow is
closed with 1013, one whom the journal fails with 1011; either goes on from its last offset.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from angelos.core.errors import AngelError, Busy, Forbidden, Unauthenticated
from angelos.core.permissions import Permission
from angelos.hub.events import FAILED, SLOW, events_query, pump
from jupyter_ext.handlers import JUPYTERS_OWN, ProblemHandler

log = logging.getLogger(__name__)
MAX_MESSAGE_BYTES = 4096
"""Readers have nothing to say."""
_MAX_REASON_BYTES = 120  # RFC 6455, section 5.5.1: a close frame holds 125 bytes


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
        self.binding.require()
        arguments = self.request.query_arguments
        self._query = events_query({k: v for k, v in arguments.items() if k not in JUPYTERS_OWN})
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin to send."""
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._pumping = asyncio.create_task(self._pump(), name="events")
        self.binding.streams.add(self._pumping)
        self._pumping.add_done_callback(self.binding.streams.discard)

    def on_message(self, message: str | bytes) -> None:
        """Ignore what a reader says."""

    def on_close(self) -> None:
        """Stop sending."""
        if self._pumping is not None:
            self._pumping.cancel()
        super().on_close()

    async def _pump(self) -> None:
        query = self._query
        try:
            journal = self.binding.require().journal
            await pump(journal, query.after, query.kinds, query.subject, self.write_message)
        except WebSocketClosedError:
            return
        except Busy as error:
            self.close(SLOW, _short(error.detail))
        except AngelError as error:
            self.close(FAILED, _short(error.detail))
        except Exception:
            log.exception("A stream of events failed")
            self.close(FAILED, "The journal cannot be read at the moment.")


def _short(reason: str) -> str:
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
