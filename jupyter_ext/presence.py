"""The open WebSockets of each person, closed when the person is removed or quarantined.

A request is checked when it arrives, but a WebSocket (events, rooms of documents, kernels,
terminals) stays open for days. The identity provider, which every handler asks, records WebSockets
here; the journal says who was removed.

    presence = Presence()
    presence.enter(PrincipalId("person/ada"), handler, since)   # False: removed meanwhile
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
from angelos.core.facts import Kind
from angelos.hub.events import REFUSED

if TYPE_CHECKING:
    from tornado.websocket import WebSocketHandler

    from angelos.core.ids import Offset, PrincipalId

log = logging.getLogger(__name__)
_ENDS = {Kind.person_removed: "removed", Kind.principal_quarantined: "quarantined"}
_RETRY_S = 1.0


class Presence:
    """The WebSockets that are open, by person."""

    def __init__(self) -> None:
        self.changed_at = -math.inf
        """When somebody was last removed (`time.monotonic`); an older list of people is stale."""
        self._open: dict[PrincipalId, WeakSet[WebSocketHandler]] = {}
        self._removed_at: dict[PrincipalId, float] = {}

    def enter(self, person: PrincipalId, socket: WebSocketHandler, since: float) -> bool:
        """Record the WebSocket of a person who was looked up after `since` (`time.monotonic`).

        Returns:
            False if the person was removed meanwhile: then it must not be opened.
        """
        if self._removed_at.get(person, -math.inf) >= since:
            return False
        self._open.setdefault(person, WeakSet()).add(socket)
        return True

    def end(self, person: PrincipalId, verb: str) -> None:
        """Close every WebSocket of a person; one that is just being opened closes once it is."""
        self.changed_at = self._removed_at[person] = time.monotonic()
        sockets = list(self._open.pop(person, ()))
        for socket in sockets:
            _dismiss(socket, f"{person} was {verb}.")
        if sockets:
            log.warning("%s was %s; connections closed: %d", person, verb, len(sockets))

    async def watch(self, journal: Any, after: Offset) -> None:
        """Close the WebSockets of each person that a fact after `after` removes, for ever.

        Read `after` before anybody can connect, so that no removal is overlooked.
        """
        while True:
            try:
                async with aclosing(cast("Any", journal.follow(after, tuple(_ENDS)))) as facts:
                    async for fact in facts:
                        after = fact.offset
                        self.end(fact.subject, _ENDS[fact.kind])
            except (AngelError, OSError) as error:
                log.warning("The journal cannot be followed for removals; trying again: %s", error)
            except Exception:  # without this task, removed people would stay connected
                log.exception("The journal cannot be followed for removals; trying again")
            await asyncio.sleep(_RETRY_S)


def _dismiss(socket: WebSocketHandler, reason: str) -> None:
    """Close a WebSocket and ignore its client from now on.

    Tornado waits a few seconds for the other end's goodbye, and goes on reading meanwhile.
    """

    def refuse(*_: object, **__: object) -> None:
        socket.close(REFUSED, reason)

    socket.open = refuse  # type: ignore[method-assign] - of this one alone
    socket.on_message = lambda message: None  # type: ignore[method-assign]  # noqa: ARG005
    refuse()
