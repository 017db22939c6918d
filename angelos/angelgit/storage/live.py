"""The live documents of `dev`: replicas in memory, a lock for each, and the log behind them.

An update from a room is in the log before `ingest` returns. Replicas are used only under their
document's lock; after any error a replica is dropped and replayed from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from msgspec import structs

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.replica import IngestedUpdate, Replica
from angelos.angelgit.merge.three_way import merged_text
from angelos.angelgit.storage.index import DocumentIndex
from angelos.angelgit.storage.log import DocumentLog, LogEntry
from angelos.angelgit.storage.models import DocumentRow, UnloggedUpdate, sha256
from angelos.angelgit.storage.remains import CellRemains
from angelos.angelgit.storage.store import Snapshot, Store, Stores
from angelos.angelgit.storage.writers import Writers
from angelos.angelgit.threads import in_thread
from angelos.core.errors import AngelError, NotFound, Tampered, TooLarge
from angelos.core.ids import START, PrincipalId
from angelos.core.revision import MAX_FILE_BYTES

log = logging.getLogger(__name__)
_REPLICAS = 256
"""The most documents that stay in memory."""
_COMPACT_AFTER = 1_000
"""How many logged updates of one document lead to a snapshot, ..."""
_COMPACT_BYTES = 64_000
"""... or how many bytes of them, or as many as the document's state has."""


