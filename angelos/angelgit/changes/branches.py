"""Branches of people and agents: open-ended, each moved by its owner alone.

    head = await own.create("study", branch_name("ada/median"), main, ada)
    await own.commit("study", head, edits, ada, "Add a median")
    await own.pick("study", commit, head.name, ada)

`main` moves to tested candidates only, `dev` by acceptance; neither moves here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from angelos.angelgit.changes import editing, sides
from angelos.angelgit.changes.commits import CommitText, CommitWriter
from angelos.angelgit.changes.mainline import with_moves
from angelos.angelgit.changes.proposals import changed_by, check_places
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.merge.changes import MergedFiles, merge_changes, refuse_stale
from angelos.angelgit.merge.files import FileContent, Resolve
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.models import AdvanceCause
from angelos.angelgit.storage.store import Store, Stores
from angelos.angelgit.threads import in_thread
from angelos.core.branches import PROPOSALS, RESERVED, BranchName, branch_clash
from angelos.core.errors import Conflict, Forbidden, NotFound, Refused, TooLarge
from angelos.core.ids import PrincipalId, Revision
from angelos.core.repository import BranchHead, PickDraft, TreeEdit
from angelos.core.revision_v2 import TrailerKey

_HEADS = b"refs/heads/"
MAX_BRANCHES = 2_000
"""Of one repository."""


class _Picked(NamedTuple):
    """What a commit changed, merged onto the head of a branch."""

    head: BranchHead
    root: str
    current: Mapping[str, FileContent]
    merged: MergedFiles
    message: str


class OwnBranches:
    """The branches of all repositories that somebody owns."""

    def __init__(self, stores: Stores, transactions: Transactions, commits: CommitWriter) -> None:
        self._stores = stores
        self._transactions = transactions
        self._commits = commits

    async def check_owner(self, repo: str, name: BranchName, by: PrincipalId) -> None:
        """Raise `Forbidden` unless somebody owns a branch, `NotFound` if there is none."""
        async with self._stores.begin() as store:
            await self._own(store, repo, name, by)

    async def create(
        self, repo: str, name: BranchName, at: Revision, owner: PrincipalId
    ) -> BranchHead:
        """Make a branch; see `core.ports.Branches.create_branch`."""
        _refuse_reserved(name, "made")
        async with self._transactions.branch_lock(repo), self._stores.change(repo) as store:
            await store.commit(repo, at)
            if (head := await store.find_branch(repo, name)) is not None:
                if (head.owner, head.revision) == (owner, at):
                    return head
                raise Conflict(f"There is a branch {name} of {repo} already.")
            names = await store.branch_names(repo)
            heads = [n for n in await store.git.refs(repo) if n.startswith(_HEADS)]
            names += [n.removeprefix(_HEADS).decode(errors="replace") for n in heads]
            if name in names:
                raise Conflict(f"{name} is a branch that came from git.")
            if (clash := branch_clash(names, name)) is not None:
                raise Conflict(f"{name} cannot be beside the branch {clash}.")
            if len(names) >= MAX_BRANCHES:
                raise TooLarge(f"{repo} has {MAX_BRANCHES} branches; delete some.")
            await store.set_branch(repo, name, at, owner)
            await self._add_fact(store, repo, name, None, at, AdvanceCause.branched, owner)
        return BranchHead(name=name, revision=at, owner=owner)

    async def move(
        self, repo: str, name: BranchName, to: Revision, expected: Revision, by: PrincipalId
    ) -> BranchHead:
        """Move a branch, forward or not; see `core.ports.Branches.move_branch`."""
        _refuse_reserved(name, "moved")
        async with self._transactions.branch_lock(repo), self._stores.change(repo) as store:
            head = await self._own(store, repo, name, by)
            await store.commit(repo, to)
            if head.revision == to:
                return head
            _check_head(repo, head, expected)
            return await self._moved(store, repo, head, to, AdvanceCause.moved)

    async def delete(
        self, repo: str, name: BranchName, expected: Revision, by: PrincipalId
    ) -> None:
        """Delete a branch; see `core.ports.Branches.delete_branch`."""
        _refuse_reserved(name, "deleted")
        async with self._transactions.branch_lock(repo), self._stores.change(repo) as store:
            await store.head(repo, "main")
            if await store.find_branch(repo, name) is None:
                return
            head = await self._own(store, repo, name, by)
            _check_head(repo, head, expected)
            await store.delete_branch(repo, name, expected)
            fact = self._commits.branch_fact(
                repo, name, expected, expected, AdvanceCause.deleted, by
            )
            await store.add_facts([fact])

    async def commit(
        self,
        repo: str,
        name: BranchName,
        expected: Revision,
        edits: Sequence[TreeEdit],
        author: PrincipalId,
        message: str,
    ) -> Revision:
        """Commit edits on a branch of one's own, and return its new head."""
        _refuse_reserved(name, "committed to")
        editing.check_edits(edits)
        async with self._transactions.branch_lock(repo), self._stores.change(repo) as store:
            head = await self._own(store, repo, name, author)
            _check_head(repo, head, expected)
            changed = await changed_by(store, repo, head.revision, edits)
            if not changed:
                raise Conflict(f"{name} has these files already.")
            before = {c.path: c.before for c in changed if c.before}
            files: dict[str, FileContent | None] = {c.path: None for c in changed if c.to}
            files |= {c.to or c.path: c.after for c in changed}
            entries = await self._transactions.store_files(store, files, before)
            root = (await store.commit(repo, head.revision)).tree
            tree = await store.update_tree(root, entries)
            text = CommitText((author,), message)
            return await self._committed(store, repo, head, tree, text, AdvanceCause.committed)

    async def pick(
        self, repo: str, revision: Revision, name: BranchName, author: PrincipalId
    ) -> Revision:
        """Commit on a branch of one's own what another commit changed; return its new head."""
        _refuse_reserved(name, "committed to")
        async with self._transactions.branch_lock(repo), self._stores.change(repo) as store:
            await self._own(store, repo, name, author)
            picked = await self._picked(store, repo, revision, name)
            entries = await self._transactions.store_files(
                store, picked.merged.files, picked.current
            )
            tree = await store.update_tree(picked.root, entries)
            text = CommitText.of(author, picked.message, {TrailerKey.picked_from: revision})
            return await self._committed(store, repo, picked.head, tree, text, AdvanceCause.picked)

    async def pick_draft(self, repo: str, revision: Revision) -> PickDraft:
        """Return the edits that do on `main` again what a commit changed."""
        async with self._stores.begin() as store:
            picked = await self._picked(store, repo, revision, "main")
            merged = picked.merged
            blobs = {f.body.decode() for f in merged.files.values() if f and f.is_blob}
            sizes = await store.blob_sizes(blobs)
        edits = editing.edits_between(picked.current, merged.files, merged.moves, sizes)
        return PickDraft(
            repo=repo, base=picked.head.revision, edits=tuple(edits), message=picked.message
        )

    async def _picked(self, store: Store, repo: str, revision: Revision, name: str) -> _Picked:
        """Merge what a commit changed onto a branch; raise `Stale`."""
        head = await store.branch(repo, name)
        commit = await store.commit(repo, revision)
        before = trees.EMPTY_ROOT
        if commit.parents:
            before = (await store.commit(repo, commit.parents[0])).tree
        changes = with_moves(await store.differences(before, commit.tree))
        changed = await sides.changed_files(store, changes)
        paths = {path for c in changed for path in (c.path, c.to) if path}
        root = (await store.commit(repo, head.revision)).tree
        current = await sides.file_contents(store, await store.entries(root, paths))
        size = sum(len(file.body) for file in current.values())
        merged = await in_thread(size, merge_changes, changed, current, Resolve.refuse)
        await check_places(store, root, merged, current)
        refuse_stale(merged.conflicts, name, revision, changed, current)
        if not merged.files:
            raise Conflict(f"{name} has all that {revision[:12]} changed.")
        return _Picked(head, root, current, merged, commit.message)

    async def _committed(
        self,
        store: Store,
        repo: str,
        head: BranchHead,
        tree: str,
        text: CommitText,
        cause: AdvanceCause,
    ) -> Revision:
        signed = self._commits.sign(repo, (head.revision,), tree, text)
        await store.add_commit(repo, signed)
        await self._moved(store, repo, head, signed.revision, cause)
        return signed.revision

    async def _moved(
        self, store: Store, repo: str, head: BranchHead, to: Revision, cause: AdvanceCause
    ) -> BranchHead:
        await store.move_branch(repo, head.name, to, head.revision)
        assert head.owner is not None  # noqa: S101 - only owned branches move here
        await self._add_fact(store, repo, head.name, head.revision, to, cause, head.owner)
        return BranchHead(name=head.name, revision=to, owner=head.owner)

    async def _add_fact(
        self,
        store: Store,
        repo: str,
        name: BranchName,
        before: Revision | None,
        after: Revision,
        cause: AdvanceCause,
        by: PrincipalId,
    ) -> None:
        await store.add_facts([self._commits.branch_fact(repo, name, before, after, cause, by)])

    async def _own(self, store: Store, repo: str, name: BranchName, by: PrincipalId) -> BranchHead:
        head = await store.find_branch(repo, name)
        if head is None:
            await store.head(repo, "main")
            raise NotFound(
                f"There is no branch {name} of {repo}.", hint="Make it: angelos repo branch NAME."
            )
        if head.owner != by:
            raise Forbidden(
                f"{name} belongs to {head.owner}; only they move it.",
                hint="Make a branch of your own, or propose your change for main.",
            )
        return head


def _refuse_reserved(name: BranchName, done: str) -> None:
    if name in RESERVED or name.partition("/")[0] == PROPOSALS:
        raise Refused(
            f"{name} is not {done} by anybody: main moves to what was tested, dev by acceptance.",
            hint="Propose your change, or use a branch of your own.",
        )


def _check_head(repo: str, head: BranchHead, expected: Revision) -> None:
    if head.revision != expected:
        raise Conflict(
            f"{head.name} of {repo} is at {head.revision[:12]}, not at {expected[:12]};"
            " nothing was moved.",
            revision=head.revision,
        )
