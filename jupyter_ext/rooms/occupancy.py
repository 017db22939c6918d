"""Who has a place in which room: from before a WebSocket is opened until it is gone.

Jupyter counts those whom a room serves, and that is too late: somebody who is just coming in would
find the room taken away, and type into one that nobody keeps.

    >>> seats = Seats()
    >>> seats.take("text:file:1", "one")
    >>> seats.taken("text:file:1"), seats.taken("text:file:1", but="one")
    (True, False)
    >>> seats.leave("text:file:1", "one")
    >>> seats.taken("text:file:1")
    False
"""

from __future__ import annotations


class Seats:
    """Places by room."""

    def __init__(self) -> None:
        self._taken: dict[str, set[object]] = {}

    def take(self, room_id: str, who: object) -> None:
        """Give `who` a place; to have one already changes nothing."""
        self._taken.setdefault(room_id, set()).add(who)

    def leave(self, room_id: str, who: object) -> None:
        """Take the place back, if there is one."""
        taken = self._taken.get(room_id, set())
        taken.discard(who)
        if not taken:
            self._taken.pop(room_id, None)

    def taken(self, room_id: str, *, but: object = None) -> bool:
        """Tell whether anybody (but one) has a place."""
        return bool(self._taken.get(room_id, set()) - {but})
