r"""A live document of `dev` in memory: all that its log holds, and whether a gap is open.

replica = Replica("a.txt", state, upto)
new = replica.apply(update)      # None: nothing new, so there is nothing to log
replica.text()
"""

from __future__ import annotations

from typing import Any

from pycrdt import Doc

from angelos.angelgit.documents import documents
from angelos.core.errors import InvalidInput
from angelos.core.ids import Offset

_MAX_WAITING = 256


class Replica:
    """One document; use it only under the document's lock, drop it after any error."""

    def __init__(self, path: str, state: bytes, upto: Offset) -> None:
        """Start from a snapshot's state, which contains the log up to `upto`."""
        self.path = path
        self.upto = upto
        self.waiting: list[bytes] = []
        """Updates of which a part waits for something that has not come (a gap)."""
        self._doc: Doc[Any] = Doc()
        with documents.guarded(path):
            self._doc.apply_update(state)

    def apply(self, update: bytes) -> bytes | None:
        """Apply an update and return what must be logged for it, or None if it held nothing new.

        Without a gap that is exactly what was new (a room hands over whole states when it
        opens); with one it is the update itself, since what waits is in no event.
        """
        with documents.guarded(self.path):
            with documents.recorded(self._doc) as events:
                self._doc.apply_update(update)
            if not documents.waits(update, self._doc.get_state()):
                self._close_gaps()
                return events[0] if len(events) == 1 else (update if events else None)
        if update in self.waiting:
            return None
        if len(self.waiting) >= _MAX_WAITING:
            raise InvalidInput(
                f"{len(self.waiting)} updates of {self.path} wait for one that has not come.",
                hint="Load the document anew.",
            )
        self.waiting.append(update)
        return update

    def holds(self, update: bytes) -> bool:
        """Tell whether everything in `update` is here already; nothing is changed."""
        return documents.holds(self.path, self.state(), update)

    def text(self) -> str:
        """Return the canonical text."""
        with documents.guarded(self.path):
            return documents.read(self.path, self._doc)

    def state(self) -> bytes:
        """Return the full state, without what waits."""
        with documents.guarded(self.path):
            return self._doc.get_update()

    def _close_gaps(self) -> None:
        vector = self._doc.get_state()
        self.waiting = [u for u in self.waiting if documents.waits(u, vector)]