class LiveReplicas:
    """All documents of all repositories' `dev`."""

    def __init__(self, stores: Stores, document_log: DocumentLog) -> None:
        self.log = document_log
        self.index = DocumentIndex(stores)
        self.writers = Writers(stores)
        self.remains = CellRemains(stores)
        self._stores = stores
        self._replicas: OrderedDict[str, Replica] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._logged: Counter[str] = Counter()
        self._logged_bytes: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}

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
        return (await self.replicas(repo, {document: path}))[document]

    async def replicas(
        self, repo: str, documents: Mapping[str, str], store: Store | None = None
    ) -> dict[str, Replica]:
        """Return the replicas of documents (id -> path), whose locks the caller holds.

        However many of them are not in memory, their snapshots are read in one transaction: the
        caller's, or one of their own.
        """
        missing = [document for document in documents if document not in self._replicas]
        if missing:
            own = self._stores.begin() if store is None else contextlib.nullcontext(store)
            async with own as reading:
                snapshots = await reading.snapshots(missing)
            for document in missing:
                await self._load(repo, document, documents[document], snapshots.get(document))
        replicas: dict[str, Replica] = {}
        for document in documents:
            self._replicas.move_to_end(document)
            replicas[document] = self._replicas[document]
        self._evict()
        return replicas

    async def _load(self, repo: str, document: str, path: str, snapshot: Snapshot | None) -> None:
        """Replay a document from its snapshot and the log behind it."""
        state, upto, digest = snapshot or Snapshot(crdt.EMPTY, START, "")
        replica = await in_thread(len(state), Replica, path, state, upto)
        if snapshot and sha256(replica.text().encode()) != digest:
            raise Tampered(f"The snapshot of {repo}/{path} does not replay to what it covers.")
        self._logged[document] = self._logged_bytes[document] = 0
        self._sizes[document] = len(state)
        async for position, update in self.log.read(repo, document, replica.upto):
            replica.apply(update)
            replica.upto = position
            self._count(document, update)
            self.index.mark_dirty(repo, document)
        self._replicas[document] = replica

    def drop(self, ids: Iterable[str]) -> None:
        """Drop replicas that may hold updates that are not in the log."""
        for document in ids:
            self._replicas.pop(document, None)

    async def forget(self, ids: Iterable[str]) -> None:
        """Forget documents that another server has now."""
        for document in ids:
            async with self.lock([document]):
                self.drop([document])
                self.writers.forget(document)
                self.remains.forget(document)

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

    async def ingest(self, document: str, update: bytes, writer: PrincipalId) -> tuple[int, bytes]:
        """Log an update from a room, and what its document needs beside it.

        Returns:
            How many bytes were new, and the update that rooms have to apply behind it.
        """
        if len(update) > MAX_FILE_BYTES:
            raise TooLarge(f"An update of {len(update)} bytes is too large for a document.")
        async with self.lock_document(document) as row:
            await self._claim(row, update, writer)
            try:
                ingested = await self._ingest(row, update, writer)
            except BaseException:
                self.drop([document])  # it may be ahead of the log now
                raise
            if ingested.new is None and not ingested.extra:
                return 0, b""
            person = writer if writer.startswith("person/") else None
            self.index.mark_dirty(row.repo, document, person)
            if self.needs_snapshot(document):
                await self._compact(row.repo, document)
            return len(ingested.new or ingested.extra), ingested.extra

    async def _ingest(self, row: DocumentRow, update: bytes, writer: PrincipalId) -> IngestedUpdate:
        replica = await self.replica(row.repo, row.id, row.path)
        remains = await self.remains.of(row.id)
        ingested = replica.ingest(update, remains, writer, merged_text)
        if ingested.new is None and not ingested.extra:
            return ingested
        await self.remains.add(row.repo, row.id, ingested.deleted)
        entries = [LogEntry(row.id, ingested.new, cause="room")] if ingested.new else []
        if ingested.extra:
            with crdt.guarded(row.path):
                clients = crdt.clients_of(ingested.extra)
            await self.writers.record(row.repo, {row.id: clients.keys()}, writer)
            entries.append(LogEntry(row.id, ingested.extra, cause="carry"))
        positions = await self.log.append(row.repo, entries)
        for entry, position in zip(entries, positions, strict=True):
            replica.upto = position
            self._count(row.id, entry.update)
        await self.remains.update(row.repo, row.id, ingested.changed)
        return ingested

    async def _claim(self, row: DocumentRow, update: bytes, writer: PrincipalId) -> None:
        """Refuse an update with new edits in another's name, or of another document."""
        owners = await self.writers.of(row.id)
        with crdt.guarded(row.path):
            sent = crdt.clients_of(update)
        if any(owners.get(client) != writer for client in sent):
            replica = await self.replica(row.repo, row.id, row.path)
            await self.writers.claim(row, replica.new_clients(update), writer)

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
                    clients = replica.new_clients(update)
                    await self.writers.record(repo, {document: clients}, author)
                deleted = replica.doomed_cells(update)
                part = replica.apply(update)
                await self.remains.add(repo, document, deleted)
                if part is not None:
                    new[document] = part
            entries = [LogEntry(document, update, cause) for document, update in new.items()]
            positions = await self.log.append(repo, entries) if entries else []
            for entry, position in zip(entries, positions, strict=True):
                self._replicas[entry.document].upto = position
                self._count(entry.document, entry.update)
        except BaseException:
            # The replicas are ahead of the log now, or behind it if only the answer was lost.
            self.drop(updates)
            raise
        return new

    async def append_committed(self, repo: str, updates: Sequence[UnloggedUpdate]) -> None:
        """Log updates that are committed; those that are logged already change nothing.

        The caller holds the documents' locks.
        """
        if updates:
            await self.replicas(repo, {u.document: u.path for u in updates})
            rows = {u.document: (u.path, u.update) for u in updates}
            await self.append(repo, rows, cause="commit")

    def rewind(self, repo: str, document: str) -> None:
        """Note that the snapshot of a document, whose lock is held, contains all there was."""
        row = self.index.rows[document]
        self.index.update(repo, [structs.replace(row, upto=START)])
        if (replica := self._replicas.get(document)) is not None:
            replica.upto = START

    def needs_snapshot(self, document: str) -> bool:
        """Return whether the log of a document is long enough for a snapshot."""
        replica = self._replicas.get(document)
        if replica is None or replica.deferred:
            return False
        bound = max(_COMPACT_BYTES, self._sizes.get(document, 0))
        return self._logged[document] >= _COMPACT_AFTER or self._logged_bytes[document] >= bound

    async def snapshot(self, document: str) -> Snapshot:
        """Return a document as it is now, verified by a replay; the caller holds its lock."""
        replica = self._replicas[document]
        text, state = replica.text(), replica.state()
        await in_thread(len(state), crdt.verify, replica.path, state, text)
        return Snapshot(state, replica.upto, sha256(text.encode()))

    async def compacted(self, repo: str, snapshots: Mapping[str, Snapshot]) -> None:
        """Bring rows and log up to date with committed snapshots."""
        rows = []
        for document, snapshot in snapshots.items():
            row = self.index.rows[document]
            rows.append(structs.replace(row, upto=snapshot.upto, sha256=snapshot.sha256))
            self._logged[document] = self._logged_bytes[document] = 0
            self._sizes[document] = len(snapshot.state)
        self.index.update(repo, rows)
        await self.trim(repo, list(snapshots))

    async def _compact(self, repo: str, document: str) -> None:
        """Take a snapshot between commits, which bounds the time of a replay."""
        try:
            snapshot = await self.snapshot(document)
            async with self._stores.change(repo) as store:
                await store.put_snapshots({document: snapshot})
        except AngelError as error:
            log.warning("no snapshot of document %s of %s: %s", document, repo, error)
            return
        await self.compacted(repo, {document: snapshot})

    def _count(self, document: str, update: bytes) -> None:
        self._logged[document] += 1
        self._logged_bytes[document] += len(update)

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
