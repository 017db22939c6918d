"""Transactions on `dev`: merge, revert and rollback, each carried out exactly once.

The steps of a transaction, and what a crash after each of them leaves:

 1. the live edits of the documents are committed under their       (nothing of the transaction)
    own author
 2. the transaction itself is stored                                (it is carried out at the next
                                                                     start, if it still applies:
                                                                     see `recovery`)
 3. its updates are applied and logged, all or none                 (likewise; an update that is in
                                                                     the log is not logged again)
 4. one database transaction: contents, states, snapshots, the      (likewise, from step 5 on)
    commit of dev, branches by compare-and-set, the proposal's
    status, facts into the outbox, end of the transaction
 5. outbox to the journal (deduplicated by fact id), log trimmed,   (done again at the next start)
    open rooms and working files brought up to date

Steps 1 to 4 run under the locks of the documents, so a keystroke is either part of the commit of
live edits or comes after the transaction's own commit, and is never lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import recovery
from angelos.angelgit.changes.commits import CommitWriter
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import Manifest, PathChange, Transaction
from angelos.angelgit.storage.store import Store
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.errors import InvalidInput, Tampered, TooLarge
from angelos.core.ids import DocumentId, Revision
from angelos.core.ports import LiveDocuments
from angelos.core.revision import SignedCommit

log = logging.getLogger(__name__)
_DELETED = "This file was deleted. Copy what you need, then reload."


class Transactions:
    """Carries transactions out, exactly once, across failures and restarts."""

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        commits: CommitWriter,
        outbox: FactOutbox,
        writer: WorktreeWriter,
        rooms: LiveDocuments | None,
    ) -> None:
        self._database = database
        self._live = live
        self._commits = commits
        self._outbox = outbox
        self._writer = writer
        self._rooms = rooms
        self._unfinished: set[str] = set()
        """Repositories that may have a transaction which has begun and not ended."""
        self._logged: dict[str, Transaction] = {}
        """Transactions of this process whose updates are logged and not yet published."""
        self._locks: dict[str, asyncio.Lock] = {}

    def branch_lock(self, repo: str) -> asyncio.Lock:
        """Return the lock under which the branches of a repository move."""
        return self._locks.setdefault(repo, asyncio.Lock())

    def documents_to_lock(self, repo: str, paths: Sequence[PathChange]) -> set[str]:
        """Return the documents of a transaction and those with uncommitted live edits."""
        return {p.document for p in paths} | self._live.index.dirty(repo)

    async def begin(
        self, transaction: Transaction, main: tuple[SignedCommit, Manifest] | None = None
    ) -> None:
        """Store a transaction (step 2), and the commit that `main` will advance to, if any."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            if main is not None:
                await store.add_commit(*main)
            await store.add_transaction(transaction)
        # From here on it will be carried out: by us, or by `recover` before the next one.
        self._unfinished.add(transaction.repo)

    async def execute(self, transaction: Transaction) -> Revision:
        """Do steps 3 and 4 under the documents' locks; return the commit of `dev`.

        Raises:
            InvalidInput: an update cannot be applied; the transaction is removed.
            Tampered: a stored state has changed; the transaction is removed.
            TooLarge: a document would become too large; the transaction is removed.
            Unavailable: a store does not answer; the transaction is carried out later.
        """
        updates = {p.document: (p.path, p.update) for p in transaction.paths if p.update}
        try:
            await self._live.append(
                transaction.repo, updates, cause=transaction.id, author=transaction.author
            )
        except (InvalidInput, Tampered, TooLarge):
            # It can never be carried out, and nothing of it was logged.
            async with self._database.transaction() as conn:
                await Store(conn).end_transaction(transaction)
            raise
        self._logged[transaction.id] = transaction
        try:
            revision, snapshots = await self._commits.commit_transaction(transaction)
        except BaseException:
            self._live.drop(p.document for p in transaction.paths)
            raise
        await self._commits.mark_committed(transaction.repo, snapshots)
        return revision

    async def publish(self, transaction: Transaction) -> None:
        """Bring rooms, working files and the journal up to date (step 5), without any lock."""
        for path in transaction.paths:
            await self._publish_path(transaction.repo, path)
        self._unfinished.discard(transaction.repo)
        self._logged.pop(transaction.id, None)
        await self._outbox.flush()

    async def _publish_path(self, repo: str, change: PathChange) -> None:
        row = self._live.index.rows.get(change.document)
        if row is None:
            return
        if self._live.index.paths(repo).get(row.path) != change.document:
            await self._close_room(change)
            if not self._live.index.exists(repo, change.path):
                await self._writer.remove_deleted(repo, [row])
            return
        if self._rooms is not None and change.update:
            # The room hands the same update back to `ingest`, which needs the document's lock and
            # logs nothing, because the replica contains it.
            try:
                if await self._rooms.apply(DocumentId(row.id), change.update):
                    return  # the room saves its own file
            except Exception:
                log.exception("the open room of %s/%s did not take an update", repo, row.path)
        await self._writer.try_write(repo, row.path)

    async def _close_room(self, change: PathChange) -> None:
        """Close the room of a deleted document: what is typed there could not be kept."""
        if self._rooms is not None:
            try:
                await self._rooms.close(DocumentId(change.document), _DELETED)
            except Exception:
                log.exception("the open room of %s was not closed", change.path)

    # -- recovery ----------------------------------------------------------------------------

    def expect_unfinished(self, repo: str) -> None:
        """Let `recover` look into the store, as after a start."""
        self._unfinished.add(repo)

    async def recover(self, repo: str) -> None:
        """Carry out the transactions that have begun and not ended.

        The store decides which these are, not this process: the answer to a commit may have been
        lost, and then the transaction has ended.
        """
        if repo not in self._unfinished:
            return
        await self._live.index.load(repo)
        async with self._database.transaction() as conn:
            unfinished = await Store(conn).transactions(repo)
        for begun in unfinished:
            locked = self.documents_to_lock(repo, begun.paths)
            async with self._live.lock(locked):
                transaction = await self._recheck(begun, locked)
                if transaction is not None:
                    await self.execute(transaction)
            if transaction is not None:
                await self.publish(transaction)
        for transaction in [t for t in self._logged.values() if t.repo == repo]:
            await self.publish(transaction)
        self._unfinished.discard(repo)

    async def _recheck(self, begun: Transaction, locked: set[str]) -> Transaction | None:
        """Return a transaction as it is to be carried out now; None if it was removed."""
        if begun.id in self._logged:
            return self._logged[begun.id]
        if await recovery.is_logged(self._live, begun):
            return begun
        await self._commits.commit_live_edits(begun.repo, locked)
        async with self._database.transaction() as conn:
            store = Store(conn)
            transaction = await recovery.recheck(store, self._live, begun)
            if transaction is None:
                log.warning("%s was cut off and no longer applies: removed", begun.id)
                await store.end_transaction(begun)
        return transaction

    async def remove_deleted_files(self, repo: str) -> None:
        """Remove the working files of deleted documents, unless somebody has changed them."""
        deleted = [
            row
            for row in self._live.index.rows.values()
            if row.repo == repo and not row.alive and not self._live.index.exists(repo, row.path)
        ]
        await self._writer.remove_deleted(repo, deleted)
