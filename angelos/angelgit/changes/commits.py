"""Commits of `dev`: of what people typed, and of a transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.documents import crdt
from angelos.angelgit.storage.live import LiveReplicas, Snapshot, take_snapshot
from angelos.angelgit.storage.models import (
    ROOM,
    SYSTEM,
    AdvanceCause,
    DocumentRow,
    FileState,
    Manifest,
    PathChange,
    PathOp,
    Transaction,
    sha256,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import with_files
from angelos.core.errors import InvalidInput, Tampered
from angelos.core.facts import BranchAdvanced, Fact
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.ports import Clock
from angelos.core.repository import Branch
from angelos.core.revision import Commit, SignedCommit, sign_commit, tree_hash
from angelos.core.signing import SigningKey

log = logging.getLogger(__name__)


class CommitWriter:
    """Signs commits, and writes those of `dev`."""

    def __init__(
        self, database: Database, live: LiveReplicas, clock: Clock, key: SigningKey
    ) -> None:
        self._database = database
        self._live = live
        self._clock = clock
        self._key = key

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

    def branch_fact(
        self,
        repo: str,
        branch: Branch,
        before: Revision | None,
        after: Revision,
        cause: AdvanceCause,
        author: PrincipalId,
        proposal: ProposalId | None = None,
    ) -> Fact:
        """Return the fact that a branch advanced; `before` is None for a new branch."""
        return Fact.of(
            BranchAdvanced(before=before or "", cause=cause.value, proposal=proposal or ""),
            at=self._clock.time(),
            actor=SYSTEM,
            on_behalf_of=author,
            subject=f"{repo}:{branch}",
            revision=after,
        )

    async def commit_live_edits(self, repo: str, locked: Iterable[str]) -> None:
        """Commit what people typed into documents, whose locks the caller holds."""
        dirty = sorted(self._live.index.dirty(repo) & set(locked))
        if not dirty:
            return
        async with self._database.transaction() as conn:
            store = Store(conn)
            before = await store.head(repo, "dev")
            _, manifest = await store.commit(repo, before)
            present = {f.document: f for f in manifest}
            snapshots = []
            for document in dirty:
                try:
                    snapshots.append(await self._snapshot(store, repo, document))
                except (InvalidInput, Tampered) as error:
                    # One broken document must not keep all others from being committed.
                    log.warning("live edits are not committed: %s", error)
            changed = [
                _file_state(s)
                for s in snapshots
                if s.row.alive and not _has_content(present.get(s.row.id), s)
            ]
            if changed:
                manifest = with_files(manifest, changed)
                signed = self.sign(repo, (before,), manifest, ROOM, "live edits")
                await store.add_commit(signed, manifest)
                await store.move_branch(repo, "dev", signed.revision, before)
                cause = AdvanceCause.live_edits
                fact = self.branch_fact(repo, "dev", before, signed.revision, cause, ROOM)
                await store.add_facts([fact])
        await self.mark_committed(repo, snapshots)

    async def commit_transaction(self, transaction: Transaction) -> tuple[Revision, list[Snapshot]]:
        """Commit a transaction whose updates are logged; the caller holds its documents' locks.

        This is one database transaction: the commit and the branches, the proposal's status, the
        facts, and the end of the transaction. Call `mark_committed` after it.
        """
        repo = transaction.repo
        async with self._database.transaction() as conn:
            store = Store(conn)
            before = await store.head(repo, "dev")
            _, manifest = await store.commit(repo, before)
            snapshots = [
                await self._snapshot(store, repo, p.document, p) for p in transaction.paths
            ]
            written = [_file_state(s) for s in snapshots if s.row.alive]
            manifest = with_files(manifest, written, {s.row.id for s in snapshots})
            main = transaction.main
            parents = (before, main.revision) if main else (before,)
            signed = self.sign(repo, parents, manifest, transaction.author, transaction.message)
            await store.add_commit(signed, manifest)
            await store.move_branch(repo, "dev", signed.revision, before)
            await self._record(store, transaction, before, signed.revision)
            await store.end_transaction(transaction)
        return signed.revision, snapshots

    async def _record(
        self, store: Store, transaction: Transaction, before: Revision, revision: Revision
    ) -> None:
        """Record what a commit of `dev` means for `main`, for the proposal, and as facts."""
        repo, cause, author = transaction.repo, transaction.cause, transaction.author
        proposal, main = transaction.proposal, transaction.main
        facts = [self.branch_fact(repo, "dev", before, revision, cause, author, proposal)]
        if main is not None:
            await store.advance_main(repo, main)
            if cause is AdvanceCause.candidate:
                await store.mark_promoted(main.revision)
            facts.append(
                self.branch_fact(repo, "main", main.expected, main.revision, cause, author)
            )
        if proposal and cause is AdvanceCause.proposal:
            await store.mark_merged(proposal, revision, transaction.rebased)
        if proposal and cause is AdvanceCause.revert:
            await store.mark_reverted(proposal, revision, transaction.inverses)
        await store.add_facts(facts)

    async def _snapshot(
        self, store: Store, repo: str, document: str, change: PathChange | None = None
    ) -> Snapshot:
        """Store a snapshot of a document; with a change its row is as after the change."""
        row = self._live.index.rows.get(document)
        if row is None:
            if change is None or change.op is not PathOp.create:
                msg = f"document {document} does not exist and is not being created"
                raise RuntimeError(msg)
            await store.add_blobs([crdt.EMPTY])
            row = DocumentRow(
                id=document,
                repo=repo,
                path=change.path,
                mode=change.mode,
                alive=True,
                state=sha256(crdt.EMPTY),
                sha256="",
            )
        elif change is not None and change.op is not PathOp.edit:
            alive = change.op is not PathOp.delete
            row = msgspec.structs.replace(row, path=change.path, mode=change.mode, alive=alive)
        elif change is not None:
            row = msgspec.structs.replace(row, mode=change.mode)
        replica = await self._live.replica(repo, document, row.path)
        return await take_snapshot(store, row, replica)

    async def mark_committed(self, repo: str, snapshots: list[Snapshot]) -> None:
        """Bring the live documents up to date with committed snapshots."""
        self._live.index.update(repo, [s.row for s in snapshots])
        # A row that kept its older snapshot (see `take_snapshot`) still needs its log.
        ids = [s.row.id for s in snapshots if s.row.state == sha256(s.state)]
        self._live.index.mark_clean(repo, ids)
        self._live.compacted(ids)
        await self._live.trim(repo, ids)


def _file_state(snapshot: Snapshot) -> FileState:
    return FileState(
        path=snapshot.row.path,
        mode=snapshot.row.mode,
        sha256=sha256(snapshot.content),
        size=len(snapshot.content),
        document=snapshot.row.id,
        state=sha256(snapshot.state),
    )


def _has_content(file: FileState | None, snapshot: Snapshot) -> bool:
    return file is not None and file.sha256 == sha256(snapshot.content)
