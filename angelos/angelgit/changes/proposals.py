r"""Proposals beside `dev`: recorded and tried, accepted into it, and taken out again.

For example:

    edits = [NewText(path="a.txt", text="two\n")]
    await proposals.propose(id, "study", base, edits, author, "why")
    revision = await proposals.merge(id)
    await proposals.revert(id)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import candidates, overlay, prepare
from angelos.angelgit.changes.commits import CommitWriter
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.documents import crdt
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    AdvanceCause,
    PathChange,
    PathOp,
    PreparedProposal,
    ProposalStatus,
    StoredProposal,
    Transaction,
    proposal_digest,
    sha256,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.paths import safe_path
from angelos.core.pending import Pending
from angelos.core.repository import Edit, NewText, Proposed

MAX_EDITS = 256
_PAGE = 100


class DevProposals:
    """The proposals of all repositories."""

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        transactions: Transactions,
        commits: CommitWriter,
    ) -> None:
        self._database = database
        self._live = live
        self._transactions = transactions
        self._commits = commits

    # -- propose -----------------------------------------------------------------------------

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[Edit],
        author: PrincipalId,
        message: str,
    ) -> Proposed:
        """Store edits against `base` and return what they change; nothing is merged."""
        paths = {edit.path for edit in edits}
        if not 0 < len(edits) <= MAX_EDITS or len(paths) != len(edits):
            raise InvalidInput(f"A proposal has 1 to {MAX_EDITS} edits, one for each path.")
        digest = proposal_digest(repo, base, author, edits)
        if (stored := await self._find(proposal, digest)) is not None:
            return stored
        prepared = await self._prepare(repo, base, edits)
        if not prepared:
            raise InvalidInput("These edits change nothing in their base revision.")
        before = {p.change.path: p.before for p in prepared if p.before is not None}
        after = {p.change.path: p.after for p in prepared if p.after is not None}
        record = PreparedProposal(
            id=proposal,
            repo=repo,
            base=base,
            author=author,
            message=message,
            digest=digest,
            edits=tuple(edits),
            paths=tuple(p.change for p in prepared),
            before=_hashes(before),
            after=_hashes(after),
            diffs={p.change.path: p.diff for p in prepared},
        )
        current = await self._live_texts(record)
        await self._refuse_conflicts(record, before, current, after)
        async with self._database.transaction() as conn:
            store = Store(conn)
            await store.add_blobs(text.encode() for text in after.values())
            added = await store.add_proposal(record)
        if not added and (stored := await self._find(proposal, digest)) is not None:
            return stored  # the same call ran beside this one
        return trees.proposed(record)

    async def _live_texts(self, record: PreparedProposal) -> dict[str, str]:
        """Return the current texts of a proposal's files, of those that `dev` has."""
        texts: dict[str, str] = {}
        for change in record.paths:
            with contextlib.suppress(NotFound):
                texts[change.path] = await self._live.text(record.repo, change.path)
        return texts

    async def _find(self, proposal: ProposalId, digest: str) -> Proposed | None:
        """Return a stored proposal; raise `Conflict` if its edits are others."""
        async with self._database.transaction() as conn:
            stored = await Store(conn).find_proposal(proposal)
        if stored is not None and stored.record.digest != digest:
            raise Conflict(f"Proposal {proposal} exists already with other edits.")
        return trees.proposed(stored.record) if stored else None

    async def _prepare(
        self, repo: str, base: Revision, edits: Sequence[Edit]
    ) -> list[prepare.PreparedEdit]:
        async with self._database.transaction() as conn:
            store = Store(conn)
            _, manifest = await store.commit(repo, base)
            files = trees.by_path(manifest)
            touched = [files[p] for p in (safe_path(e.path) for e in edits) if p in files]
            blobs = await store.blobs([s for f in touched for s in (f.sha256, f.state)])
        new = {e.path for e in edits} - files.keys()
        if new and (pair := trees.file_below_file({*files, *new})):
            raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=trees.BESIDE)
        prepared: list[prepare.PreparedEdit] = []
        for edit in edits:
            file = files.get(edit.path)
            text = blobs[file.sha256].decode() if file else ""
            base_file = prepare.BaseFile(file, text, blobs[file.state]) if file else None
            size = len(text) + (len(edit.text) if isinstance(edit, NewText) else 0)
            result = await in_thread(size, prepare.prepare_edit, edit, base_file)
            prepared += [result] if result else []
        return prepared

    async def _refuse_conflicts(
        self,
        record: PreparedProposal,
        base: Mapping[str, str],
        current: Mapping[str, str],
        proposed: Mapping[str, str],
    ) -> None:
        size = sum(len(text) for side in (base, current, proposed) for text in side.values())
        dev = self._live.index.paths(record.repo)
        conflicts = await in_thread(
            size, prepare.find_conflicts, record.paths, dev, base, current, proposed
        )
        prepare.refuse_conflicts(conflicts, record.base)

    # -- merge -------------------------------------------------------------------------------

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`; a second time does nothing."""
        repo = (await self._proposal(proposal)).record.repo
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            stored = await self._proposal(proposal)
            record = stored.record
            if stored.status in (ProposalStatus.reverted, ProposalStatus.withdrawn):
                raise Conflict(f"Proposal {proposal} was {stored.status}; propose it again.")
            if stored.status is ProposalStatus.promoted:
                raise Conflict(f"Proposal {proposal} is part of main already.")
            if stored.merged is not None:
                return stored.merged
            locked = self._transactions.documents_to_lock(repo, record.paths)
            async with self._live.lock(locked):
                await self._commits.commit_live_edits(repo, locked)
                base, proposed = await self._texts(record.before, record.after)
                current = await self._current_texts(repo, record.paths)
                await self._refuse_conflicts(record, base, current, proposed)
                # First onto main, then onto dev: dev gets main's update and what it needs beside
                # it, so that a later candidate brings nothing that dev has not.
                rebased = await self._rebase_onto_main(stored)
                paths = [
                    await self._rebase_onto_dev(repo, p, base, proposed, merge_alike=True)
                    for p in rebased
                ]
                transaction = Transaction(
                    id=proposal,
                    repo=repo,
                    cause=AdvanceCause.proposal,
                    author=record.author,
                    message=record.message,
                    paths=tuple(paths),
                    proposal=proposal,
                    rebased=rebased if rebased != record.paths else (),
                )
                await self._transactions.begin(transaction)
                revision = await self._transactions.execute(transaction)
            await self._transactions.publish(transaction)
        return revision

    async def _current_texts(self, repo: str, paths: Sequence[PathChange]) -> dict[str, str]:
        """Return the texts in `dev` of documents whose locks the caller holds."""
        dev = self._live.index.paths(repo)
        current: dict[str, str] = {}
        for change in paths:
            if change.op is not PathOp.create and dev.get(change.path) == change.document:
                replica = await self._live.replica(repo, change.document, change.path)
                current[change.path] = replica.text()
        return current

    async def _rebase_onto_main(self, stored: StoredProposal) -> tuple[PathChange, ...]:
        """Return a proposal's changes with updates that give the expected text on `main`."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            repo = stored.record.repo
            _, main = await store.commit(repo, await store.head(repo, "main"))
            rebased = await candidates.rebase_paths(store, stored, main)
            await store.add_blobs(r.state or crdt.EMPTY for r in rebased if r.rewritten)
        return tuple(r.change for r in rebased)

    async def _rebase_onto_dev(
        self,
        repo: str,
        change: PathChange,
        before: Mapping[str, str],
        after: Mapping[str, str],
        *,
        merge_alike: bool = False,
    ) -> PathChange:
        """Return a change as it is made in `dev`; the caller holds the document's lock."""
        if change.op is not PathOp.edit:
            return change
        state = (await self._live.replica(repo, change.document, change.path)).state()
        texts = (before[change.path], after[change.path])
        update = await in_thread(
            len(state),
            partial(rebase.onto_dev, merge_alike=merge_alike),
            change.path,
            state,
            change.update,
            *texts,
        )
        return msgspec.structs.replace(change, update=update)

    # -- revert ------------------------------------------------------------------------------

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev`, and leave everybody else's."""
        repo = (await self._proposal(proposal)).record.repo
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            stored = await self._proposal(proposal)
            record = stored.record
            if stored.reverted is not None:
                return stored.reverted
            if stored.status is not ProposalStatus.merged:
                raise Conflict(
                    f"Proposal {proposal} is {stored.status}, so it cannot be taken out of dev.",
                    hint="What is on main is taken back by a rollback.",
                )
            inverses = await self._inverses(record)
            locked = self._transactions.documents_to_lock(repo, record.paths)
            async with self._live.lock(locked):
                await self._commits.commit_live_edits(repo, locked)
                before, after = await self._texts(record.before, record.after)
                paths = [
                    await self._revert_path(repo, p, inverses, before, after) for p in record.paths
                ]
                transaction = Transaction(
                    id=f"{proposal}.revert",
                    repo=repo,
                    cause=AdvanceCause.revert,
                    author=record.author,
                    message=f"Revert: {record.message}",
                    paths=tuple(paths),
                    proposal=proposal,
                    inverses=inverses,
                )
                await self._transactions.begin(transaction)
                revision = await self._transactions.execute(transaction)
            await self._transactions.publish(transaction)
        return revision

    async def _inverses(self, record: PreparedProposal) -> dict[str, bytes]:
        """Return, by document, the update that takes a proposal's update out again."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            _, manifest = await store.commit(record.repo, record.base)
            files = {f.document: f for f in manifest}
            bases = {
                p.document: p.update_base or files[p.document].state
                for p in record.paths
                if p.update_base or p.document in files
            }
            states = await store.blobs(bases.values())
        inverses = {}
        for change in record.paths:
            if change.update:
                sha = bases.get(change.document)
                state = states[sha] if sha else crdt.EMPTY
                inverses[change.document] = await in_thread(
                    len(state), crdt.inverse, change.path, state, change.update
                )
        return inverses

    async def _revert_path(
        self,
        repo: str,
        change: PathChange,
        inverses: Mapping[str, bytes],
        before: Mapping[str, str],
        after: Mapping[str, str],
    ) -> PathChange:
        """Return the change that takes another one out of `dev`, in its current state."""
        path, document, mode = change.path, change.document, change.mode
        current = self._live.index.paths(repo).get(path)
        if change.op is PathOp.delete:
            if current is not None:
                raise Conflict(f"{path} was recreated in dev since it was deleted.")
            if blocker := trees.path_clash(self._live.index.paths(repo), path):
                raise Conflict(f"dev has {blocker} since {path} was deleted.", hint=trees.BESIDE)
            return PathChange(path=path, document=document, op=PathOp.revive, mode=mode)
        update = inverses[document]
        empty = crdt.text_of(path, crdt.EMPTY)
        if change.op is PathOp.create and current == document:
            replica = await self._live.replica(repo, document, path)
            if crdt.text_of(path, replica.state(), update) in ("", empty):
                return PathChange(path=path, document=document, op=PathOp.delete, mode=mode)
        inverse = PathChange(path=path, document=document, op=PathOp.edit, update=update, mode=mode)
        return await self._rebase_onto_dev(repo, inverse, after, {path: empty, **before})

    # -- pending -----------------------------------------------------------------------------

    async def withdraw(self, proposal: ProposalId) -> None:
        """Close a proposal that is not in `dev`; a second time does nothing."""
        repo = (await self._proposal(proposal)).record.repo
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            async with self._database.transaction() as conn:
                if await Store(conn).mark_withdrawn(proposal):
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
            async with self._database.transaction() as conn:
                page = await Store(conn).pending(repo, cursor, _PAGE)
            for stored in page:
                cursor = stored.record.id
                if len(pending) < limit and (
                    not path or any(change.path == path for change in stored.record.paths)
                ):
                    pending.append(await self._tried(stored))
            if len(page) < _PAGE:
                break
        return pending

    async def _tried(self, stored: StoredProposal) -> Pending:
        record = stored.record
        before, after = await self._texts(record.before, record.after)
        is_open = stored.status is ProposalStatus.proposed
        live = await self._live_texts(record) if is_open else {}
        dev = self._live.index.paths(record.repo)
        size = sum(len(text) for side in (before, after, live) for text in side.values())
        async with self._database.transaction() as conn:
            head = await Store(conn).head(record.repo, "dev")
        sides = overlay.ProposalTexts(before, after, live, dev)
        return await in_thread(size, overlay.pending_of, stored, sides, head)

    # -- reading -----------------------------------------------------------------------------

    async def _proposal(self, proposal: ProposalId) -> StoredProposal:
        async with self._database.transaction() as conn:
            return await Store(conn).proposal(proposal)

    async def _texts(self, *sides: Mapping[str, str]) -> list[dict[str, str]]:
        """Return path -> text for each path -> SHA-256."""
        async with self._database.transaction() as conn:
            blobs = await Store(conn).blobs([sha for side in sides for sha in side.values()])
        return [{path: blobs[sha].decode() for path, sha in side.items()} for side in sides]


def _hashes(texts: Mapping[str, str]) -> dict[str, str]:
    return {path: sha256(text.encode()) for path, text in texts.items()}
