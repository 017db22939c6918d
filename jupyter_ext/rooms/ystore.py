"""The store of a managed document: AngelGit's log.

Every other file keeps Jupyter's own store (SQLite). A `write` that has returned is durable.

    store = AngelYStore("study", "notes.md", documents)
    await store.write(update)
    [update async for update, _, _ in store.read()]
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from logging import Logger, getLogger

from pycrdt.store import BaseYStore, YDocNotFound

from jupyter_ext.live import Documents


class AngelYStore(BaseYStore):
    """The updates of one managed document."""

    def __init__(
        self,
        repo: str,
        path: str,
        documents: Documents,
        metadata_callback: Callable[[], Awaitable[bytes] | bytes] | None = None,
        log: Logger | None = None,
    ) -> None:
        self.repo = repo
        self.path = path
        self.metadata_callback = metadata_callback
        self.log = log or getLogger(__name__)
        self._documents = documents

    async def write(self, data: bytes) -> None:
        """Store an update; it survives `kill -9` once this has returned."""
        await self._documents.ingest(self.repo, self.path, data)

    async def print(self) -> str | None:
        """Have AngelGit write the file from the log; return its SHA-256, None if it has to wait."""
        return await self._documents.write_file(self.repo, self.path)

    async def read(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """Yield (update, metadata, time) oldest first; raise `YDocNotFound` when there is none.

        AngelGit keeps no time per update here; the audit log does. Times are 0.
        """
        updates = await self._documents.room_updates(self.repo, self.path)
        if not updates:
            raise YDocNotFound
        for update in updates:
            yield update, b"", 0.0
