r"""Proposals: recorded, merged into `dev`, and taken out again.

For example:

    edits = [NewText(path="a.txt", text="two\n")]
    await proposals.propose(id, "study", base, edits, author, "why")
    revision = await proposals.merge(id)
    await proposals.revert(id)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from angelos.angelgit.changes import editing, overlay, sides
from angelos.angelgit.changes.commits import CommitText
from angelos.angelgit.changes.transactions import DevChange, Transactions
from angelos.angelgit.documents.edits import is_cut, unified_diff, whole_diff
from angelos.angelgit.merge.changes import (
    ChangedFile,
    MergedFiles,
    blocked,
    merge_changes,
    refuse_conflicts,
    refuse_stale,
)
from angelos.angelgit.merge.files import FileContent, Resolve, content_of
from angelos.angelgit.merge.parts import left_of_changes
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    AdvanceCause,
    FileChange,
    PreparedProposal,
    ProposalStatus,
    StoredProposal,
    encode,
    proposal_digest,
    sha256,
)
from angelos.angelgit.storage.store import Store, Stores
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, InvalidInput
from angelos.core.facts import Fact
from angelos.core.ids import HunkId, PrincipalId, ProposalId, Revision
from angelos.core.pending import HunkState, Pending
from angelos.core.repository import (
    NEW,
    Branch,
    Change,
    ProposalOrigin,
    Proposed,
    PutBlob,
    RevertDraft,
    TreeEdit,
)
from angelos.core.revision_v2 import EntryMode, TrailerKey

_PAGE = 100


class DevProposals:
    """The proposals of all repositories."""

    def __init__(self, stores: Stores, live: LiveReplicas, transactions: Transactions) -> None:
        self.stores = stores
        self.live = live
        self.transactions = transactions

    # -- propose -----------------------------------------------------------------------------

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[TreeEdit],
        author: PrincipalId,
        message: str,
        origin: ProposalOrigin = NEW,
    ) -> Proposed:
        """Store edits against `base` and return what they change; nothing is merged."""
        editing.check_edits(edits)
        digest = proposal_digest(repo, base, author, edits)
        if (stored := await self._find(proposal, digest)) is not None:
            return stored
        async with self.stores.begin() as store:
            changed = await changed_by(store, repo, base, edits)
            if not changed and not await store.was_main(repo, base):
                # The text is what `dev` has; what `main` lacks of it is proposed.
                base = await store.head(repo, "main")
                changed = await changed_by(store, repo, base, edits)
        if not changed:
            raise InvalidInput("These edits change nothing in their base revision.")
        paths = _touched(changed)
        documents = self.live.index.paths(repo)
        locked = {documents[path] for path in paths if path in documents}
        async with self.live.lock(locked), self.stores.begin() as store:
            current = await self.transactions.dev_files(store, repo, paths)
            merged = await self.merged_with_dev(store, repo, changed, current, Resolve.refuse)
        refuse_stale(merged.conflicts, "dev", base, changed, current)
        async with self.stores.change(repo) as store:
            record = PreparedProposal(
                id=proposal,
                repo=repo,
                base=base,
                author=author,
                message=message,
                digest=digest,
                changes=await self.stored_changes(store, changed),
                edits=await _stored_edits(store, edits, changed),
                reverts=origin.reverts,
                picked_from=origin.picked_from,
                dev_base=not await store.was_main(repo, base),
            )
            added = await store.add_proposal(record)
        if not added and (stored := await self._find(proposal, digest)) is not None:
            return stored  # the same call ran beside this one
        return await proposed(record, changed)

    async def _find(self, proposal: ProposalId, digest: str) -> Proposed | None:
        """Return a stored proposal; raise `Conflict` if its edits are others."""
        async with self.stores.begin() as store:
            stored = await store.find_proposal(proposal)
            if stored is None:
                return None
            if stored.record.digest != digest:
                raise Conflict(f"Proposal {proposal} exists already with other edits.")
            changed = await sides.changed_files(store, stored.record.changes)
        return await proposed(stored.record, changed)

    async def stored_changes(
        self, store: Store, changed: Sequence[ChangedFile]
    ) -> tuple[FileChange, ...]:
        """Store the proposed contents, and return the changes by their hashes."""
        before = {c.path: c.before for c in changed if c.before}
        after = {c.path: c.after for c in changed if c.after}
        old = await self.transactions.store_files(store, before, {})
        new = await self.transactions.store_files(store, after, before)
        rows = []
        for change in changed:
            entry = new.get(change.path)
            if entry is not None and change.to:
                entry = type(entry)(change.to, entry.mode, entry.sha256, entry.size)
            rows.append(
                FileChange(path=change.path, before=old.get(change.path), after=entry, to=change.to)
            )
        return tuple(rows)

    async def merged_with_dev(
        self,
        store: Store,
        repo: str,
        changed: Sequence[ChangedFile],
        current: Mapping[str, FileContent],
        resolve: Resolve,
    ) -> MergedFiles:
        """Return what changes make of `dev`."""
        size = sum(len(f.body) for c in changed for f in (c.before, c.after) if f)
        size += sum(len(file.body) for file in current.values())
        merged = await in_thread(size, merge_changes, changed, current, resolve)
        commit = await store.commit(repo, await store.head(repo, "dev"))
        await check_places(store, commit.tree, merged, current)
        return merged

    # -- merge -------------------------------------------------------------------------------

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`; a second time does nothing."""
        stored = await self._proposal(proposal)
        record = stored.record
        async with self.transactions.branch_lock(record.repo):
            await self.transactions.recover(record.repo)
            paths = _touched_by(record.changes)
            locked = self.transactions.documents_to_lock(record.repo, paths)
            async with self.live.lock(locked):
                async with self.stores.begin() as store:
                    stored = await store.proposal(proposal)
                    if stored.status in (ProposalStatus.reverted, ProposalStatus.withdrawn):
                        raise Conflict(
                            f"Proposal {proposal} was {stored.status}; propose it again."
                        )
                    if stored.status is ProposalStatus.promoted:
                        raise Conflict(f"Proposal {proposal} is part of main already.")
                    if stored.merged is not None:
                        return stored.merged
                    changed = await own_changes(store, record)
                    current = await self.transactions.dev_files(store, record.repo, paths)
                    merged = await self.merged_with_dev(
                        store, record.repo, changed, current, Resolve.refuse
                    )
                refuse_stale(merged.conflicts, "dev", record.base, changed, current)

                async def mark(store: Store, revision: Revision) -> list[Fact]:
                    await store.mark_merged(proposal, revision)
                    return []

                change = DevChange(
                    AdvanceCause.proposal, commit_text(record), merged, proposal=proposal
                )
                revision, published = await self.transactions.commit(
                    record.repo, change, current, locked, mark
                )
            await self.transactions.publish(published)
        return revision

    # -- revert ------------------------------------------------------------------------------

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev`, and leave everybody else's."""
        stored = await self._proposal(proposal)
        record = stored.record
        async with self.transactions.branch_lock(record.repo):
            await self.transactions.recover(record.repo)
            paths = _touched_by(record.changes)
            locked = self.transactions.documents_to_lock(record.repo, paths)
            async with self.live.lock(locked):
                async with self.stores.begin() as store:
                    stored = await store.proposal(proposal)
                    if stored.reverted is not None:
                        return stored.reverted
                    if stored.status is not ProposalStatus.merged:
                        raise Conflict(
                            f"Proposal {proposal} is {stored.status}, so it cannot be taken out.",
                            hint="What is on main is taken back by a proposal that reverts it.",
                        )
                    changed = inverted(await own_changes(store, record))
                    current = await self.transactions.dev_files(store, record.repo, paths)
                    merged = await self.merged_with_dev(
                        store, record.repo, changed, current, Resolve.weave
                    )
                refuse_conflicts(merged.conflicts)

                async def mark(store: Store, revision: Revision) -> list[Fact]:
                    await store.mark_reverted(proposal, revision)
                    return []

                trailers: dict[TrailerKey, str | None] = {TrailerKey.reverts: proposal}
                text = CommitText.of(record.author, f"Revert: {record.message}", trailers)
                change = DevChange(AdvanceCause.revert, text, merged, proposal=proposal)
                revision, published = await self.transactions.commit(
                    record.repo, change, current, locked, mark
                )
            await self.transactions.publish(published)
        return revision

    async def revert_draft(self, proposal: ProposalId) -> RevertDraft:
        """Return the edits that take a proposal back, on the branch that has it."""
        stored = await self._proposal(proposal)
        record = stored.record
        on_main = stored.status is ProposalStatus.promoted
        if not on_main and stored.status is not ProposalStatus.merged:
            raise Conflict(
                f"Proposal {proposal} is {stored.status}; nothing of it can be taken back.",
                hint="A proposal that waits is rejected instead.",
            )
        if not on_main:
            await self.transactions.commit_typed(record.repo)
        paths = _touched_by(record.changes)
        branch = "main" if on_main else "dev"
        async with self.stores.begin() as store:
            base = await store.head(record.repo, branch)
            changed = inverted(await own_changes(store, record))
            current = await sides.revision_files(store, record.repo, base, paths)
            size = sum(len(file.body) for file in current.values())
            merged = await in_thread(size, merge_changes, changed, current, Resolve.weave)
            await check_places(store, (await store.commit(record.repo, base)).tree, merged, current)
            blobs = {f.body.decode() for f in merged.files.values() if f and f.is_blob}
            sizes = await store.blob_sizes(blobs)
        refuse_stale(merged.conflicts, branch, base, changed, current)
        edits = editing.edits_between(current, merged.files, merged.moves, sizes)
        if not edits:
            raise Conflict(f"Nothing of proposal {proposal} is left in {branch}.")
        message = f"Revert: {record.message}"
        return RevertDraft(repo=record.repo, base=base, edits=tuple(edits), message=message)

    # -- pending -----------------------------------------------------------------------------

    async def withdraw(self, proposal: ProposalId) -> None:
        """Close a proposal that is not in `dev`; a second time does nothing."""
        repo = (await self._proposal(proposal)).record.repo
        async with self.transactions.branch_lock(repo):
            await self.transactions.recover(repo)
            async with self.stores.change(repo) as store:
                if await store.mark_withdrawn(proposal):
                    return
            status = (await self._proposal(proposal)).status
            raise Conflict(f"Proposal {proposal} is {status}, so it cannot be withdrawn.")

    async def pending(self, proposal: ProposalId) -> Pending:
        """Return a proposal in hunks, tried against the present `dev`."""
        return await self._tried(await self._proposal(proposal))

    async def list_pending(
        self, repo: str, path: str, after: ProposalId | None, limit: int
    ) -> list[Pending]:
        """Return the proposals that wait beside `dev`, in the order in which they came."""
        pending: list[Pending] = []
        cursor = after or ProposalId("")
        while len(pending) < limit:
            async with self.stores.begin() as store:
                page = await store.pending(repo, cursor, _PAGE)
            for stored in page:
                cursor = stored.record.id
                if len(pending) < limit and (
                    not path or path in _touched_by(stored.record.changes)
                ):
                    pending.append(await self._tried(stored))
            if len(page) < _PAGE:
                break
        return pending

    async def _tried(self, stored: StoredProposal) -> Pending:
        record = stored.record
        paths = _touched_by(record.changes)
        is_open = stored.status is ProposalStatus.proposed
        documents = self.live.index.paths(record.repo)
        locked = {documents[path] for path in paths if path in documents} if is_open else set()
        async with self.live.lock(locked), self.stores.begin() as store:
            changed = await sides.changed_files(store, record.whole or record.changes)
            accepted = await accepted_hunks(store, record.id)
            head = await store.head(record.repo, "dev")
            current, conflicts = {}, []
            if is_open:
                current = await self.transactions.dev_files(store, record.repo, paths)
                left = await own_changes(store, record)
                merged = await self.merged_with_dev(
                    store, record.repo, left, current, Resolve.refuse
                )
                conflicts = merged.conflicts
        size = sum(len(f.body) for c in changed for f in (c.before, c.after) if f)
        tried = overlay.TriedFiles(changed, current, conflicts, accepted)
        return await in_thread(size, overlay.pending_of, stored, tried, head)

    async def _proposal(self, proposal: ProposalId) -> StoredProposal:
        async with self.stores.begin() as store:
            return await store.proposal(proposal)


async def accepted_hunks(store: Store, proposal: ProposalId) -> dict[HunkId, HunkState]:
    """Return the hunks of a proposal that are in `dev` or `main`, as parts of it."""
    states = {
        ProposalStatus.merged: HunkState.accepted,
        ProposalStatus.promoted: HunkState.promoted,
    }
    accepted: dict[HunkId, HunkState] = {}
    for part in await store.parts(proposal):
        if part.status in states:
            accepted |= dict.fromkeys(part.record.hunks, states[part.status])
    return accepted


async def own_changes(
    store: Store, record: PreparedProposal, branch: Branch = "dev"
) -> list[ChangedFile]:
    """Return what a proposal changes beside the parts of it that a branch has already."""
    accepted = await accepted_hunks(store, record.id)
    if branch == "main":
        accepted = {h: state for h, state in accepted.items() if state is HunkState.promoted}
    if not accepted:
        return await sides.changed_files(store, record.changes)
    whole = await sides.changed_files(store, record.whole or record.changes)
    size = sum(len(f.body) for c in whole for f in (c.before, c.after) if f)
    return await in_thread(size, left_of_changes, whole, accepted.keys(), record.hunks)


def commit_text(record: PreparedProposal) -> CommitText:
    """Return the text of the commits that a proposal makes."""
    trailers: dict[TrailerKey, str | None] = {
        TrailerKey.proposal: record.id,
        TrailerKey.dev_base: record.base if record.dev_base else None,
        TrailerKey.reverts: record.reverts,
        TrailerKey.picked_from: record.picked_from,
    }
    return CommitText.of(record.author, record.message, trailers)


def inverted(changed: Sequence[ChangedFile]) -> list[ChangedFile]:
    """Return the changes that take these back."""
    return [ChangedFile(c.to or c.path, c.path if c.to else "", c.after, c.before) for c in changed]


async def changed_by(
    store: Store, repo: str, base: Revision, edits: Sequence[TreeEdit]
) -> list[ChangedFile]:
    """Return what edits change in their base, with the contents."""
    commit = await store.commit(repo, base)
    paths = editing.touched(edits)
    nodes = await store.nodes(commit.tree, paths)
    entries = await store.entries(commit.tree, paths)
    files = await sides.file_contents(store, entries)
    blobs = await named_blobs(store, edits)
    size = sum(len(file.body) for file in files.values()) + len(repr(edits))
    edited = await in_thread(size, editing.apply_edits, files, edits, blobs)
    created = {p for p, file in edited.files.items() if file and p not in files}
    if pair := trees.file_below_file(created):
        raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=trees.BESIDE)
    for path in created:
        blocker = trees.clash(commit.tree, nodes, path)
        if blocker is not None and edited.files.get(blocker, ...) is not None:
            below = trees.first_below(commit.tree, await store.nodes(commit.tree), path)
            upper, lower = (path, below) if blocker == path else (blocker, path)
            raise InvalidInput(f"{lower} cannot be beside {upper}.", hint=trees.BESIDE)
    moved_to = set(edited.moves.values())
    return [
        ChangedFile(
            path,
            edited.moves.get(path, ""),
            files.get(path),
            edited.files.get(edited.moves.get(path, path)),
        )
        for path in editing.touched(edits)
        if path not in moved_to
        and path in edited.files
        and (path in edited.moves or files.get(path) != edited.files[path])
    ]


async def check_places(
    store: Store, root: str, merged: MergedFiles, current: Mapping[str, FileContent]
) -> None:
    """Add a conflict for each new file that cannot be beside what a tree has."""
    created = {path for path, file in merged.files.items() if file and path not in current}
    if not created:
        return
    nodes = await store.nodes(root, created)
    for path in sorted(created):
        blocker = trees.clash(root, nodes, path)
        if blocker is not None and merged.files.get(blocker, ...) is not None:
            if blocker == path:
                blocker = trees.first_below(root, await store.nodes(root), path) or path
            merged.conflicts.append(blocked(path, blocker))


async def named_blobs(store: Store, edits: Sequence[TreeEdit]) -> dict[str, FileContent]:
    """Return hash -> content of the blobs that edits put, of those that are stored."""
    named = {edit.sha256: edit.size for edit in edits if isinstance(edit, PutBlob)}
    if not named:
        return {}
    sizes = await store.blob_sizes(named)
    blobs: dict[str, FileContent] = {}
    for digest in {digest for digest, size in named.items() if sizes.get(digest) == size}:
        body = await store.live_text(digest, sizes[digest])
        blobs[digest] = (
            FileContent(EntryMode.file, digest.encode(), live=False)
            if body is None
            else content_of(EntryMode.file, body)
        )
    return blobs


async def proposed(record: PreparedProposal, changed: Sequence[ChangedFile]) -> Proposed:
    """Return a proposal as the port presents it."""
    size = sum(len(f.body) for c in changed for f in (c.before, c.after) if f)
    diffs = await in_thread(size, _diffs, changed)
    changes: list[Change] = []
    for row, diff in zip(record.changes, diffs, strict=True):
        before, after = row.before and row.before.sha256, row.after and row.after.sha256
        if row.to:  # whoever may not touch the old path may not move a file away from there
            changes.append(Change(path=row.path, before=before, after=None))
            before = None
        changes.append(
            Change(path=row.target, before=before, after=after, diff=diff, cut=is_cut(diff))
        )
    return Proposed(
        id=record.id,
        repo=record.repo,
        base=record.base,
        author=record.author,
        message=record.message,
        digest=record.digest,
        changes=tuple(changes),
    )


async def _stored_edits(
    store: Store, edits: Sequence[TreeEdit], changed: Sequence[ChangedFile]
) -> str:
    """Store the exact edits beside what they were made of, and return their hash."""
    body = encode(list(edits))
    digest = sha256(body)
    texts = [c.after or c.before for c in changed]
    largest = max((f for f in texts if f and f.live), key=lambda f: len(f.body), default=None)
    like = {digest: sha256(largest.body)} if largest else {}
    await store.add_contents([body], like)
    return digest


def _diffs(changed: Sequence[ChangedFile]) -> list[str]:
    return [diff_of(change.to or change.path, change.before, change.after) for change in changed]


def diff_of(
    path: str, before: FileContent | None, after: FileContent | None, *, whole: bool = False
) -> str:
    """Return the unified diff of two versions of a file; "" where one is no text.

    It is bounded unless it is to be `whole`.
    """
    if (before and not before.live) or (after and not after.live):
        return ""
    differ = whole_diff if whole else unified_diff
    return differ(before and before.text, after and after.text, path)


def _touched(changed: Sequence[ChangedFile]) -> set[str]:
    return {path for c in changed for path in (c.path, c.to) if path}


def _touched_by(changes: Sequence[FileChange]) -> set[str]:
    return {path for c in changes for path in (c.path, c.to) if path}
