"""The store of a managed document: AngelGit's log.

Every other file keeps Jupyter's own store (SQLite). A `write_as` that has returned is durable.

    store = AngelYStore(address, documents)
    await store.write_as(update, writer)
    [update async for update, _, _ in store.read()]
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from logging import Logger, getLogger

from pycrdt.store import BaseYStore, YDocNotFound

from angelos.core.ids import PrincipalId
from angelos.core.repository import DocumentAddress
from jupyter_ext.live import Documents

ROOM = PrincipalId("system/room")
"""The writer of what a room writes itself: its path and state."""


class AngelYStore(BaseYStore):
    """The updates of one managed document, whatever path it has."""

    def __init__(
        self,
        address: DocumentAddress,
        documents: Documents,
        metadata_callback: Callable[[], Awaitable[bytes] | bytes] | None = None,
        log: Logger | None = None,
    ) -> None:
        self.document = address.document
        self.path = f"{address.repo}/{address.path}"
        self.metadata_callback = metadata_callback
        self.log = log or getLogger(__name__)
        self._documents = documents

    async def write(self, data: bytes) -> None:
        """Store an update of the room's own."""
        await self.write_as(data, ROOM)

    async def write_as(self, data: bytes, writer: PrincipalId) -> bytes:
        """Store an update of a person's; it survives `kill -9` once this has returned.

        Returns:
            An update that AngelGit stored with it, to keep what it brought visible; mostly empty.
        """
        return await self._documents.ingest(self.document, data, writer)

    async def print(self) -> str | None:
        """Have AngelGit write the file from the log; return its SHA-256, None if it has to wait."""
        return await self._documents.write_file(self.document)

    async def read(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """Yield (update, metadata, time) oldest first; raise `YDocNotFound` when there is none.

        AngelGit keeps no time per update here; the audit log does. Times are 0.
        """
        updates = await self._documents.room_updates(self.document)
        if not updates:
            raise YDocNotFound
        for update in updates:
            yield update, b"", 0.0
