"""Connections and dead letters of the hub.

For example:

    for letter in await angelos.hub.dead_letters():
        await angelos.hub.replay(letter.destination, [letter.position])
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.client.transport import Transport
from angelos.core import api
from angelos.core.errors import NotFound

_ALL = 1_000


class HubTraffic:
    """Who is connected, and what could not be delivered: `angelos.hub`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def peers(self) -> tuple[api.PeerView, ...]:
        """Return who is connected.

        Raises:
            Forbidden: The caller may not read nodes.
        """
        return (await self._transport.call("GET", "/hub/peers", api.PeerList)).peers

    async def dead_letters(
        self, destination: str = "", limit: int = 100
    ) -> tuple[api.DeadLetterView, ...]:
        """Return dead letters, oldest first.

        Args:
            destination: Whose; everybody's if empty.
            limit: At most so many.

        Raises:
            Forbidden: The caller may not read them.
        """
        query = {"destination": destination, "limit": limit}
        answer = await self._transport.call(
            "GET", "/hub/dead-letters", api.DeadLetterList, query=query
        )
        return answer.letters

    async def dead_letter(self, destination: str, position: str) -> api.DeadLetterView:
        """Return one dead letter.

        Raises:
            NotFound: There is none at that position.
        """
        for letter in await self.dead_letters(destination, _ALL):
            if letter.position == position:
                return letter
        raise NotFound(f"{destination} has no dead letter at {position}.")

    async def replay(self, destination: str, positions: Sequence[str]) -> int:
        """Put dead letters into their queue again and return how many; unreadable ones stay.

        Raises:
            Busy: There is no room for all of them; none was put.
        """
        return await self._change("replay", destination, positions)

    async def drop(self, destination: str, positions: Sequence[str]) -> int:
        """Forget dead letters for good and return how many there were."""
        return await self._change("drop", destination, positions)

    async def _change(self, verb: str, destination: str, positions: Sequence[str]) -> int:
        body = api.DeadLetterPositions(destination=destination, positions=tuple(positions))
        path = f"/hub/dead-letters/{verb}"
        return (await self._transport.call("POST", path, api.LetterCount, body=body)).count
