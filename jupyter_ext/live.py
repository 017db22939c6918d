"""The open rooms of managed documents, and how the repository reaches them.

A managed document has at most one room, registered here from before the room reads its log until
it is stopped. `JupyterLiveDocuments` implements the port `core.ports.LiveDocuments`: AngelGit
passes it an update that is in the log already, and the people in the room see it at once.

    live = JupyterLiveDocuments()
    await live.apply("study", "notes.md", update)  # False: no room is open
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol


class Documents(Protocol):
    """What rooms need of AngelGit (`angelgit/service.py`)."""

    def locate(self, path: str, /) -> tuple[str, str] | Awaitable[tuple[str, str] | None] | None:
        """Return (repository, path) of the document at a path of the workspace, or None."""
        ...

    async def room_updates(self, repo: str, path: str, /) -> list[bytes]:
        """Return every update of the live document, oldest first."""
        ...

    async def ingest(self, repo: str, path: str, update: bytes, /) -> None:
        """Store an update; it is durable once this has returned."""
        ...

    async def write_file(self, repo: str, path: str, /) -> str | None:
        """Make the file and its document the same, losing neither; return the file's SHA-256.

        None while another program is writing the file; then it is done later.
        """
        ...


class Room(Protocol):
    """A room that takes updates from the repository."""

    def take(self, update: bytes) -> None:
        """Apply an update that is in the repository's log already."""
        ...


class JupyterLiveDocuments:
    """Every open room of a managed document by (repository, path)."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[str, str], Room] = {}

    def register(self, repo: str, path: str, room: Room) -> None:
        """Send the updates of a document to `room` from now on."""
        self._rooms[repo, path] = room

    def unregister(self, repo: str, path: str, room: Room) -> None:
        """Remove a room, unless another has replaced it."""
        if self._rooms.get((repo, path)) is room:
            del self._rooms[repo, path]

    def rooms(self) -> list[Room]:
        """Return the rooms that are open now."""
        return list(self._rooms.values())

    async def apply(self, repo: str, path: str, update: bytes) -> bool:
        """Apply a CRDT update to the open room of a document; False when none is open.

        Takes no lock: AngelGit may call with its own lock held, for which a room that is just
        opening may be waiting. Such a room keeps the update until it has read its log.
        """
        room = self._rooms.get((repo, path))
        if room is None:
            return False
        room.take(update)
        return True
