"""The open WebSockets of each person, and their end when the person is removed or quarantined.

A request is checked when it comes; a WebSocket (events, rooms of documents, kernels, terminals)
goes on for days. Every handler asks the identity provider who is there, which notes WebSockets
here; the journal says who went.

    presence = Presence()
    presence.enter(PrincipalId("person/ada"), handler, since)   # False: gone meanwhile
    await presence.watch(journal, await journal.last())         # closes, for ever
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from angelos.core.errors import AngelError
from angelos.core.messages import Kind
from angelos.hub.events import REFUSED

if TYPE_CHECKING:
    from tornado.websocket import WebSocketHandler

    from angelos.core.ids import Offset, PrincipalId

log = logging.getLogger(__name__)
_ENDS = {Kind.person_removed: "removed", Kind.principal_quarantined: "quarantined"}
_RETRY_S = 1.0


class Presence:
    """Who is connected."""

    def __init__(self) -> None:
        """Know nobody."""
        self.changed_at = -math.inf
        """When somebody went last, by `time.monotonic`; what was read before may be wrong."""
        self._open: dict[PrincipalId, WeakSet[WebSocketHandler]] = {}
        self._gone: dict[PrincipalId, float] = {}

    def enter(self, who: PrincipalId, socket: WebSocketHandler, since: float) -> bool:
        """Note a WebSocket of somebody who was looked up after `since` (`time.monotonic`).

        False if they have gone since: then it must not be opened.
        """
        if self._gone.get(who, -math.inf) >= since:
            return False
        self._open.setdefault(who, WeakSet()).add(socket)
        return True

    def end(self, who: PrincipalId, why: str) -> None:
        """Close every WebSocket of somebody; one that is just being opened closes then."""
        self.changed_at = self._gone[who] = time.monotonic()
        found = list(self._open.pop(who, ()))
        for socket in found:
            _dismiss(socket, f"{who} was {why}.")
        if found:
            log.warning("%s was %s; connections closed: %d", who, why, len(found))

    async def watch(self, journal: Any, after: Offset) -> None:
        """Close what the journal's facts after `after` demand, for ever.

        `after` is read before anybody may connect: whoever goes then is not overlooked.
        """
        while True:
            try:
                async with aclosing(cast("Any", journal.follow(after, tuple(_ENDS)))) as facts:
                    async for fact in facts:
                        after = fact.offset
                        self.end(fact.subject, _ENDS[fact.kind])
            except (AngelError, OSError) as error:
                log.warning("Nobody looks who was removed; trying again: %s", error)
            except Exception:  # if this ended, whoever is removed would stay connected
                log.exception("Nobody looks who was removed; trying again")
            await asyncio.sleep(_RETRY_S)


def _dismiss(socket: WebSocketHandler, why: str) -> None:
    """Close a WebSocket and take nothing more from it, whatever its client does.

    Tornado waits a few seconds for the other end's goodbye and goes on reading meanwhile.
    """

    def refuse(*_: object, **__: object) -> None:
        socket.close(REFUSED, why)

    socket.open = refuse  # type: ignore[method-assign] - of this one alone
    socket.on_message = lambda message: None  # type: ignore[method-assign]  # noqa: ARG005
    refuse()
