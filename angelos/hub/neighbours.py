"""Who is connected to the other hubs on the same stores, so that labels find peers of all hubs.

Each hub announces its peers once a second, and hears those of the others. The destination of a
message is chosen among all; its queue is shared, so the hub that has the peer delivers.

    neighbours = Neighbours(announcements, "https://10.0.0.1:7443", sessions.local)
    background.start(neighbours.run(), "peers of other hubs")
    choose("gpu", "", [*sessions.local(), *neighbours.peers()])
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.node_profile import is_label
from angelos.core.ports import Announcements
from angelos.hub.routing import ConnectedPeer

log = logging.getLogger(__name__)
EVERY_S = 1.0


class _Row(NamedTuple):
    principal: str
    labels: str
    load: int
    subprotocol: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Row]).decode


class Neighbours:
    """The peers of other hubs, as of about a second ago.

    Args:
        announcements: What all hubs say.
        hub: The name of this one: its address.
        local: Returns the peers of this hub.
    """

    def __init__(
        self, announcements: Announcements, hub: str, local: Callable[[], list[ConnectedPeer]]
    ) -> None:
        self._announcements = announcements
        self._hub = hub
        self._local = local
        self._peers: dict[PrincipalId, ConnectedPeer] = {}

    def peers(self) -> list[ConnectedPeer]:
        """Return the peers of the other hubs."""
        return list(self._peers.values())

    async def run(self) -> None:
        """Announce and listen for ever; without the store, what was heard last is all there is."""
        try:
            while True:
                with contextlib.suppress(Unavailable):
                    await self.refresh()
                await asyncio.sleep(EVERY_S)
        finally:
            with contextlib.suppress(Unavailable):
                await self._announcements.withdraw(self._hub)

    async def refresh(self) -> None:
        """Announce and listen once."""
        local = self._local()
        rows = [_Row(p.principal, ",".join(sorted(p.labels)), p.load, p.subprotocol) for p in local]
        heard = await self._announcements.announce(self._hub, _encode(rows))
        here = {peer.principal for peer in local}
        self._peers = {
            peer.principal: peer
            for hub, body in sorted(heard.items())
            for peer in _peers_of(hub, body)
            if peer.principal not in here
        }


def _peers_of(hub: str, body: bytes) -> list[ConnectedPeer]:
    """Return what a hub says; what is not well formed is left out."""
    try:
        rows = _decode(body)
        return [
            ConnectedPeer(
                PrincipalId(row.principal),
                frozenset(filter(is_label, row.labels.split(","))),
                max(0, row.load),
                row.subprotocol,
                hub,
            )
            for row in rows
            if is_principal(row.principal)
        ]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.warning("What %s announces cannot be read: %s", hub[:100], error)
        return []
