"""Transactions on `dev`: a merge, a revert, a rollback, an advance, each carried out exactly once.

The steps of a transaction, and what a crash after each of them leaves:

 1. one database transaction: what people typed, under their names;  (nothing of the transaction)
    contents, trees and the commit of dev; branches by
    compare-and-set; the proposal's status; the updates of the live
    documents; facts
 2. the updates are appended to the log of the live documents        (done again at the next start,
                                                                      or before the next
                                                                      transaction: an update that
                                                                      is logged changes nothing)
 3. open rooms and working files are brought up to date; facts go    (likewise; the journal
    to the journal (deduplicated by id)                               deduplicates facts)
 4. one database transaction removes updates and facts that arrived, (likewise)
    and stores snapshots of documents whose log has grown long

Steps 1 and 2 run under the locks of the documents, so a keystroke is either part of the commit of
live edits or comes after the transaction's own commit, and is never lost. With the read before it
that makes at most four database transactions, whatever the number of files.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from angelos.angelgit.changes.commits import BranchTip, CommitText, CommitWriter
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.changes.sides import dev_files, entry_of
from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.merge.changes import MergedFiles
from angelos.angelgit.merge.files import FileContent
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    AdvanceCause,
    DocumentRow,
    UnloggedUpdate,
    sha256,
)
from angelos.angelgit.storage.store import Snapshot, Store, Stores
from angelos.angelgit.threads import in_thread
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.errors import Conflict, InvalidInput
from angelos.core.facts import Fact
from angelos.core.ids import DocumentId, PrincipalId, ProposalId, Revision, uuid7
from angelos.core.ports import LiveDocuments
from angelos.core.revision_v2 import EntryMode, TreeEntry

log = logging.getLogger(__name__)
_DELETED = "This file was deleted. Copy what you need, then reload."


class DevChange(NamedTuple):
    """A change of `dev` that is about to be committed."""

    cause: AdvanceCause
    text: CommitText
    merged: MergedFiles
    main: Revision | None = None
    """The revision of `main` that `dev` contains from then on."""
    proposal: ProposalId | None = None


class DocumentChanges(NamedTuple):
    """What becomes of the live documents."""

    placed: list[DocumentRow]
    """Existing documents that move, die, or get another mode."""
    created: list[tuple[DocumentRow, bytes]]
    updates: list[tuple[str, str, bytes]]
    """Document, path and update."""


class Published(NamedTuple):
    """What is to be shown after a transaction."""

    repo: str
    rows: tuple[DocumentRow, ...]
    """As they were before it, and new ones."""
    updates: tuple[UnloggedUpdate, ...]


Record = Callable[[Store, Revision], Awaitable[Sequence[Fact]]]
"""Records in the same database transaction what a commit of `dev` means; returns facts."""


class Transactions:
    """Carries transactions out, exactly once, across failures and restarts."""

    def __init__(
        self,
        stores: Stores,
        live: LiveReplicas,
        commits: CommitWriter,
        outbox: FactOutbox,
        writer: WorktreeWriter,
        rooms: LiveDocuments | None,
    ) -> None:
        self._stores = stores
        self._live = live
        self._commits = commits
        self._outbox = outbox
        self._writer = writer
        self._rooms = rooms
        self._unfinished: set[str] = set()
        """Repositories that may have committed updates which are not logged or not shown."""
        self._locks: dict[str, asyncio.Lock] = {}

    def branch_lock(self, repo: str) -> asyncio.Lock:
        """Return the lock under which the branches of a repository move."""
        return self._locks.setdefault(repo, asyncio.Lock())

    def documents_to_lock(self, repo: str, paths: Collection[str]) -> set[str]:
        """Return the documents at some paths and those with uncommitted live edits."""
        documents = self._live.index.paths(repo)
        touched = {documents[path] for path in paths if path in documents}
        return touched | self._live.index.dirty(repo)

    async def dev_files(
        self, store: Store, repo: str, paths: Collection[str]
    ) -> dict[str, FileContent]:
        """Return the files of `dev` at some paths; the caller holds the documents' locks."""
        return await dev_files(store, self._live, repo, paths)

    async def commit(
        self,
        repo: str,
        change: DevChange,
        current: Mapping[str, FileContent],
        locked: Collection[str],
        record: Record,
    ) -> tuple[Revision, Published]:
        """Do steps 1 and 2; the caller holds the branch and the locks of the documents.

        Args:
            repo: the repository's name.
            change: what is committed.
            current: the files of `dev` that the change was merged with.
            locked: the documents whose locks the caller holds.
            record: what else is recorded.

        Raises:
            InvalidInput: a document cannot hold its new text; nothing was written.
            Unavailable: a store does not answer; if the commit was made, it is shown later.
        """
        documents = await self._document_changes(repo, change.merged, current)
        self._unfinished.add(repo)
        async with self._stores.change(repo) as store:
            dirty = self._live.index.dirty(repo) & set(locked)
            head, facts = await self._commits.commit_typed(store, repo, dirty)
            revision = await self._commit_dev(store, repo, head, change, current)
            await store.add_documents(documents.created)
            await store.place_documents(documents.placed)
            updates = [await store.add_update(repo, *update) for update in documents.updates]
            author, cause = change.text.authors[0], change.cause
            writers = _writers(documents, author)
            await store.add_writers(writers)
            fact = self._commits.branch_fact(
                repo, "dev", head.revision, revision, cause, author, change.proposal
            )
            await store.add_facts([*facts, fact, *await record(store, revision)])
        created = [row for row, _ in documents.created]
        index = self._live.index
        before = tuple(index.rows[row.id] for row in documents.placed)
        edited = tuple(index.rows[document] for document, _, _ in documents.updates)
        index.update(repo, [*documents.placed, *created])
        self._live.writers.remember(writers)
        index.mark_clean(repo, dirty)
        await self._live.append_committed(repo, updates)
        index.mark_clean(repo, [u.document for u in updates])
        shown = tuple({row.id: row for row in (*before, *edited, *created)}.values())
        return revision, Published(repo, shown, tuple(updates))

    async def commit_typed(self, repo: str) -> Revision:
        """Commit what people have typed into all documents; return the head of `dev`."""
        async with self.branch_lock(repo):
            await self.recover(repo)
            locked = self._live.index.dirty(repo)
            async with self._live.lock(locked):
                async with self._stores.change(repo) as store:
                    head, facts = await self._commits.commit_typed(store, repo, locked)
                    await store.add_facts(facts)
                self._live.index.mark_clean(repo, locked)
        if facts:
            await self._outbox.flush()
        return head.revision

    async def _commit_dev(
        self,
        store: Store,
        repo: str,
        head: BranchTip,
        change: DevChange,
        current: Mapping[str, FileContent],
    ) -> Revision:
        """Store the commit of `dev` and move the branch to it."""
        files, moves = change.merged.files, change.merged.moves
        entries = await self.store_files(store, files, {**current, **_moved(moves, current)})
        try:
            tree = await store.update_tree(head.tree, entries)
        except InvalidInput as error:
            raise Conflict(f"dev has another file in the way: {error.detail}") from error
        parents = (head.revision, *([change.main] if change.main else []))
        signed = self._commits.sign(repo, parents, tree, change.text)
        await store.add_commit(repo, signed)
        await store.move_branch(repo, "dev", signed.revision, head.revision)
        return signed.revision

    async def store_files(
        self,
        store: Store,
        files: Mapping[str, FileContent | None],
        before: Mapping[str, FileContent],
    ) -> dict[str, TreeEntry | None]:
        """Store the contents of files, and return their entries for a tree."""
        there = {path: file for path, file in files.items() if file is not None}
        sizes = await store.blob_sizes({f.body.decode() for f in there.values() if _is_blob(f)})
        stored = {path: file for path, file in there.items() if not _is_blob(file)}
        like = _predecessors(stored, before)
        # Live texts that were never committed are no base for what is stored.
        present = await store.objects.present(set(like.values()))
        await store.add_contents(
            [file.body for file in stored.values()],
            {new: old for new, old in like.items() if old in present},
        )
        return {path: file and entry_of(path, file, sizes) for path, file in files.items()}

    # -- documents ---------------------------------------------------------------------------

    async def _document_changes(
        self, repo: str, merged: MergedFiles, current: Mapping[str, FileContent]
    ) -> DocumentChanges:
        """Return what becomes of the documents; the caller holds their locks."""
        documents = self._live.index.paths(repo)
        changes = DocumentChanges([], [], [])
        moving = {
            new: old
            for old, new in merged.moves.items()
            if old in documents and is_notebook(old) == is_notebook(new)
        }
        for path, file in merged.files.items():
            source = moving.get(path, path)
            document = documents.get(source)
            if file is None or not file.live:
                if document is not None and path not in moving.values():
                    row = self._live.index.rows[document]
                    changes.placed.append(structs.replace(row, alive=False))
            elif document is None:
                changes.created.append(await _created(repo, path, file))
            else:
                await self._edit(repo, document, path, file, current[source], changes)
        return changes

    async def _edit(
        self,
        repo: str,
        document: str,
        path: str,
        file: FileContent,
        before: FileContent,
        changes: DocumentChanges,
    ) -> None:
        row = self._live.index.rows[document]
        placed = structs.replace(row, path=path, mode=int(file.mode) & 0o777, alive=True)
        if placed != row:
            changes.placed.append(placed)
        if file.body != before.body:
            replica = await self._live.replica(repo, document, path)
            state = replica.state()
            size = len(state) + len(file.body)
            update = await in_thread(size, crdt.change, path, state, file.text)
            changes.updates.append((document, path, update))

    # -- afterwards --------------------------------------------------------------------------

    async def publish(self, published: Published) -> None:
        """Do steps 3 and 4, without any lock."""
        repo = published.repo
        for update in published.updates:
            await self._show(repo, update)
        paths = self._live.index.paths(repo)
        for row in published.rows:
            now = self._live.index.rows[row.id]
            if paths.get(now.path) != now.id:
                await self._close_room(now)
            if paths.get(row.path) != row.id and row.path not in paths:
                await self._writer.remove_deleted(repo, [row])
            if paths.get(now.path) == now.id:
                await self._writer.try_write(repo, now.path)
        await self._finish(repo, published)

    async def _show(self, repo: str, update: UnloggedUpdate) -> None:
        """Let an open room show an update.

        The room hands it back to `ingest`, which needs the document's lock and logs nothing,
        because the replica contains it.
        """
        if self._rooms is None:
            return
        try:
            await self._rooms.apply(DocumentId(update.document), update.update)
        except Exception:
            log.exception("the open room of %s/%s did not take an update", repo, update.path)

    async def _close_room(self, row: DocumentRow) -> None:
        """Close the room of a deleted document: what is typed there could not be kept."""
        if self._rooms is not None:
            try:
                await self._rooms.close(DocumentId(row.id), _DELETED)
            except Exception:
                log.exception("the open room of %s was not closed", row.path)

    async def _finish(self, repo: str, published: Published) -> None:
        """Send facts to the journal; clear what arrived, and take snapshots where due."""
        documents = [u.document for u in published.updates]
        async with self._live.lock(documents):
            snapshots: dict[str, Snapshot] = {}
            for document in documents:
                if self._live.needs_snapshot(document):
                    snapshots[document] = await self._live.snapshot(document)

            async def clear(store: Store) -> None:
                await self._stores.fence(store, repo)
                await store.clear_updates([u.number for u in published.updates])
                await store.put_snapshots(snapshots)

            if not await self._outbox.flush(clear):
                return  # the log must stay as long as no snapshot contains it
            await self._live.compacted(repo, snapshots)
            self._unfinished.discard(repo)

    # -- recovery ----------------------------------------------------------------------------

    def expect_unfinished(self, repo: str) -> None:
        """Let `recover` look into the store, as after a start."""
        self._unfinished.add(repo)

    async def recover(self, repo: str) -> None:
        """Log and show the committed updates that may not have been.

        The store decides which these are, not this process: the answer to a commit may have been
        lost, and the update may be in the log all the same.
        """
        if repo not in self._unfinished:
            return
        await self._live.index.load(repo)
        async with self._stores.begin() as store:
            updates = await store.unlogged(repo)
        for update in updates:
            async with self._live.lock([update.document]):
                await self._live.append_committed(repo, [update])
            await self._show(repo, update)
            if self._live.index.paths(repo).get(update.path) == update.document:
                await self._writer.try_write(repo, update.path)
        await self._finish(repo, Published(repo, (), tuple(updates)))

    async def remove_deleted_files(self, repo: str) -> None:
        """Remove the working files of deleted documents, unless somebody has changed them."""
        deleted = [
            row
            for row in self._live.index.rows.values()
            if row.repo == repo and not row.alive and not self._live.index.exists(repo, row.path)
        ]
        await self._writer.remove_deleted(repo, deleted)


