r"""A live document of `dev` in memory: everything that its log holds.

For example:

    replica = Replica("a.txt", state, upto)
    new = replica.apply(update)      # None: it held nothing new, so nothing is logged
    replica.text()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pycrdt
from pycrdt import Doc

from angelos.angelgit.documents import carry, crdt, yjs
from angelos.angelgit.documents.carry import MergeText, Remains
from angelos.angelgit.documents.repair import repair
from angelos.core.errors import InvalidInput
from angelos.core.ids import Offset, PrincipalId

_MAX_DEFERRED = 256


class IngestedUpdate(NamedTuple):
    """What became of an update from a room."""

    new: bytes | None
    """What must be logged for it; None: nothing was new."""
    extra: bytes = b""
    """What the document was edited by, so that everything in the update is seen."""
    deleted: Sequence[Remains] = ()
    """The cells that were deleted."""
    changed: Sequence[Remains] = ()
    """The deleted cells into which it types."""


class Replica:
    """One document. Use it only under the document's lock, and drop it after any error."""

    def __init__(self, path: str, state: bytes, upto: Offset) -> None:
        self.path = path
        self.upto = upto
        self.deferred: list[bytes] = []
        """Updates that depend in part on another that has not arrived (a gap)."""
        self._unseen: list[bytes] = []
        """What came since a gap: nobody has looked yet whether all of it is seen."""
        self._emitted: list[bytes] = []
        """What the document emitted for that."""
        self._doc: Doc[Any] = Doc()
        with crdt.guarded(path):
            self._doc.apply_update(state)

    def apply(self, update: bytes) -> bytes | None:
        """Apply an update and return what must be logged for it, None if nothing was new.

        Without a gap this is exactly the new part (a room that opens hands over its full state).
        With a gap it is the update itself, because pycrdt emits no event for the deferred part.

        Raises:
            InvalidInput: the bytes are no update, or too many updates are deferred.
        """
        new = self._apply(update)
        if not self.deferred:
            self._unseen, self._emitted = [], []
        return new

    def _apply(self, update: bytes) -> bytes | None:
        waited = bool(self.deferred)
        with crdt.guarded(self.path), crdt.recorded(self._doc) as events:
            self._doc.apply_update(update)
            own = list(events)
            gap = crdt.has_gap(update, self._doc.get_state())
            if gap and update in self.deferred:
                return None
            if gap:
                self._defer(update)
            self._close_gaps()
        if waited or gap:
            self._unseen.append(update)
            self._emitted += events
        if gap:
            return update
        return own[0] if len(own) == 1 else (update if own else None)

    def _defer(self, update: bytes) -> None:
        if len(self.deferred) >= _MAX_DEFERRED:
            raise InvalidInput(
                f"{len(self.deferred)} updates of {self.path} depend on one that is missing.",
                hint="Reload the document.",
            )
        self.deferred.append(update)

    def ingest(
        self, update: bytes, remains: list[Remains], writer: PrincipalId, merge: MergeText
    ) -> IngestedUpdate:
        """Apply an update from a room, and see to it that what it brings is seen.

        Args:
            update: the update.
            remains: those of the document's deleted cells; what is typed there is carried over.
            writer: who made it.
            merge: the line merge.

        Raises:
            InvalidInput: as `apply`.
        """
        if not self.path.endswith(".ipynb"):
            return IngestedUpdate(self.apply(update))
        with crdt.guarded(self.path):
            decoded = yjs.decode(update)
        deleted = self.doomed_cells(update)
        new = self._apply(update)
        if self.deferred:
            return IngestedUpdate(new, deleted=deleted)
        with crdt.guarded(self.path):
            event = yjs.decode(new or crdt.EMPTY)
            if self._unseen:
                decoded = yjs.decode(pycrdt.merge_updates(*self._unseen))
                event = yjs.decode(pycrdt.merge_updates(*self._emitted, crdt.EMPTY))
                self._unseen, self._emitted = [], []
            lost = carry.lost_structs(decoded, event)
            unseen = [one for one in decoded.deleted if one not in event.deleted]
            behind = bool(unseen) and any(one.deleted_from(decoded.deleted) for one in remains)
            changed: list[Remains] = []
            with crdt.recorded(self._doc) as events:
                if decoded.deleted or any(s.kind != yjs.STRING for s in decoded.structs):
                    deleted += self._repair()
                if lost or behind:
                    places = remains + deleted
                    with self._doc.transaction():
                        changed = carry.carry(
                            self._doc, places, lost, decoded.deleted, writer, merge
                        )
                    deleted = places[len(remains) :]
            extra = pycrdt.merge_updates(*events) if events else b""
        return IngestedUpdate(new, extra, deleted, changed)

    def doomed_cells(self, update: bytes) -> list[Remains]:
        """Return the cells that an update, which is not applied yet, deletes."""
        if not self.path.endswith(".ipynb"):
            return []
        with crdt.guarded(self.path):
            return carry.remains_of(self._doc, yjs.decode(update))

    def _repair(self) -> list[Remains]:
        """Set cells right; return those that are deleted for it."""
        with self._doc.transaction():
            return repair(self._doc)

    def new_clients(self, update: bytes) -> set[int]:
        """Return the client ids of the edits in an update that the document does not hold."""
        with crdt.guarded(self.path):
            clocks = crdt.decode_vector(self._doc.get_state())
            sent = crdt.clients_of(update)
            return {client for client, clock in sent.items() if clock > clocks.get(client, 0)}

    def contains(self, update: bytes) -> bool:
        """Return whether everything in `update` is in the document already."""
        return crdt.contains(self.path, self.state(), update)

    def text(self) -> str:
        """Return the canonical text."""
        with crdt.guarded(self.path):
            return crdt.read(self.path, self._doc)

    def state(self) -> bytes:
        """Return the full state, without the deferred updates."""
        with crdt.guarded(self.path):
            return self._doc.get_update()

    def _close_gaps(self) -> None:
        """Apply again what waits, for as long as that brings something.

        pycrdt may go on waiting though what it waits for has come: of 300 random histories in
        another order 51 ended without some of their text.
        """
        before = None
        while self.deferred and before != (before := self._doc.get_state()):
            with crdt.guarded(self.path):
                for update in self.deferred:
                    self._doc.apply_update(update)
            vector = self._doc.get_state()
            self.deferred = [u for u in self.deferred if crdt.has_gap(u, vector)]
