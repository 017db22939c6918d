"""Which clients occupy which room: from before a WebSocket is opened until it is gone.

Jupyter counts the clients that a room serves already. That is too late: a client that is just
connecting would find the room removed, and type into one that is no longer stored.

    >>> occupancy = Occupancy()
    >>> occupancy.enter("text:file:1", "one")
    >>> occupancy.occupied("text:file:1"), occupancy.occupied("text:file:1", but="one")
    (True, False)
    >>> occupancy.leave("text:file:1", "one")
    >>> occupancy.occupied("text:file:1")
    False
"""

from __future__ import annotations


class Occupancy:
    """The clients of each room."""

    def __init__(self) -> None:
        self._clients: dict[str, set[object]] = {}

    def enter(self, room_id: str, client: object) -> None:
        """Add a client to a room. Idempotent."""
        self._clients.setdefault(room_id, set()).add(client)

    def leave(self, room_id: str, client: object) -> None:
        """Remove a client from a room. Idempotent."""
        clients = self._clients.get(room_id, set())
        clients.discard(client)
        if not clients:
            self._clients.pop(room_id, None)

    def occupied(self, room_id: str, *, but: object = None) -> bool:
        """Return whether any client, `but` aside, is in a room."""
        return bool(self._clients.get(room_id, set()) - {but})