async def _created(repo: str, path: str, file: FileContent) -> tuple[DocumentRow, bytes]:
    state = await in_thread(len(file.body), crdt.build, path, file.text)
    mode = int(file.mode) & 0o777
    digest = sha256(file.body)
    row = DocumentRow(id=uuid7(), repo=repo, path=path, mode=mode, alive=True, sha256=digest)
    return row, state


def _predecessors(
    files: Mapping[str, FileContent], before: Mapping[str, FileContent]
) -> dict[str, str]:
    """Return hash of a new content -> hash of the one that it replaces."""
    return {
        sha256(file.body): sha256(before[path].body)
        for path, file in files.items()
        if path in before and before[path].live and before[path].body != file.body
    }


def _writers(documents: DocumentChanges, author: PrincipalId) -> list[tuple[str, int, PrincipalId]]:
    """Return (document, client, author) of what a change writes into documents."""
    written = [(document, update) for document, _, update in documents.updates]
    written += [(row.id, state) for row, state in documents.created]
    return [
        (document, client, author)
        for document, update in written
        for client in crdt.clients_of(update)
    ]


def _is_blob(file: FileContent) -> bool:
    return not file.live and file.mode is not EntryMode.symlink


def _moved(moves: Mapping[str, str], files: Mapping[str, FileContent]) -> dict[str, FileContent]:
    return {new: files[old] for old, new in moves.items() if old in files}
