"""The live documents of `dev`: replicas in memory, one lock each, the log before everything.

An update that a room hands over is in the log before `ingest` returns. Whoever holds a
document's lock has it to himself; a replica that met any error is dropped and replayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.documents import documents
from angelos.angelgit.documents.replica import Replica
from angelos.angelgit.storage.log import DocumentLog, LogEntry
from angelos.angelgit.storage.models import sha256
from angelos.angelgit.storage.store import DocumentRow, Store
from angelos.core.errors import AngelError, NotFound, Tampered, TooLarge
from angelos.core.ids import START, Offset, offset_key
from angelos.core.revision import MAX_FILE_BYTES

log = logging.getLogger(__name__)
_REPLICAS = 256
"""So many documents stay in memory."""
_COMPACT_AFTER = 1_000
"""So many logged updates of one document lead to a snapshot."""


class LiveReplicas:
    """All documents of all repositories' `dev`."""

    def __init__(self, database: Database, document_log: DocumentLog) -> None:
        """Take the stores."""
        self.log = document_log
        self.dirty: dict[str, set[str]] = {}
        """Repository -> documents that were edited since the last commit of `dev`."""
        self.rows: dict[str, DocumentRow] = {}
        self._database = database
        self._paths: dict[str, dict[str, str]] = {}
        self._replicas: OrderedDict[str, Replica] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._logged: Counter[str] = Counter()

    # -- which documents there are -----------------------------------------------------------

    async def load(self, repo: str) -> None:
        """Read a repository's documents from the store."""
        async with self._database.transaction() as conn:
            rows = await Store(conn).documents(repo)
        # A snapshot may have been taken since the rows were read, and its log trimmed.
        known = (self.rows.get(row.id) for row in rows)
        newer = {k.id for k, r in zip(known, rows, strict=True) if k and later(k.upto, r.upto)}
        self.update(repo, [row for row in rows if row.id not in newer])

    def update(self, repo: str, rows: Iterable[DocumentRow]) -> None:
        """Take over rows that were committed."""
        paths = self._paths.setdefault(repo, {})
        self.dirty.setdefault(repo, set())
        rows = list(rows)
        for row in rows:
            self.rows[row.id] = row
            if not row.alive and paths.get(row.path) == row.id:
                del paths[row.path]
        paths.update((row.path, row.id) for row in rows if row.alive)

    def has(self, repo: str, path: str) -> bool:
        """Tell whether `dev` has a file."""
        return path in self._paths.get(repo, {})

    def paths(self, repo: str) -> dict[str, str]:
        """Return path -> document of the files in `dev`."""
        return dict(self._paths.get(repo, {}))

    def document(self, repo: str, path: str) -> str:
        """Return the document at a path of `dev`; raise `NotFound`."""
        try:
            return self._paths[repo][path]
        except KeyError:
            raise NotFound(f"There is no file {path!r} in dev of repository {repo!r}.") from None

    @contextlib.asynccontextmanager
    async def hold_path(self, repo: str, path: str) -> AsyncIterator[str]:
        """Have the document at a path to oneself; raise `NotFound`, also if it went meanwhile."""
        document = self.document(repo, path)
        async with self.hold([document]):
            # Whoever had it before may have deleted it: then this is for nobody to see.
            if self.document(repo, path) != document:
                raise NotFound(f"{path!r} was made anew in dev of {repo!r}; load it again.")
            yield document

    # -- replicas ----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def hold(self, ids: Iterable[str]) -> AsyncIterator[None]:
        """Have documents to oneself; always taken in one order, so nobody waits in a circle."""
        async with contextlib.AsyncExitStack() as stack:
            for document in sorted(set(ids)):
                lock = self._locks.setdefault(document, asyncio.Lock())
                await stack.enter_async_context(lock)
            yield

    async def replica(self, repo: str, document: str, path: str) -> Replica:
        """Return a document, replayed from snapshot and log if need be; its lock is held."""
        if document in self._replicas:
            self._replicas.move_to_end(document)
            return self._replicas[document]
        row = self.rows.get(document)
        if row is None:  # it is being made, or was when we were killed
            made = Replica(path, documents.EMPTY, START)
        else:
            async with self._database.transaction() as conn:
                state = await Store(conn).blob(row.state)
            made = Replica(row.path, state, row.upto)
            if sha256(made.text().encode()) != row.sha256:
                raise Tampered(
                    f"The snapshot of {repo}/{row.path} does not replay to the content it covers."
                )
        self._logged[document] = 0
        async for position, update in self.log.read(repo, document, made.upto):
            made.apply(update)
            made.upto = position
            self._logged[document] += 1
            self.dirty.setdefault(repo, set()).add(document)
        self._replicas[document] = made
        self._evict()
        return made

    def drop(self, ids: Iterable[str]) -> None:
        """Forget replicas that may hold what is not in the log."""
        for document in ids:
            self._replicas.pop(document, None)

    def compacted(self, ids: Iterable[str]) -> None:
        """Note that snapshots cover everything logged so far."""
        for document in ids:
            self._logged.pop(document, None)

    async def text(self, repo: str, path: str) -> str:
        """Return a file of `dev` as it is this moment."""
        async with self.hold_path(repo, path) as document:
            return (await self.replica(repo, document, path)).text()

    # -- rooms -------------------------------------------------------------------------------

    async def updates(self, repo: str, path: str) -> list[bytes]:
        """Return updates from which a room builds the document."""
        async with self.hold_path(repo, path) as document:
            replica = await self.replica(repo, document, path)
            return [replica.state(), *replica.waiting]

    async def ingest(self, repo: str, path: str, update: bytes) -> int:
        """Take an update from a room; return how many bytes were logged, 0 if all was known."""
        if len(update) > MAX_FILE_BYTES:
            raise TooLarge(f"An update of {path} has {len(update)} bytes.")
        async with self.hold_path(repo, path) as document:
            new = await self.append(repo, {document: (path, update)}, cause="room")
            if document not in new:
                return 0
            self.dirty[repo].add(document)
            if self._logged[document] >= _COMPACT_AFTER:
                await self._compact(repo, document)
            return len(new[document])

    async def append(
        self, repo: str, updates: dict[str, tuple[str, bytes]], cause: str
    ) -> dict[str, bytes]:
        """Apply and log (path, update) by document, all or none; return what was new.

        The replicas run ahead of the log only under their locks, and are dropped if it fails.
        """
        try:
            new: dict[str, bytes] = {}
            for document, (path, update) in updates.items():
                fresh = (await self.replica(repo, document, path)).apply(update)
                if fresh is not None:
                    new[document] = fresh
            entries = [LogEntry(document, update, cause) for document, update in new.items()]
            positions = await self.log.append(repo, entries) if entries else []
            for entry, position in zip(entries, positions, strict=True):
                self._replicas[entry.document].upto = position
                self._logged[entry.document] += 1
        except BaseException:
            self.drop(updates)
            raise
        return new

    async def _compact(self, repo: str, document: str) -> None:
        """Take a snapshot between commits, so that a day of typing replays quickly."""
        row, replica = self.rows[document], self._replicas[document]
        if replica.waiting:
            return
        try:
            async with self._database.transaction() as conn:
                store = Store(conn)
                row = (await snapshot(store, row, replica)).row
        except AngelError as error:
            log.warning("no snapshot of %s/%s: %s", repo, row.path, error)
            return
        self.update(repo, [row])
        self.compacted([document])
        await self.trim(repo, [document])

    async def trim(self, repo: str, ids: Iterable[str]) -> None:
        """Drop log entries that committed snapshots contain; if it fails they are merely kept."""
        for document in ids:
            try:
                await self.log.trim(repo, document, self.rows[document].upto)
            except AngelError as error:
                log.warning("the log of %s was not trimmed: %s", document, error)

    def _evict(self) -> None:
        for document in list(self._replicas):
            if len(self._replicas) <= _REPLICAS:
                return
            lock = self._locks.get(document)
            if lock is None or not lock.locked():
                del self._replicas[document]


def later(one: Offset, other: Offset) -> bool:
    """Tell whether `one` lies behind `other` in the log."""
    return offset_key(one) > offset_key(other)


class Snapshot(msgspec.Struct, frozen=True):
    """A document as a commit takes it."""

    row: DocumentRow
    content: bytes
    state: bytes


async def snapshot(store: Store, row: DocumentRow, replica: Replica) -> Snapshot:
    """Write a document's row with content and state as of now, checked by replaying it.

    With a gap open the row keeps its older snapshot, so that the log after it is kept too.
    """
    content, state = replica.text().encode(), replica.state()
    documents.verified(row.path, state, content.decode())
    await store.add_blobs([content, state])
    if not replica.waiting:
        row = msgspec.structs.replace(
            row, state=sha256(state), upto=replica.upto, sha256=sha256(content)
        )
    await store.put_documents([row])
    return Snapshot(row, content, state)
