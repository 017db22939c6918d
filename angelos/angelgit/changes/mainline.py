"""The branch `main`: candidates for it, its advance to a tested one, and its rollback.

For example:

    candidate = await mainline.candidate(proposal)
    await mainline.advance("study", candidate.revision, expected=candidate.main)
    await mainline.rollback("study", to=candidate.main, author=author, reason="health check")
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import cast

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import candidates
from angelos.angelgit.changes.commits import CommitWriter
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.documents import crdt
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    AdvanceCause,
    FileState,
    MainAdvance,
    Manifest,
    PathChange,
    PathOp,
    ProposalStatus,
    Transaction,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, NotFound, Stale, Tampered
from angelos.core.ids import PrincipalId, ProposalId, Revision, uuid7
from angelos.core.revision import SignedCommit

_HISTORY = 100_000
_OPEN = (ProposalStatus.proposed, ProposalStatus.merged)


class CandidateCommit(msgspec.Struct, frozen=True):
    """A candidate, and the `main` that it was made on."""

    repo: str
    main: Revision
    revision: Revision


class Mainline:
    """The branch `main` of all repositories."""

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        transactions: Transactions,
        commits: CommitWriter,
        outbox: FactOutbox,
    ) -> None:
        self._database = database
        self._live = live
        self._transactions = transactions
        self._commits = commits
        self._outbox = outbox

    async def candidate(self, proposal: ProposalId) -> CandidateCommit:
        """Merge a proposal onto the current `main`, and commit the result on no branch."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            stored = await store.proposal(proposal)
            record = stored.record
            if stored.status not in _OPEN:
                raise Conflict(
                    f"Proposal {proposal} is {stored.status}; only an open one has candidates."
                )
            main = await store.head(record.repo, "main")
            revision = await store.find_candidate(proposal, main)
            if revision is None:
                _, manifest = await store.commit(record.repo, main)
                merged, deleted = await candidates.merge_into_main(store, stored, manifest)
                files = trees.with_files(manifest, [m.file for m in merged], deleted)
                signed = self._commits.sign(
                    record.repo, (main,), files, record.author, record.message
                )
                revision = signed.revision
                await store.add_blobs(blob for m in merged for blob in m.blobs)
                await store.add_commit(signed, files)
                await store.add_candidate(proposal, main, revision)
        return CandidateCommit(record.repo, main, revision)

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Advance `main` to a candidate, and let `dev` have it; a second time does nothing."""
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            plan = await self._plan_advance(repo, revision, expected)
            if plan is None:
                return
            locked = self._transactions.documents_to_lock(repo, plan.paths)
            async with self._live.lock(locked):
                await self._commits.commit_live_edits(repo, locked)
                paths = await self._advance_paths(repo, plan)
                transaction = Transaction(
                    id=f"advance-{revision}",
                    repo=repo,
                    cause=AdvanceCause.candidate,
                    author=plan.signed.commit.author,
                    message=plan.signed.commit.message,
                    paths=paths,
                    main=MainAdvance(revision=revision, expected=expected),
                )
                await self._transactions.begin(transaction)
                await self._transactions.execute(transaction)
            await self._transactions.publish(transaction)

    async def _plan_advance(
        self, repo: str, revision: Revision, expected: Revision
    ) -> _AdvancePlan | None:
        """Return what `dev` gets with a candidate; None if `main` is there already."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            signed, manifest = await store.commit(repo, revision)
            head = await store.head(repo, "main")
            if head == revision:
                return None
            if head != expected or signed.commit.parents[:1] != (expected,):
                raise Conflict(
                    f"main of {repo} is at {head[:12]}; {revision[:12]} was not made on it.",
                    hint="Make the candidate again on the present head.",
                )
            stored = await store.candidate_of(revision)
            if stored is None or stored.status not in _OPEN:
                raise Conflict(
                    f"{revision[:12]} is no candidate of a proposal that is open.",
                    hint="main advances only to candidates; make one with `candidate`.",
                )
            _, main = await store.commit(repo, expected)
            steps = trees.plan_advance(main, manifest)
            files = [file for step in steps for file in (step.before, step.after) if file]
            blobs = await store.blobs([sha for f in files for sha in (f.state, f.sha256)])
        rows = self._live.index.rows
        size = sum(map(len, blobs.values()))
        paths = await in_thread(size, _advance_changes, steps, blobs, rows.keys())
        texts = {
            step.file.document: tuple(
                blobs[file.sha256].decode() if file else crdt.text_of(step.file.path, crdt.EMPTY)
                for file in (step.before, step.after)
            )
            for step in steps
        }
        return _AdvancePlan(signed, paths, cast("dict[str, tuple[str, str]]", texts))

    async def _advance_paths(self, repo: str, plan: _AdvancePlan) -> tuple[PathChange, ...]:
        """Return the changes of a candidate as they are made in the present `dev`.

        Where people have since changed the same lines, or a file that is deleted, `dev` keeps
        their text. The caller holds the documents' locks.

        Raises:
            Stale: `dev` has another file at the path of a new one.
        """
        dev = self._live.index.paths(repo)
        paths: list[PathChange] = []
        for change in plan.paths:
            present = dev.get(change.path) == change.document
            if change.op is PathOp.create:
                if (
                    blocker := change.path
                    if change.path in dev
                    else trees.path_clash(dev, change.path)
                ):
                    raise Stale(
                        f"dev has another file at {blocker} since; main was not moved.",
                        hint="Rename one of the two.",
                    )
                paths.append(change)
            elif change.op is PathOp.delete:
                before, _ = plan.texts[change.document]
                if present and (await self._text(repo, change)) == before:
                    paths.append(change)
                    del dev[change.path]
            elif not await self._contains(repo, change):  # `dev` has what was accepted before
                paths.append(await self._rebase_onto_dev(repo, change, plan.texts))
        return tuple(paths)

    async def _contains(self, repo: str, change: PathChange) -> bool:
        replica = await self._live.replica(repo, change.document, change.path)
        return await in_thread(len(change.update), replica.contains, change.update)

    async def _text(self, repo: str, change: PathChange) -> str:
        return (await self._live.replica(repo, change.document, change.path)).text()

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit the tree of `to` on top of `main`, and make the same change in `dev`."""
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            plan = await self._plan_rollback(repo, to, author, reason)
            self._check_paths_free(repo, plan.paths)
            locked = self._transactions.documents_to_lock(repo, plan.paths)
            async with self._live.lock(locked):
                await self._commits.commit_live_edits(repo, locked)
                paths = [await self._rebase_onto_dev(repo, p, plan.texts) for p in plan.paths]
                transaction = Transaction(
                    id=f"rollback-{uuid7()}",
                    repo=repo,
                    cause=AdvanceCause.rollback,
                    author=author,
                    message=plan.signed.commit.message,
                    paths=tuple(paths),
                    main=MainAdvance(revision=plan.signed.revision, expected=plan.head),
                )
                await self._transactions.begin(transaction, (plan.signed, plan.manifest))
                await self._transactions.execute(transaction)
            await self._transactions.publish(transaction)
        return plan.signed.revision

    async def _plan_rollback(
        self, repo: str, to: Revision, author: PrincipalId, reason: str
    ) -> _RollbackPlan:
        """Make the commit of a rollback, which is on no branch yet, and its changes for `dev`."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            head = await store.head(repo, "main")
            history = await store.history(repo, head, _HISTORY)
            if to not in history:
                raise NotFound(f"{to[:12]} is not in the history of main of {repo}.")
            current, main = await store.commit(repo, head)
            earlier, target = await store.commit(repo, to)
            if current.commit.tree == earlier.commit.tree:
                raise Conflict(f"main of {repo} has the tree of {to[:12]} already.")
            newest = await _newest_states(store, repo, history, main, target)
            steps = trees.plan_rollback(main, target, newest)
            restored = [
                file for step in steps if (file := await candidates.restored_file(store, step))
            ]
            files = trees.with_files(main, [r.file for r in restored], {s.document for s in steps})
            message = f"Roll back to {to[:12]}: {reason}".removesuffix(": ")
            signed = self._commits.sign(repo, (head,), files, author, message)
            await store.add_blobs(blob for r in restored for blob in r.blobs)
            texts = await _texts(store, steps)
        # The restored files were edited, not copied: only the hash proves that this is the tree.
        if signed.commit.tree != earlier.commit.tree:
            raise Tampered(f"The rollback to {to[:12]} did not give its tree; nothing was moved.")
        updates = {r.file.document: r.update for r in restored}
        alive = set(self._live.index.paths(repo).values())
        return _RollbackPlan(head, signed, files, trees.dev_changes(steps, updates, alive), texts)

    async def _rebase_onto_dev(
        self, repo: str, change: PathChange, texts: Mapping[str, tuple[str, str]]
    ) -> PathChange:
        """Return a change as it is made in `dev`; the caller holds the document's lock.

        Lines that people have changed in `dev` since stay as they are if they conflict, because a
        rollback must not fail: it is there to bring `main` back at once.
        """
        if change.document not in texts:
            return change
        state = (await self._live.replica(repo, change.document, change.path)).state()
        args = (change.path, state, change.update or crdt.EMPTY, *texts[change.document])
        update = await in_thread(len(state), partial(rebase.onto_dev, keep_lines=True), *args)
        return msgspec.structs.replace(change, update=b"" if update == crdt.EMPTY else update)

    def _check_paths_free(self, repo: str, paths: Sequence[PathChange]) -> None:
        deleted = {p.document for p in paths if p.op is PathOp.delete}
        dev = {path: d for path, d in self._live.index.paths(repo).items() if d not in deleted}
        for change in paths:
            blocker = change.path if change.path in dev else trees.path_clash(dev, change.path)
            if change.op is PathOp.revive and blocker is not None:
                raise Conflict(
                    f"dev has another file at {blocker}.",
                    hint="Revert the proposal that created it, then roll back.",
                )


