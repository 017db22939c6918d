"""The branch `main`: candidates for it, its advance to a tested one, and its rollback.

`main` is merged as git merges: a candidate holds what `main` has and a proposal's own edits,
nothing else, and its only parent is `main`. When `main` has moved, `dev` gets a commit with both
as parents.

    candidate = await mainline.candidate(proposal)
    await mainline.advance("study", candidate.revision, expected=candidate.main)
    await mainline.rollback("study", to=candidate.main, author=author, reason="health check")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from angelos.angelgit.changes import sides
from angelos.angelgit.changes.commits import CommitText, CommitWriter
from angelos.angelgit.changes.proposals import check_places, commit_text, own_changes
from angelos.angelgit.changes.transactions import DevChange, Published, Transactions
from angelos.angelgit.merge.changes import ChangedFile, MergedFiles, merge_changes, refuse_stale
from angelos.angelgit.merge.files import FileContent, Resolve
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    SYSTEM,
    AdvanceCause,
    FileChange,
    ProposalStatus,
    StoredProposal,
)
from angelos.angelgit.storage.store import Store, Stores
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, NotFound
from angelos.core.facts import Fact
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.revision_v2 import CommitObject, TrailerKey, TreeEntry

_OPEN = (ProposalStatus.proposed, ProposalStatus.merged)


class CandidateCommit(msgspec.Struct, frozen=True):
    """A candidate, and the `main` that it was made on."""

    repo: str
    main: Revision
    revision: Revision


_Mark = Callable[[Store], Awaitable[ProposalId | None]]
"""Records why `main` moves; returns the proposal that it moves for, if any."""


class Mainline:
    """The branch `main` of all repositories."""

    def __init__(
        self, stores: Stores, live: LiveReplicas, transactions: Transactions, commits: CommitWriter
    ) -> None:
        self._stores = stores
        self._live = live
        self._transactions = transactions
        self._commits = commits

    async def candidate(self, proposal: ProposalId) -> CandidateCommit:
        """Merge a proposal onto the current `main`, and commit the result on no branch."""
        async with self._stores.begin() as store:
            stored = await store.proposal(proposal)
            record = stored.record
            if stored.status not in _OPEN:
                raise Conflict(
                    f"Proposal {proposal} is {stored.status}; only an open one has candidates."
                )
            main = await self._commits.head(store, record.repo, "main")
            revision = await store.find_candidate(proposal, main.revision)
            if revision is None:
                tree = await self._merge_onto(store, stored, main.tree)
                signed = self._commits.sign(
                    record.repo, (main.revision,), tree, commit_text(record)
                )
                revision = signed.revision
                await store.add_commit(record.repo, signed)
                await store.add_candidate(proposal, main.revision, revision)
        return CandidateCommit(record.repo, main.revision, revision)

    async def _merge_onto(self, store: Store, stored: StoredProposal, root: str) -> str:
        """Return the tree of `main` with a proposal's own edits; raise `Stale`."""
        changed = await own_changes(store, stored.record, "main")
        paths = {path for c in changed for path in (c.path, c.to) if path}
        entries = await store.entries(root, paths)
        current = await sides.file_contents(store, entries)
        size = sum(len(file.body) for file in current.values())
        merged = await in_thread(size, merge_changes, changed, current, Resolve.refuse)
        await check_places(store, root, merged, current)
        refuse_stale(merged.conflicts, "main", stored.record.base, changed, current)
        files = await self._transactions.store_files(store, merged.files, current)
        return await store.update_tree(root, files)

    # -- advance and rollback ----------------------------------------------------------------

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Advance `main` to a candidate, and let `dev` have it; a second time does nothing."""
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            async with self._stores.begin() as store:
                commit = await store.commit(repo, revision)
                main = await self._commits.head(store, repo, "main")
                if main.revision == revision:
                    return
                if main.revision != expected or commit.parents[:1] != (expected,):
                    raise Conflict(
                        f"main of {repo} is at {main.revision[:12]}; {revision[:12]} was not made "
                        "on it.",
                        hint="Make the candidate again on the present head.",
                    )
                changed = await self._differences(store, main.tree, commit.tree)

            async def mark(store: Store) -> ProposalId | None:
                proposal = await store.mark_promoted(revision)
                if proposal is None:
                    raise Conflict(
                        f"{revision[:12]} is no candidate of a proposal that is open.",
                        hint="main advances only to candidates; make one with `candidate`.",
                    )
                return proposal

            move = _MainMove(expected, revision, AdvanceCause.candidate, commit.authors[0])
            text = CommitText((SYSTEM,), f"Merge main: {commit.message}".rstrip(": "))
            published = await self._move(repo, move, changed, text, Resolve.current, mark)
            await self._transactions.publish(published)

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit the tree of `to` on top of `main`, and make the same change in `dev`."""
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            async with self._stores.begin() as store:
                main = await self._commits.head(store, repo, "main")
                if not await store.was_main(repo, to):
                    raise NotFound(f"{to[:12]} is not in the history of main of {repo}.")
                earlier: CommitObject = await store.commit(repo, to)
                if main.tree == earlier.tree:
                    raise Conflict(f"main of {repo} has the tree of {to[:12]} already.")
                changed = await self._differences(store, main.tree, earlier.tree)
            message = f"Roll back to {to[:12]}: {reason}".removesuffix(": ")
            trailers: dict[TrailerKey, str | None] = {TrailerKey.rollback_to: to}
            text = CommitText.of(author, message, trailers)
            signed = self._commits.sign(repo, (main.revision,), earlier.tree, text)

            async def add(store: Store) -> None:
                await store.add_commit(repo, signed)

            move = _MainMove(main.revision, signed.revision, AdvanceCause.rollback, author)
            published = await self._move(repo, move, changed, text, Resolve.remove, add)
            await self._transactions.publish(published)
        return signed.revision

    async def _differences(self, store: Store, before: str, after: str) -> list[ChangedFile]:
        """Return how two trees differ, with the contents."""
        return await sides.changed_files(store, with_moves(await store.differences(before, after)))

    async def _move(
        self,
        repo: str,
        move: _MainMove,
        changed: Sequence[ChangedFile],
        text: CommitText,
        resolve: Resolve,
        mark: _Mark,
    ) -> Published:
        """Move `main`, and merge what changed there into `dev`."""
        paths = {path for c in changed for path in (c.path, c.to) if path}
        locked = self._transactions.documents_to_lock(repo, paths)
        async with self._live.lock(locked):
            async with self._stores.begin() as store:
                current = await self._transactions.dev_files(store, repo, paths)
                size = sum(len(file.body) for file in current.values())
                merged = await in_thread(size, merge_changes, changed, current, resolve)
                await self._make_way(store, repo, merged, current)

            async def record(store: Store, _: Revision) -> list[Fact]:
                proposal = await mark(store)
                await store.move_branch(repo, "main", move.after, move.before)
                await store.add_to_main(repo, move.after)
                return [
                    self._commits.branch_fact(
                        repo, "main", move.before, move.after, move.cause, move.author, proposal
                    )
                ]

            change = DevChange(move.cause, text, merged, main=move.after)
            _, published = await self._transactions.commit(repo, change, current, locked, record)
        return published

    async def _make_way(
        self,
        store: Store,
        repo: str,
        merged: MergedFiles,
        current: Mapping[str, FileContent],
    ) -> None:
        """Leave out what cannot be beside a file that only `dev` has: `dev` keeps that."""
        head = await self._commits.head(store, repo, "dev")
        await check_places(store, head.tree, merged, current)
        for conflict in merged.conflicts:
            merged.files.pop(conflict.path, None)


