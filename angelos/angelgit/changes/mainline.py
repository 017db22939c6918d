"""The branch `main`: candidates for it, its advance to a tested one, and its rollback.

`main` is merged as git merges: a candidate holds what `main` has and the own edits of proposals,
nothing else: a commit for each of them, the first one's parent is `main`. When `main` has moved,
`dev` gets a commit with both as parents.

    candidate = await mainline.candidate([proposal], {})
    await mainline.advance("study", candidate.revision, expected=candidate.main)
    await mainline.rollback("study", to=candidate.main, author=author, reason="health check")
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from angelos.angelgit.changes import sides
from angelos.angelgit.changes.commits import CommitText, CommitWriter
from angelos.angelgit.changes.proposals import check_places, commit_text, own_changes
from angelos.angelgit.changes.transactions import DevChange, Published, Transactions
from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.documents.clean_outputs import with_outputs
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
from angelos.core.errors import Conflict, NotFound, Stale
from angelos.core.facts import Fact
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.repository import CleanOutputs
from angelos.core.revision_v2 import CommitObject, TrailerKey, TreeEntry

_OPEN = (ProposalStatus.proposed, ProposalStatus.merged)


class CandidateCommit(msgspec.Struct, frozen=True):
    """A candidate, the `main` that it was made on, and the commit of each member."""

    repo: str
    main: Revision
    revision: Revision
    members: dict[ProposalId, Revision]


_Mark = Callable[[Store], Awaitable[ProposalId | None]]
"""Records why `main` moves; returns the one proposal that it moves for, if it is one."""


class Mainline:
    """The branch `main` of all repositories."""

    def __init__(
        self, stores: Stores, live: LiveReplicas, transactions: Transactions, commits: CommitWriter
    ) -> None:
        self._stores = stores
        self._live = live
        self._transactions = transactions
        self._commits = commits

    async def candidate(
        self, proposals: Sequence[ProposalId], outputs: CleanOutputs
    ) -> CandidateCommit:
        """Merge proposals onto the current `main`, one upon the other, on no branch."""
        async with self._stores.begin() as store:
            members = await self._open(store, proposals)
            repo = members[0].record.repo
            await self._stores.fence(store, repo)
            main = await self._commits.head(store, repo, "main")
            key = _request_key(main.revision, members, outputs)
            if (stored := await store.find_candidate(key)) is not None:
                return CandidateCommit(repo, main.revision, *stored)
            chain = _Chain(main.revision, main.tree, {})
            for member in members:
                try:
                    tree = await self._merge_onto(store, member, chain.tree)
                except Stale:
                    if member is members[0]:
                        raise
                    continue
                text = commit_text(member.record)
                if outputs and len(proposals) == 1:
                    tree = await self._with_outputs(store, tree, outputs)
                chain = await self._commit(store, repo, chain, tree, text, member.record.id)
            if outputs and len(proposals) > 1:
                tree = await self._with_outputs(store, chain.tree, outputs)
                text = CommitText((SYSTEM,), "Write the outputs of a clean re-run")
                chain = await self._commit(store, repo, chain, tree, text)
            await store.add_candidate(key, main.revision, chain.revision, chain.members)
        return CandidateCommit(repo, main.revision, chain.revision, chain.members)

    async def _open(self, store: Store, proposals: Sequence[ProposalId]) -> list[StoredProposal]:
        """Return those that are open and of the first one's repository; the first one must be."""
        first = await store.proposal(proposals[0])
        if first.status not in _OPEN:
            raise Conflict(
                f"Proposal {proposals[0]} is {first.status}; only an open one has candidates."
            )
        rows = [await store.find_proposal(proposal) for proposal in dict.fromkeys(proposals)]
        repo = first.record.repo
        return [row for row in rows if row and row.status in _OPEN and row.record.repo == repo]

    async def _commit(
        self,
        store: Store,
        repo: str,
        chain: _Chain,
        tree: str,
        text: CommitText,
        proposal: ProposalId | None = None,
    ) -> _Chain:
        """Store one more commit of a chain."""
        signed = self._commits.sign(repo, (chain.revision,), tree, text)
        await store.add_commit(repo, signed)
        own = {} if proposal is None else {proposal: signed.revision}
        return _Chain(signed.revision, tree, chain.members | own)

    async def _with_outputs(self, store: Store, root: str, outputs: CleanOutputs) -> str:
        """Return a tree whose notebooks hold other outputs."""
        entries = await store.entries(root, outputs.keys())
        current = await sides.file_contents(store, entries)
        if missing := outputs.keys() - current.keys():
            raise NotFound(f"There is no {', '.join(sorted(missing))} to write outputs into.")
        files: dict[str, FileContent | None] = {}
        for path, cells in outputs.items():
            text = canonical(path, with_outputs(current[path].text, cells))
            files[path] = current[path]._replace(body=text.encode())
        return await store.update_tree(
            root, await self._transactions.store_files(store, files, current)
        )

    async def _merge_onto(self, store: Store, stored: StoredProposal, root: str) -> str:
        """Return a tree with a proposal's own edits; raise `Stale`."""
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
                made_on, members = await store.candidate_members(revision)
                if main.revision != expected or made_on not in {None, expected}:
                    raise Conflict(
                        f"main of {repo} is at {main.revision[:12]}; {revision[:12]} was not made "
                        "on it.",
                        hint="Make the candidate again on the present head.",
                    )
                changed = await self._differences(store, main.tree, commit.tree)

            async def mark(store: Store) -> ProposalId | None:
                promoted = await store.mark_promoted(revision)
                if not members or members != set(promoted):
                    raise Conflict(
                        f"{revision[:12]} is no candidate of proposals that are all open.",
                        hint="main advances only to candidates; make one with `candidate`.",
                    )
                return promoted[0] if len(promoted) == 1 else None

            move = _MainMove(expected, revision, AdvanceCause.candidate, commit.authors[0])
            title = commit.message if len(members) == 1 else f"{len(members)} proposals"
            text = CommitText((SYSTEM,), f"Merge main: {title}".rstrip(": "))
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


class _Chain(NamedTuple):
    """Commits of proposals, one upon the other: the last one, its tree, and the members."""

    revision: Revision
    tree: str
    members: dict[ProposalId, Revision]


def _request_key(main: Revision, members: Sequence[StoredProposal], outputs: CleanOutputs) -> bytes:
    """Return what is equal for the same candidate asked for again."""
    written = sorted((path, sorted(cells.items())) for path, cells in outputs.items())
    return hashlib.sha256(
        msgspec.msgpack.encode([main, [(m.record.id, m.record.digest) for m in members], written])
    ).digest()


class _MainMove(msgspec.Struct, frozen=True):
    """A move of `main`, and for whom."""

    before: Revision
    after: Revision
    cause: AdvanceCause
    author: PrincipalId