class _AdvancePlan(msgspec.Struct, frozen=True):
    signed: SignedCommit
    paths: tuple[PathChange, ...]
    texts: dict[str, tuple[str, str]]
    """Document -> its text on `main` before and after."""


def _advance_changes(
    steps: Sequence[trees.AdvanceStep], blobs: Mapping[str, bytes], documents: Collection[str]
) -> tuple[PathChange, ...]:
    """Return what a new revision of `main` changes, for a `dev` that has or had `documents`."""
    changes: list[PathChange] = []
    for step in steps:
        file, before = step.file, step.before
        op = PathOp.edit if file.document in documents else PathOp.create
        update = b""
        if step.after is None:
            op = PathOp.delete
        else:
            old = blobs[before.state] if before else crdt.EMPTY
            update = crdt.difference(file.path, old, blobs[step.after.state])
        changes.append(
            PathChange(path=file.path, document=file.document, op=op, update=update, mode=file.mode)
        )
    return tuple(changes)


class _RollbackPlan(msgspec.Struct, frozen=True):
    head: Revision
    signed: SignedCommit
    manifest: Manifest
    paths: tuple[PathChange, ...]
    texts: dict[str, tuple[str, str]]
    """Document -> its text on `main` before and after."""


async def _texts(store: Store, steps: Sequence[trees.RollbackStep]) -> dict[str, tuple[str, str]]:
    sides = {s.document: (s.source, s.target) for s in steps if s.source and s.target}
    blobs = await store.blobs([f.sha256 for pair in sides.values() for f in pair])
    return {
        document: (blobs[source.sha256].decode(), blobs[target.sha256].decode())
        for document, (source, target) in sides.items()
    }


async def _newest_states(
    store: Store, repo: str, history: list[Revision], main: Manifest, target: Manifest
) -> dict[str, FileState]:
    """Return the newest state on `main` of the documents of `target` that it no longer has."""
    missing = {f.document for f in target} - {f.document for f in main}
    states: dict[str, FileState] = {}
    for revision in history:
        if not missing - states.keys():
            break
        _, manifest = await store.commit(repo, revision)
        for file in manifest:
            if file.document in missing:
                states.setdefault(file.document, file)
    return states
