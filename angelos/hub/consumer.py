"""The consumer of one peer's queue: envelopes go down to the peer, and are settled by position.

consumer = QueueConsumer(queue, link, holder="hub-1 session")
await consumer.run()                     # until the link ends or another hub takes over
await consumer.settle([Settle(("17-8",))])
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

from angelos.adapters.net.link import Link
from angelos.core.errors import Fenced, TooLarge, Unavailable
from angelos.core.fencing import FencingToken
from angelos.core.frames import Dispatch, EndCode, Settle
from angelos.core.ids import Offset
from angelos.core.ports import EnvelopeQueue

log = logging.getLogger(__name__)


class QueueConsumer:
    """Takes from the queue of the link's peer, as its one consumer.

    Args:
        queue: Of all destinations.
        link: To the peer.
        holder: This life of this session.
    """

    def __init__(self, queue: EnvelopeQueue, link: Link, holder: str) -> None:
        self._queue = queue
        self._link = link
        self._holder = holder
        self._token: FencingToken | None = None
        self._open: set[Offset] = set()

    @property
    def load(self) -> int:
        """How many envelopes are with the peer, not settled."""
        return len(self._open)

    async def run(self) -> None:
        """Send what is in the queue, oldest first, until the link has ended."""
        self._token = await self._queue.claim(self._link.peer, self._holder)
        deliveries = self._queue.take(self._token)
        try:
            async with aclosing(cast("Any", deliveries)):
                async for delivery in deliveries:
                    self._open.add(delivery.position)
                    await self._send(
                        Dispatch(
                            delivery.position,
                            delivery.attempt,
                            delivery.envelope.header,
                            delivery.envelope.body,
                        )
                    )
        except Fenced as error:
            log.info("The queue of %s has another consumer: %s", self._link.peer, error)
            self._link.end(EndCode.fenced, "Another hub has a newer connection of this peer.")
        except Unavailable:
            if self._link.ended is None:
                raise

    async def _send(self, dispatch: Dispatch) -> None:
        try:
            await self._link.send((dispatch,), more=True)
        except TooLarge as error:  # `put` refuses what no frame holds: another writer put it
            assert self._token is not None  # noqa: S101 - claimed by `run`
            self._open.discard(Offset(dispatch.position))
            await self._queue.nack(self._token, Offset(dispatch.position), error.detail, final=True)

    async def settle(self, settlements: Sequence[Settle]) -> None:
        """Acknowledge or give back what the peer has settled; what it does not have is ignored."""
        if self._token is None:
            return
        done: list[Offset] = []
        for settlement in settlements:
            positions = [Offset(p) for p in settlement.positions if p in self._open]
            self._open.difference_update(positions)
            if settlement.outcome == "done":
                done += positions
                continue
            for position in positions:
                await self._queue.nack(
                    self._token,
                    position,
                    settlement.detail or "no reason given",
                    final=settlement.outcome == "refused",
                )
        if done:
            await self._queue.ack(self._token, done)
