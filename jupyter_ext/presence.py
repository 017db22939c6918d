"""The open WebSockets of each person, closed when what they were opened with is over.

A request is checked when it arrives, but a WebSocket (events, rooms of documents, kernels,
terminals) stays open for days. The identity provider, which every handler asks, records WebSockets
here; the journal says whose generation ended and which token was revoked, and a token that
expires ends its sockets by itself.

    presence = Presence()
    presence.enter(principal, handler, since)                   # False: over meanwhile
    await presence.watch(journal, await journal.last())         # closes, for ever
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from weakref import ReferenceType, WeakKeyDictionary, ref

from angelos.core.errors import AngelError
from angelos.core.facts import Fact, Kind, PrincipalEnded, TokenRevoked
from angelos.core.principals import EndCause
from angelos.hub.events import REFUSED

if TYPE_CHECKING:
    from tornado.websocket import WebSocketHandler

    from angelos.core.ids import Offset, PrincipalId
    from angelos.core.permissions import Principal

log = logging.getLogger(__name__)
_ENDS = (Kind.principal_ended, Kind.principal_quarantined, Kind.token_revoked)
_DEPARTURES = frozenset({EndCause.removed, EndCause.demoted, EndCause.quarantined})
"""What ends a person's kernels; who signs out finds them again."""
_RETRY_S = 1.0
_KEEP = 10_000
"""How many ends are remembered, for sockets that are just being opened."""


class Presence:
    """The WebSockets that are open, by person."""

    def __init__(self) -> None:
        self.changed_at = -math.inf
        """When somebody's rights last ended (`time.monotonic`); an older look-up is stale."""
        self._open: dict[PrincipalId, WeakKeyDictionary[WebSocketHandler, Principal]] = {}
        self._generation: dict[PrincipalId, int] = {}
        self._stopped_at: dict[str, float] = {}
        """By quarantined principal or revoked token."""
        self.departed: list[Callable[[PrincipalId], object]] = []
        """Called with each person who may no longer act; what they have elsewhere ends, too."""

    def enter(self, principal: Principal, socket: WebSocketHandler, since: float) -> bool:
        """Record the WebSocket of a person who was looked up after `since` (`time.monotonic`).

        Returns:
            False if what they were looked up by is over: then it must not be opened.
        """
        if principal.generation < self._generation.get(principal.id, 0):
            return False
        for stopped in (principal.id, principal.session):
            if self._stopped_at.get(stopped, -math.inf) >= since:
                return False
        self._open.setdefault(principal.id, WeakKeyDictionary())[socket] = principal
        if principal.expires_at is not None:
            left = max(0.0, principal.expires_at - time.time())
            asyncio.get_running_loop().call_later(left, _expire, ref(socket))
        return True

    def take(self, fact: Fact) -> None:
        """Close the sockets that a fact ends; one that is just being opened closes once it is."""
        self.changed_at = time.monotonic()
        person = cast("PrincipalId", fact.subject)
        match fact.payload():
            case PrincipalEnded(generation=generation):
                _remember(self._generation, person, generation)
                self._close(person, lambda p: p.generation < generation, fact.outcome or "over")
                if fact.outcome in _DEPARTURES:
                    self._depart(person)
            case TokenRevoked(token=token):
                _remember(self._stopped_at, token, self.changed_at)
                self._close(person, lambda p: p.session == token, "signed in by a revoked token")
            case _:
                _remember(self._stopped_at, person, self.changed_at)
                self._close(person, lambda _: True, "quarantined")
                self._depart(person)

    def _depart(self, person: PrincipalId) -> None:
        for depart in self.departed:
            depart(person)

    def _close(self, person: PrincipalId, ends: Callable[[Principal], bool], verb: str) -> None:
        sockets = self._open.get(person, {})
        over = [socket for socket, principal in list(sockets.items()) if ends(principal)]
        for socket in over:
            del sockets[socket]
            _dismiss(socket, f"{person} was {verb}.")
        if not sockets:
            self._open.pop(person, None)
        if over:
            log.warning("%s was %s; connections closed: %d", person, verb, len(over))

    async def watch(self, journal: Any, after: Offset) -> None:
        """Close the WebSockets that a fact after `after` ends, for ever.

        Read `after` before anybody can connect, so that no end is overlooked.
        """
        while True:
            try:
                async with aclosing(cast("Any", journal.follow(after, _ENDS))) as facts:
                    async for fact in facts:
                        after = fact.offset
                        self.take(fact)
            except (AngelError, OSError) as error:
                log.warning("The journal cannot be followed for removals; trying again: %s", error)
            except Exception:  # without this task, removed people would stay connected
                log.exception("The journal cannot be followed for removals; trying again")
            await asyncio.sleep(_RETRY_S)


def _remember(ends: dict[Any, Any], key: Any, value: float) -> None:
    """Keep the newest end of a principal or token; the oldest of too many are dropped."""
    ends.pop(key, None)
    ends[key] = value
    while len(ends) > _KEEP:
        del ends[next(iter(ends))]


def _expire(socket: ReferenceType[WebSocketHandler]) -> None:
    handler = socket()
    if handler is not None:
        _dismiss(handler, "The token has expired.")


def _dismiss(socket: WebSocketHandler, reason: str) -> None:
    """Close a WebSocket and ignore its client from now on.

    Tornado waits a few seconds for the other end's goodbye, and goes on reading meanwhile.
    """

    def refuse(*_: object, **__: object) -> None:
        socket.close(REFUSED, reason)

    socket.open = refuse  # type: ignore[method-assign] - of this one alone
    socket.on_message = lambda message: None  # type: ignore[method-assign]  # noqa: ARG005
    refuse()
