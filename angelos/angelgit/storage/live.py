"""The live documents of `dev`: replicas in memory, a lock for each, and the log behind them.

An update from a room is in the log before `ingest` returns. Replicas are used only under their
document's lock; after any error a replica is dropped and replayed from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.replica import Replica
from angelos.angelgit.storage.index import DocumentIndex
from angelos.angelgit.storage.log import DocumentLog, LogEntry
from angelos.angelgit.storage.models import DocumentRow, sha256
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.writers import Writers
from angelos.core.errors import AngelError, NotFound, Tampered, TooLarge
from angelos.core.ids import START, PrincipalId
from angelos.core.revision import MAX_FILE_BYTES

log = logging.getLogger(__name__)
_REPLICAS = 256
"""The most documents that stay in memory."""
_COMPACT_AFTER = 1_000
"""How many logged updates of one document lead to a snapshot."""


class LiveReplicas:
    """All documents of all repositories' `dev`."""

    def __init__(self, database: Database, document_log: DocumentLog) -> None:
        self.log = document_log
        self.index = DocumentIndex(database)
        self.writers = Writers(database)
        self._database = database
        self._replicas: OrderedDict[str, Replica] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._logged: Counter[str] = Counter()

    # -- locks and replicas ------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lock_path(self, repo: str, path: str) -> AsyncIterator[str]:
        """Lock the document at a path and yield its id; raise `NotFound`."""
        document = self.index.document(repo, path)
        async with self.lock([document]):
            # The holder before may have deleted the document, and another may be at the path now.
            if self.index.document(repo, path) != document:
                raise NotFound(f"{path!r} was recreated in dev of {repo!r}; load it again.")
            yield document

    @contextlib.asynccontextmanager
    async def lock_document(self, document: str) -> AsyncIterator[DocumentRow]:
        """Lock a document of `dev` and yield its row; raise `NotFound` if it was deleted."""
        async with self.lock([document]):
            yield self.index.row(document)

    @contextlib.asynccontextmanager
    async def lock(self, ids: Iterable[str]) -> AsyncIterator[None]:
        """Lock documents in a fixed order, so that two callers cannot deadlock."""
        async with contextlib.AsyncExitStack() as stack:
            for document in sorted(set(ids)):
                lock = self._locks.setdefault(document, asyncio.Lock())
                await stack.enter_async_context(lock)
            yield

    async def replica(self, repo: str, document: str, path: str) -> Replica:
        """Return a document's replica, replayed from snapshot and log if it is not in memory.

        The caller holds the document's lock.

        Raises:
            Tampered: the snapshot does not replay to the content that was hashed with it.
        """
        if document in self._replicas:
            self._replicas.move_to_end(document)
            return self._replicas[document]
        row = self.index.rows.get(document)
        if row is None:  # a transaction is creating it, or was when the process was killed
            replica = Replica(path, crdt.EMPTY, START)
        else:
            async with self._database.transaction() as conn:
                state = await Store(conn).blob(row.state)
            replica = Replica(row.path, state, row.upto)
            if sha256(replica.text().encode()) != row.sha256:
                raise Tampered(
                    f"The snapshot of {repo}/{row.path} does not replay to the content it covers."
                )
        self._logged[document] = 0
        async for position, update in self.log.read(repo, document, replica.upto):
            replica.apply(update)
            replica.upto = position
            self._logged[document] += 1
            self.index.mark_dirty(repo, document)
        self._replicas[document] = replica
        self._evict()
        return replica

    def drop(self, ids: Iterable[str]) -> None:
        """Drop replicas that may hold updates that are not in the log."""
        for document in ids:
            self._replicas.pop(document, None)

    def compacted(self, ids: Iterable[str]) -> None:
        """Record that snapshots contain everything logged so far."""
        for document in ids:
            self._logged.pop(document, None)

    async def text(self, repo: str, path: str) -> str:
        """Return the current text of a file of `dev`."""
        async with self.lock_path(repo, path) as document:
            return (await self.replica(repo, document, path)).text()

    # -- rooms -------------------------------------------------------------------------------

    async def updates(self, document: str) -> list[bytes]:
        """Return the updates from which a room builds a document."""
        async with self.lock_document(document) as row:
            replica = await self.replica(row.repo, document, row.path)
            return [replica.state(), *replica.deferred]

    async def ingest(self, document: str, update: bytes, writer: PrincipalId) -> int:
        """Log an update from a room; return how many bytes were new, 0 for none."""
        if len(update) > MAX_FILE_BYTES:
            raise TooLarge(f"An update of {len(update)} bytes is too large for a document.")
        async with self.lock_document(document) as row:
            await self._claim(row, update, writer)
            new = await self.append(row.repo, {document: (row.path, update)}, cause="room")
            if document not in new:
                return 0
            self.index.mark_dirty(row.repo, document)
            if self._logged[document] >= _COMPACT_AFTER:
                await self._compact(row.repo, document)
            return len(new[document])

    async def _claim(self, row: DocumentRow, update: bytes, writer: PrincipalId) -> None:
        """Refuse an update with new edits in another's name, or of another document."""
        owners = await self.writers.of(row.id)
        with crdt.guarded(row.path):
            sent = crdt.clients_of(update)
        if any(owners.get(client) != writer for client in sent):
            replica = await self.replica(row.repo, row.id, row.path)
            await self.writers.claim(row.id, replica.new_clients(update), writer)

    async def append(
        self,
        repo: str,
        updates: dict[str, tuple[str, bytes]],
        cause: str,
        author: PrincipalId | None = None,
    ) -> dict[str, bytes]:
        """Apply and log updates, all or none; return the new part of each.

        Args:
            repo: the repository's name.
            updates: document -> (path, update); the caller holds the documents' locks.
            cause: what the log keeps beside each update.
            author: who is recorded as their writer; None where that is done already.

        Raises:
            InvalidInput: an update cannot be applied.
            Unavailable: the log does not answer. The update may be logged all the same.
        """
        try:
            new: dict[str, bytes] = {}
            for document, (path, update) in updates.items():
                replica = await self.replica(repo, document, path)
                if author is not None:
                    await self.writers.record({document: replica.new_clients(update)}, author)
                part = replica.apply(update)
                if part is not None:
                    new[document] = part
            entries = [LogEntry(document, update, cause) for document, update in new.items()]
            positions = await self.log.append(repo, entries) if entries else []
            for entry, position in zip(entries, positions, strict=True):
                self._replicas[entry.document].upto = position
                self._logged[entry.document] += 1
        except BaseException:
            # The replicas are ahead of the log now, or behind it if only the answer was lost.
            self.drop(updates)
            raise
        return new

    async def _compact(self, repo: str, document: str) -> None:
        """Take a snapshot between commits, which bounds the time of a replay."""
        row, replica = self.index.rows[document], self._replicas[document]
        if replica.deferred:
            return
        try:
            async with self._database.transaction() as conn:
                store = Store(conn)
                row = (await take_snapshot(store, row, replica)).row
        except AngelError as error:
            log.warning("no snapshot of %s/%s: %s", repo, row.path, error)
            return
        self.index.update(repo, [row])
        self.compacted([document])
        await self.trim(repo, [document])

    async def trim(self, repo: str, ids: Iterable[str]) -> None:
        """Remove log entries that committed snapshots contain; a failure only leaves them."""
        for document in ids:
            try:
                await self.log.trim(repo, document, self.index.rows[document].upto)
            except AngelError as error:
                log.warning("the log of %s was not trimmed: %s", document, error)

    def _evict(self) -> None:
        for document in list(self._replicas):
            if len(self._replicas) <= _REPLICAS:
                return
            lock = self._locks.get(document)
            if lock is None or not lock.locked():
                del self._replicas[document]


class Snapshot(msgspec.Struct, frozen=True):
    """A document's row with the content and state that it names."""

    row: DocumentRow
    content: bytes
    state: bytes


async def take_snapshot(store: Store, row: DocumentRow, replica: Replica) -> Snapshot:
    """Store a document's current content and state, verified by a replay, and its row.

    While updates are deferred the row keeps the older snapshot. The new state lacks them
    (`crdt.has_gap`), so the log from the older snapshot on must stay.
    """
    content, state = replica.text().encode(), replica.state()
    crdt.verify(row.path, state, content.decode())
    await store.add_blobs([content, state])
    if not replica.deferred:
        row = msgspec.structs.replace(
            row, state=sha256(state), upto=replica.upto, sha256=sha256(content)
        )
    await store.put_documents([row])
    return Snapshot(row, content, state)
