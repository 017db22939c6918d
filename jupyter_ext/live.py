"""The open rooms of managed documents, and how the repository reaches them.

A managed document has at most one room, registered here from before the room reads its log until
it is stopped, by the document's id: a path may get another document. `JupyterLiveDocuments`
implements the port `core.ports.LiveDocuments`: AngelGit passes it an update that is in the log
already, and the people in the room see it at once.

    live = JupyterLiveDocuments()
    await live.apply(document, update)  # False: no room is open
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

from angelos.core.ids import DocumentId, PrincipalId, Revision
from angelos.core.repository import BlobRef, DocumentAddress, TreeEdit


class Documents(Protocol):
    """What rooms need of AngelGit (`angelgit/service.py`)."""

    def locate(self, path: str, /) -> DocumentAddress | Awaitable[DocumentAddress | None] | None:
        """Return the document at a path of the workspace, or None."""
        ...

    async def room_updates(self, document: DocumentId, /) -> list[bytes]:
        """Return every update of the live document, oldest first."""
        ...

    async def ingest(self, document: DocumentId, update: bytes, writer: PrincipalId, /) -> bytes:
        """Store an update of a person's; it is durable once this has returned.

        Returns:
            An update that was stored with it, to be applied behind it; mostly empty.
        """
        ...

    async def write_file(self, document: DocumentId, /) -> str | None:
        """Make the file and its document the same, losing neither; return the file's SHA-256.

        None while another program is writing the file; then it is done later.
        """
        ...

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        ...

    async def files_below(self, repo: str, path: str, /) -> list[str]:
        """Return the files of `dev` at a path and below it."""
        ...

    async def edit_dev(
        self, repo: str, edits: Sequence[TreeEdit], author: PrincipalId, message: str, /
    ) -> Revision:
        """Make, move or delete files of `dev`."""
        ...

    async def put_blob(self, repo: str, content: AsyncIterator[bytes], /) -> BlobRef:
        """Store content that is no document."""
        ...


class Room(Protocol):
    """A room that takes updates from the repository."""

    def take(self, update: bytes) -> None:
        """Apply an update that is in the repository's log already."""
        ...

    def dismiss(self, reason: str) -> None:
        """Close the room for everybody; its document was deleted."""
        ...


class JupyterLiveDocuments:
    """Every open room of a managed document."""

    def __init__(self) -> None:
        self._rooms: dict[DocumentId, Room] = {}

    def register(self, document: DocumentId, room: Room) -> None:
        """Send the updates of a document to `room` from now on."""
        self._rooms[document] = room

    def unregister(self, document: DocumentId, room: Room) -> None:
        """Remove a room, unless another has replaced it."""
        if self._rooms.get(document) is room:
            del self._rooms[document]

    def rooms(self) -> list[Room]:
        """Return the rooms that are open now."""
        return list(self._rooms.values())

    async def apply(self, document: DocumentId, update: bytes) -> bool:
        """Apply a CRDT update to the open room of a document; False when none is open.

        Takes no lock: AngelGit may call with its own lock held, for which a room that is just
        opening may be waiting. Such a room keeps the update until it has read its log.
        """
        room = self._rooms.get(document)
        if room is None:
            return False
        room.take(update)
        return True

    async def close(self, document: DocumentId, reason: str) -> bool:
        """Close the room of a document that was deleted; False when none is open."""
        room = self._rooms.get(document)
        if room is None:
            return False
        room.dismiss(reason)
        return True
