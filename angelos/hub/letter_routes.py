"""The hub's routes about traffic: who is connected, and dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from angelos.core.api import (
    DeadLetterList,
    DeadLetterPositions,
    DeadLetterView,
    LetterCount,
    PeerList,
    PeerView,
)
from angelos.core.envelopes import DeadLetter
from angelos.core.errors import InvalidInput
from angelos.core.ids import Offset, PrincipalId, is_offset, is_principal
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route
from angelos.hub.routing import ConnectedPeer

if TYPE_CHECKING:
    from angelos.hub.service import Hub

_SMALL = 65_536
_PREVIEW_BYTES = 256
_MOST = 1_000


def traffic_routes(hub: Hub) -> list[Route]:
    """Return the operations on connections and dead letters."""

    async def peers(call: Call[Nothing]) -> PeerList:
        del call
        return PeerList(peers=tuple(_peer(hub, row) for row in hub.sessions.candidates()))

    return [
        Route(
            "GET",
            "/hub/peers",
            Permission.nodes_read,
            peers,
            response=PeerList,
            summary="Who is connected to the hubs, with labels and load",
        ),
        *_letter_routes(hub),
    ]


def _peer(hub: Hub, row: ConnectedPeer) -> PeerView:
    spending = hub.ledger.of(row.principal)
    return PeerView(
        id=row.principal,
        labels=tuple(sorted(row.labels)),
        load=row.load,
        hub=row.hub or hub.url,
        subprotocol=row.subprotocol,
        items=spending.items,
        bytes=spending.bytes,
        cpu_s=round(spending.cpu_s, 3),
        paused_s=round(spending.paused_s, 3),
    )


def _letter_routes(hub: Hub) -> list[Route]:
    async def letters(call: Call[Nothing]) -> DeadLetterList:
        destination = call.query.get("destination", "")
        rows = await hub.letters.list(_name(destination) if destination else None, _limit(call))
        return DeadLetterList(letters=tuple(_view(name, letter) for name, letter in rows))

    async def replay(call: Call[DeadLetterPositions]) -> LetterCount:
        positions = [Offset(p) for p in call.body.positions if is_offset(p)]
        return LetterCount(count=await hub.letters.replay(_name(call.body.destination), positions))

    async def drop(call: Call[DeadLetterPositions]) -> LetterCount:
        positions = [Offset(p) for p in call.body.positions if is_offset(p)]
        return LetterCount(count=await hub.letters.drop(_name(call.body.destination), positions))

    return [
        Route(
            "GET",
            "/hub/dead-letters",
            Permission.audit_read,
            letters,
            response=DeadLetterList,
            query=("destination", "limit"),
            summary="What could not be delivered or read, with the reason",
        ),
        _change("replay", replay, "Put dead letters into their queue again"),
        _change("drop", drop, "Forget dead letters for good"),
    ]


def _change(
    verb: str, handler: Callable[[Call[DeadLetterPositions]], Awaitable[LetterCount]], summary: str
) -> Route:
    return Route(
        "POST",
        f"/hub/dead-letters/{verb}",
        Permission.principals_quarantine,
        handler,
        request=DeadLetterPositions,
        response=LetterCount,
        max_body=_SMALL,
        summary=summary,
    )


def _name(text: str) -> PrincipalId:
    if not is_principal(text):
        raise InvalidInput(f"{text[:80]!r} is no destination.")
    return PrincipalId(text)


def _limit(call: Call[Nothing]) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidInput(f"limit is a number from 1 to {_MOST}.")
    return int(text)


def _view(destination: PrincipalId, letter: DeadLetter) -> DeadLetterView:
    header = letter.envelope.header if letter.envelope else None
    body = letter.envelope.body if letter.envelope else letter.raw
    return DeadLetterView(
        destination=destination,
        position=letter.position,
        reason=letter.reason,
        detail=letter.detail,
        at=letter.at,
        attempts=letter.attempts,
        source=header.source if header else "",
        envelope=header.id if header else "",
        lane=header.lane if header else "",
        codec=header.codec if header else "",
        size=len(body),
        # A command's body holds its signed grant, which nobody but its node needs.
        preview=b"" if header and header.lane in {"command", "control"} else body[:_PREVIEW_BYTES],
    )
