"""Messages from peer to peer: who may send what to whom, and what the sender is told.

A peer posts to a principal or to labels; the hub resolves them, establishes the source itself and
puts the envelope into the destination's queue. Commands carry a grant and are control's alone.

    receipt = await posts.put(peer, Post(id="m1", to="agent/bob", lane=Lane.message, ...))
    receipt.code                          # "" taken, "busy" later, "forbidden" never
"""

from __future__ import annotations

import logging
from typing import Protocol

from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.errors import AngelError, Busy, Forbidden
from angelos.core.facts import Fact, MessageRefused
from angelos.core.frames import Post, PostReceipt
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal
from angelos.core.ports import Clock, EnvelopeQueue, Journal

log = logging.getLogger(__name__)
_HUB = PrincipalId("system/hub")
_QUIET_S = 10.0
"""At most one fact of refusal for each sender and code in so many seconds."""
LANES_OF_PEERS = frozenset({Lane.message, Lane.log, Lane.heartbeat, Lane.dashboard})


class Resolver(Protocol):
    """Chooses a destination."""

    async def resolve(self, to: str, sticky: str) -> PrincipalId:
        """Return the principal that `to` names; raise `NotFound` or `InvalidInput`."""
        ...


def check_post(sender: Principal, lane: Lane, destination: PrincipalId) -> None:
    """Raise `Forbidden` unless this principal may send to that one in this lane."""
    if not sender.may(Permission.messages_send):
        raise Forbidden(f"{sender.id} may not send messages.")
    if lane not in LANES_OF_PEERS:
        raise Forbidden(f"{sender.id} may not send in the lane {lane}: that takes a grant.")
    if not destination.startswith(("node/", "agent/")):
        raise Forbidden(f"{destination} has no queue.")


class Posts:
    """Takes posts of peers."""

    def __init__(
        self, queue: EnvelopeQueue, resolver: Resolver, journal: Journal, clock: Clock
    ) -> None:
        self._queue = queue
        self._resolver = resolver
        self._journal = journal
        self._clock = clock
        self._said: dict[tuple[PrincipalId, str], float] = {}

    async def put(self, sender: Principal, post: Post) -> PostReceipt:
        """Put one post into the queue of its destination and return what its sender is told.

        Raises:
            Unavailable: The store does not answer: nothing is known of it, it is sent again.
        """
        try:
            to = await self._resolver.resolve(post.to, post.sticky)
            check_post(sender, post.lane, to)
            header = EnvelopeHeader(
                id=post.id,
                source=sender.id,
                destination=to,
                lane=post.lane,
                sequence=post.sequence,
                codec=post.codec,
                deadline=post.deadline,
                trace=post.trace,
            )
            receipt = await self._queue.put(RoutedEnvelope(header, post.body))
        except Busy as error:
            pause = float(error.extra.get("retry_after_s", 1.0))
            return PostReceipt(
                post.id, error.code, post.to, retry_after_s=pause, detail=error.detail[:500]
            )
        except AngelError as error:
            if error.status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
                raise
            await self._refused(sender.id, post, error)
            return PostReceipt(post.id, error.code, post.to, detail=error.detail[:500])
        return PostReceipt(post.id, "", to, receipt.duplicate, dropped=receipt.dropped)

    async def _refused(self, sender: PrincipalId, post: Post, error: AngelError) -> None:
        """Append the fact of a refusal, unless the same was appended a moment ago."""
        now = self._clock.monotonic()
        if now - self._said.get((sender, error.code), float("-inf")) < _QUIET_S:
            return
        if len(self._said) > 10_000:  # noqa: PLR2004 - senders come and go
            self._said.clear()
        self._said[sender, error.code] = now
        payload = MessageRefused(to=post.to, lane=post.lane, code=error.code, reason=error.detail)
        await self._journal.append(
            [Fact.of(payload, at=self._clock.time(), actor=_HUB, subject=sender)]
        )
