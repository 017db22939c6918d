"""Changes of `dev`: merge, revert, rollback and the commit of what people typed.

The order of a move, and what a crash after each step leaves:

 1. what people typed is committed under their own name         (nothing of the move)
 2. the move itself is stored                                    (carried out at the next start,
                                                                  if it still fits; see recovery)
 3. its updates are applied and logged, all or none              (likewise; what is in the log
                                                                  already is not logged again)
 4. one transaction: contents, states, snapshots, commit of dev, (likewise, from 5)
    branches by compare-and-set, the proposal's state, facts
    into the outbox, and the stored move is removed
 5. outbox to the journal (deduplicated by fact id), log trimmed, (done again at the next start)
    open rooms and working files brought up to date

Steps 1-4 hold the locks of the documents concerned, so a person's keystroke comes either before
the move's own commit or after it, and is never lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import recovery
from angelos.angelgit.documents import documents
from angelos.angelgit.storage.live import LiveReplicas, Snapshot, snapshot
from angelos.angelgit.storage.models import (
    ROOM,
    SYSTEM,
    FileState,
    Manifest,
    PathChange,
    Transaction,
    sha256,
)
from angelos.angelgit.storage.store import OUTBOX_PAGE, DocumentRow, Store
from angelos.angelgit.storage.trees import with_files
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.errors import AngelError, InvalidInput, Tampered, TooLarge
from angelos.core.ids import PrincipalId, Revision, new_fact_id
from angelos.core.messages import Fact, Kind
from angelos.core.ports import Clock, Journal, LiveDocuments
from angelos.core.repository import Branch
from angelos.core.revision import Commit, SignedCommit, sign_commit, tree_hash
from angelos.core.signing import SigningKey

log = logging.getLogger(__name__)


class Transactions:
    """Carries moves out, once, whatever happens in between."""

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        journal: Journal,
        clock: Clock,
        key: SigningKey,
        printer: WorktreeWriter,
        rooms: LiveDocuments | None,
    ) -> None:
        """Take the parts; `rooms` are the documents open in the running server."""
        self.database = database
        self._live = live
        self._journal = journal
        self._clock = clock
        self._key = key
        self._writer = printer
        self._rooms = rooms
        self._unfinished: set[str] = set()
        self._logged: dict[str, Transaction] = {}
        """Moves of this process whose updates are logged and that nobody was shown yet."""
        self._outbox = asyncio.Lock()
        self._locks: dict[str, asyncio.Lock] = {}

    # -- commits -----------------------------------------------------------------------------

    def sign(
        self,
        repo: str,
        parents: tuple[Revision, ...],
        manifest: Manifest,
        author: PrincipalId,
        message: str,
    ) -> SignedCommit:
        """Return a signed commit of a manifest."""
        commit = Commit(
            repo=repo,
            parents=parents,
            tree=tree_hash(f.entry() for f in manifest),
            author=author,
            message=message,
            at=int(self._clock.time() * 1000),
        )
        return sign_commit(self._key, commit)

    def advanced(
        self,
        repo: str,
        branch: Branch,
        before: Revision | str,
        after: Revision,
        cause: str,
        author: PrincipalId,
        **data: Any,
    ) -> Fact:
        """Return the fact that a branch moved."""
        return Fact(
            id=new_fact_id(int(self._clock.time() * 1000)),
            at=self._clock.time(),
            actor=SYSTEM,
            on_behalf_of=author,
            kind=Kind.branch_advanced,
            subject=f"{repo}:{branch}",
            revision=after,
            data={"before": before, "cause": cause, **data},
        )

    async def commit_live_edits(self, repo: str, held: Iterable[str]) -> None:
        """Commit what people typed into the documents whose locks are held (step 1)."""
        dirty = sorted(self._live.dirty.get(repo, set()) & set(held))
        if not dirty:
            return
        async with self.database.transaction() as conn:
            store = Store(conn)
            before = await store.head(repo, "dev")
            _, manifest = await store.commit(repo, before)
            have = {f.document: f for f in manifest}
            shots = []
            for document in dirty:
                try:
                    shots.append(await self._shoot(store, repo, document))
                except (InvalidInput, Tampered) as error:
                    # One broken document must not keep all others from being committed.
                    log.warning("what was typed is not committed: %s", error)
            changed = [_state(s) for s in shots if s.row.alive and not _same(have.get(s.row.id), s)]
            if changed:
                manifest = with_files(manifest, changed)
                signed = self.sign(repo, (before,), manifest, ROOM, "live edits")
                await store.add_commit(signed, manifest)
                await store.move_branch(repo, "dev", signed.revision, before)
                fact = self.advanced(repo, "dev", before, signed.revision, "live edits", ROOM)
                await store.add_facts([fact])
        self._live.update(repo, [s.row for s in shots])
        await self._mark_clean(repo, [s.row.id for s in shots if not _gap(s)])

    # -- moves -------------------------------------------------------------------------------

    async def begin(
        self, transaction: Transaction, main: tuple[SignedCommit, Manifest] | None = None
    ) -> None:
        """Store a move (step 2), with the commit that `main` will move to, if any."""
        async with self.database.transaction() as conn:
            store = Store(conn)
            if main is not None:
                await store.add_commit(*main)
            await store.add_transaction(transaction)
        # From here on it will be carried out; whoever comes next sees to it if we fail.
        self._unfinished.add(transaction.repo)

    async def execute(self, transaction: Transaction) -> Revision:
        """Do steps 3 and 4 under the locks that are held; return the commit of `dev`."""
        updates = {p.document: (p.path, p.update) for p in transaction.paths if p.update}
        try:
            await self._live.append(transaction.repo, updates, cause=transaction.id)
        except (InvalidInput, Tampered, TooLarge):
            # It can never be carried out and nothing of it was logged: forget it.
            async with self.database.transaction() as conn:
                await Store(conn).end_transaction(transaction)
            raise
        self._logged[transaction.id] = transaction
        try:
            revision, shots = await self._commit(transaction)
        except BaseException:
            self._live.drop(p.document for p in transaction.paths)
            raise
        self._live.update(transaction.repo, [s.row for s in shots])
        await self._mark_clean(transaction.repo, [s.row.id for s in shots if not _gap(s)])
        return revision

    async def publish(self, transaction: Transaction) -> None:
        """Bring rooms, working files and the journal up to date (step 5); no locks are held."""
        for path in transaction.paths:
            await self._show(transaction.repo, path)
        self._unfinished.discard(transaction.repo)
        self._logged.pop(transaction.id, None)
        await self.flush_outbox()

    async def recover(self, repo: str) -> None:
        """Carry out moves that were begun and not finished.

        The answer to a commit may have been lost, so what the store says comes first.
        """
        if repo not in self._unfinished:
            return
        await self._live.load(repo)
        async with self.database.transaction() as conn:
            transactions = {
                transaction.id: transaction for transaction in await Store(conn).transactions(repo)
            }
        for begun in transactions.values():
            held = self.held(repo, begun.paths)
            async with self._live.hold(held):
                transaction = await self._again(begun, held)
                if transaction is not None:
                    await self.execute(transaction)
            if transaction is not None:
                await self.publish(transaction)
        for transaction in [m for m in self._logged.values() if m.repo == repo]:
            await self.publish(transaction)
        self._unfinished.discard(repo)

    async def _again(self, begun: Transaction, held: set[str]) -> Transaction | None:
        """Return a move to carry out as it fits now; None if it had to be forgotten."""
        if begun.id in self._logged:
            return self._logged[begun.id]
        if await recovery.logged(self._live, begun):
            return begun
        await self.commit_live_edits(begun.repo, held)
        async with self.database.transaction() as conn:
            store = Store(conn)
            transaction = await recovery.checked(store, self._live, begun)
            if transaction is None:
                log.warning("%s was cut off and does not fit any more: forgotten", begun.id)
                await store.end_transaction(begun)
        return transaction

    def expect_unfinished(self, repo: str) -> None:
        """Look for unfinished moves before the next one (after a start)."""
        self._unfinished.add(repo)

    async def tidy(self, repo: str) -> None:
        """Remove working files of documents that are gone, if nobody has changed them since."""
        gone = [
            row
            for row in self._live.rows.values()
            if row.repo == repo and not row.alive and not self._live.has(repo, row.path)
        ]
        await self._writer.tidy(repo, gone)

    async def flush_outbox(self) -> None:
        """Hand committed facts to the journal; what fails stays for the next time."""
        async with self._outbox:
            try:
                while True:
                    async with self.database.transaction() as conn:
                        rows = await Store(conn).outbox()
                    if not rows:
                        return
                    await self._journal.append([fact for _, fact in rows])
                    async with self.database.transaction() as conn:
                        await Store(conn).clear_outbox([number for number, _ in rows])
                    if len(rows) < OUTBOX_PAGE:
                        return
            except AngelError as error:
                log.warning("facts wait in the outbox: %s", error)

    def lock(self, repo: str) -> asyncio.Lock:
        """Return the lock under which a repository's branches move."""
        return self._locks.setdefault(repo, asyncio.Lock())

    def held(self, repo: str, paths: Sequence[PathChange]) -> set[str]:
        """Return the documents to hold for a move: its own and those with uncommitted typing."""
        return {p.document for p in paths} | self._live.dirty.get(repo, set())

    async def _commit(self, transaction: Transaction) -> tuple[Revision, list[Snapshot]]:
        async with self.database.transaction() as conn:
            store = Store(conn)
            before = await store.head(transaction.repo, "dev")
            _, manifest = await store.commit(transaction.repo, before)
            shots = [
                await self._shoot(store, transaction.repo, p.document, p) for p in transaction.paths
            ]
            touched = {s.row.id for s in shots}
            manifest = with_files(manifest, [_state(s) for s in shots if s.row.alive], touched)
            parents = (before, transaction.main.revision) if transaction.main else (before,)
            signed = self.sign(
                transaction.repo, parents, manifest, transaction.author, transaction.message
            )
            await store.add_commit(signed, manifest)
            await store.move_branch(transaction.repo, "dev", signed.revision, before)
            about: dict[str, Any] = (
                {"proposal": transaction.proposal} if transaction.proposal else {}
            )
            facts = [
                self.advanced(
                    transaction.repo,
                    "dev",
                    before,
                    signed.revision,
                    transaction.cause,
                    transaction.author,
                    **about,
                )
            ]
            if transaction.main is not None:
                await store.advance_main(transaction.repo, transaction.main)
                facts.append(
                    self.advanced(
                        transaction.repo,
                        "main",
                        transaction.main.expected,
                        transaction.main.revision,
                        transaction.cause,
                        transaction.author,
                    )
                )
            if transaction.proposal and transaction.cause == "proposal":
                await store.merged(transaction.proposal, signed.revision, transaction.keep)
            if transaction.proposal and transaction.cause == "revert":
                await store.reverted(transaction.proposal, signed.revision, transaction.inverses)
            await store.add_facts(facts)
            await store.end_transaction(transaction)
        return signed.revision, shots

    async def _shoot(
        self, store: Store, repo: str, document: str, path: PathChange | None = None
    ) -> Snapshot:
        row = self._live.rows.get(document)
        if row is None:
            if path is None or path.op != "create":
                msg = f"document {document} is not known and not being made"
                raise RuntimeError(msg)
            empty = sha256(documents.EMPTY)
            await store.add_blobs([documents.EMPTY])
            row = DocumentRow(
                id=document,
                repo=repo,
                path=path.path,
                mode=path.mode,
                alive=True,
                state=empty,
                sha256="",
            )
        elif path is not None and path.op != "edit":
            row = msgspec.structs.replace(
                row, path=path.path, mode=path.mode, alive=path.op != "delete"
            )
        elif path is not None:
            row = msgspec.structs.replace(row, mode=path.mode)
        return await snapshot(store, row, await self._live.replica(repo, document, row.path))

    async def _mark_clean(self, repo: str, ids: list[str]) -> None:
        self._live.dirty[repo] -= set(ids)
        self._live.compacted(ids)
        await self._live.trim(repo, ids)

    async def _show(self, repo: str, transaction: PathChange) -> None:
        row = self._live.rows.get(transaction.document)
        if row is None or self._live.paths(repo).get(row.path) != transaction.document:
            if row is not None and not self._live.has(repo, transaction.path):
                await self._writer.tidy(repo, [row])
            return
        if self._rooms is not None and transaction.update:
            # No lock is held here: the room hands the same update to `ingest`, which knows it.
            try:
                if await self._rooms.apply(repo, row.path, transaction.update):
                    return  # the room saves its own file
            except Exception:
                log.exception("the open room of %s/%s did not take an update", repo, row.path)
        await self._writer.try_write(repo, row.path)


def _state(shot: Snapshot) -> FileState:
    return FileState(
        path=shot.row.path,
        mode=shot.row.mode,
        sha256=sha256(shot.content),
        size=len(shot.content),
        document=shot.row.id,
        state=sha256(shot.state),
    )


def _same(file: FileState | None, shot: Snapshot) -> bool:
    return file is not None and file.sha256 == sha256(shot.content)


def _gap(shot: Snapshot) -> bool:
    return shot.row.state != sha256(shot.state)