def with_moves(
    rows: Sequence[tuple[str, TreeEntry | None, TreeEntry | None]],
) -> list[FileChange]:
    """Return differences with a file that is only elsewhere as one that moved.

    So its document stays the same one, with what people typed into it. Only equal contents count,
    and only where there is no doubt.
    """
    removed: dict[str, list[TreeEntry]] = {}
    added: dict[str, list[TreeEntry]] = {}
    for _, before, after in rows:
        if before is not None and after is None and before.size:
            removed.setdefault(before.sha256, []).append(before)
        if before is None and after is not None:
            added.setdefault(after.sha256, []).append(after)
    moves = {
        old[0].path: added[digest][0]
        for digest, old in removed.items()
        if len(old) == len(added.get(digest, ())) == 1
    }
    targets = {entry.path for entry in moves.values()}
    changes: list[FileChange] = []
    for path, before, after in rows:
        if moved := moves.get(path):
            changes.append(FileChange(path=path, before=before, after=moved, to=moved.path))
        elif path not in targets:
            changes.append(FileChange(path=path, before=before, after=after))
    return changes


class _MainMove(msgspec.Struct, frozen=True):
    """A move of `main`, and for whom."""

    before: Revision
    after: Revision
    cause: AdvanceCause
    author: PrincipalId
