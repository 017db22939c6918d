r"""A proposal's way through `dev`: taken in, merged, and taken out again.

await proposals.propose(id, "study", base, [NewText(path="a.txt", text="two\\n")], author, "why")
revision = await proposals.merge(id)
await proposals.revert(id)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import candidates, prepare
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.documents import documents
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    PathChange,
    PreparedProposal,
    Transaction,
    proposal_digest,
    sha256,
)
from angelos.angelgit.storage.store import Store, StoredProposal
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.paths import safe_path
from angelos.core.repository import Edit, Proposed

MAX_EDITS = 256


class DevProposals:
    """Proposals of all repositories."""

    def __init__(self, database: Database, live: LiveReplicas, transactions: Transactions) -> None:
        """Take the parts."""
        self._database = database
        self._live = live
        self._transactions = transactions

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[Edit],
        author: PrincipalId,
        message: str,
    ) -> Proposed:
        """Take edits against `base` durably and return what they change; nothing is merged."""
        if not 0 < len(edits) <= MAX_EDITS or len({e.path for e in edits}) != len(edits):
            raise InvalidInput(f"A proposal has 1 to {MAX_EDITS} edits, one for each path.")
        digest = proposal_digest(repo, base, author, edits)
        if (known := await self._same(proposal, digest)) is not None:
            return known
        made = await self._prepare(repo, base, edits)
        if not made:
            raise InvalidInput("These edits change nothing in their base revision.")
        record = PreparedProposal(
            id=proposal,
            repo=repo,
            base=base,
            author=author,
            message=message,
            digest=digest,
            edits=tuple(edits),
            paths=tuple(d.change for d in made),
            before={d.change.path: sha256(d.before.encode()) for d in made if d.before is not None},
            after={d.change.path: sha256(d.after.encode()) for d in made if d.after is not None},
            diffs={d.change.path: d.diff for d in made},
        )
        theirs: dict[str, str] = {}
        for path in (d.change.path for d in made):
            with contextlib.suppress(NotFound):  # dev does not have it, or not any more
                theirs[path] = await self._live.text(repo, path)
        await self._refuse_stale(
            record,
            {d.change.path: d.before for d in made if d.before is not None},
            theirs,
            {d.change.path: d.after for d in made if d.after is not None},
        )
        async with self._database.transaction() as conn:
            store = Store(conn)
            await store.add_blobs(d.after.encode() for d in made if d.after is not None)
            added = await store.add_proposal(record)
        if not added and (known := await self._same(proposal, digest)) is not None:
            return known
        return trees.proposed(record)

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
        if new and (pair := trees.entangled({*files, *new})):
            raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=trees.BESIDE)
        made: list[prepare.PreparedEdit] = []
        for edit in edits:
            file = files.get(edit.path)
            text = blobs[file.sha256].decode() if file else ""
            known = prepare.BaseFile(file, text, blobs[file.state]) if file else None
            one = await in_thread(
                len(text) + len(getattr(edit, "text", "")), prepare.prepare_edit, edit, known
            )
            made += [one] if one else []
        return made

    async def _same(self, proposal: ProposalId, digest: str) -> Proposed | None:
        async with self._database.transaction() as conn:
            stored = await Store(conn).find_proposal(proposal)
        if stored is not None and stored.record.digest != digest:
            raise Conflict(f"Proposal {proposal} exists already with other edits.")
        return trees.proposed(stored.record) if stored else None

    async def _refuse_stale(
        self,
        record: PreparedProposal,
        base: Mapping[str, str],
        theirs: Mapping[str, str],
        yours: Mapping[str, str],
    ) -> None:
        size = sum(len(text) for side in (base, theirs, yours) for text in side.values())
        dev = self._live.paths(record.repo)
        found = await in_thread(
            size, prepare.find_conflicts, record.paths, dev, base, theirs, yours
        )
        prepare.refuse(found, record.base)

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`; merging twice is once."""
        record = (await self._proposal(proposal)).record
        repo = record.repo
        async with self._transactions.lock(repo):
            await self._transactions.recover(repo)
            stored = await self._proposal(proposal)
            if stored.merged is not None and stored.state != "reverted":
                return stored.merged
            if stored.state == "reverted":
                raise Conflict(f"Proposal {proposal} was taken out of dev; propose it anew.")
            held = self._transactions.held(repo, record.paths)
            async with self._live.hold(held):
                await self._transactions.commit_live_edits(repo, held)
                base, yours = await self._texts(record.before, record.after)
                theirs = {}
                for path in record.paths:
                    if self._live.has(repo, path.path) and path.op != "create":
                        document = self._live.document(repo, path.path)
                        if document == path.document:
                            replica = await self._live.replica(repo, document, path.path)
                            theirs[path.path] = replica.text()
                await self._refuse_stale(record, base, theirs, yours)
                keep = await self._rebase(stored)
                paths = [await self._rebase_onto_dev(repo, p, base, yours) for p in keep]
                change = Transaction(
                    id=proposal,
                    repo=repo,
                    cause="proposal",
                    author=record.author,
                    message=record.message,
                    paths=tuple(paths),
                    proposal=proposal,
                    keep=keep if keep != record.paths else (),
                )
                await self._transactions.begin(change)
                revision = await self._transactions.execute(change)
            await self._transactions.publish(change)
        return revision

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev` again, around everybody else's."""
        record = (await self._proposal(proposal)).record
        repo = record.repo
        async with self._transactions.lock(repo):
            await self._transactions.recover(repo)
            stored = await self._proposal(proposal)
            if stored.reverted is not None:
                return stored.reverted
            if stored.state != "merged":
                raise Conflict(
                    f"Proposal {proposal} is {stored.state}, so it cannot be taken out of dev.",
                    hint="What is on main is taken back by a rollback.",
                )
            inverses = await self._inverses(record)
            held = self._transactions.held(repo, record.paths)
            async with self._live.hold(held):
                await self._transactions.commit_live_edits(repo, held)
                before, after = await self._texts(record.before, record.after)
                paths = [await self._undo(repo, p, inverses, before, after) for p in record.paths]
                change = Transaction(
                    id=f"{proposal}.revert",
                    repo=repo,
                    cause="revert",
                    author=record.author,
                    message=f"Revert: {record.message}",
                    paths=tuple(paths),
                    proposal=proposal,
                    inverses=inverses,
                )
                await self._transactions.begin(change)
                revision = await self._transactions.execute(change)
            await self._transactions.publish(change)
        return revision

    async def _inverses(self, record: PreparedProposal) -> dict[str, bytes]:
        async with self._database.transaction() as conn:
            store = Store(conn)
            _, manifest = await store.commit(record.repo, record.base)
            files = {f.document: f for f in manifest}
            made_on = {
                p.document: p.made_on or files[p.document].state
                for p in record.paths
                if p.made_on or p.document in files
            }
            states = await store.blobs(made_on.values())
        inverses = {}
        for path in record.paths:
            if path.update:
                sha = made_on.get(path.document)
                base = states[sha] if sha else documents.EMPTY
                inverses[path.document] = await in_thread(
                    len(base), documents.inverse, path.path, base, path.update
                )
        return inverses

    async def _rebase(self, stored: StoredProposal) -> tuple[PathChange, ...]:
        """Return a proposal's paths with updates that give the expected text on `main`."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            repo = stored.record.repo
            _, main = await store.commit(repo, await store.head(repo, "main"))
            fitted = await candidates.rebase_paths(store, stored, main)
            await store.add_blobs(f.state or documents.EMPTY for f in fitted if f.anew)
        return tuple(f.change for f in fitted)

    async def _rebase_onto_dev(
        self, repo: str, path: PathChange, before: Mapping[str, str], after: Mapping[str, str]
    ) -> PathChange:
        """Return a path with all that `dev` needs to hold the expected text; its lock is held."""
        if path.op != "edit":
            return path
        trees = (await self._live.replica(repo, path.document, path.path)).state()
        update = await in_thread(
            len(trees),
            rebase.onto_dev,
            path.path,
            trees,
            path.update,
            before[path.path],
            after[path.path],
        )
        return msgspec.structs.replace(path, update=update)

    async def _undo(
        self,
        repo: str,
        path: PathChange,
        inverses: dict[str, bytes],
        before: Mapping[str, str],
        after: Mapping[str, str],
    ) -> PathChange:
        """Return how `dev` gets rid of one path's change, given its present state."""
        here = self._live.paths(repo).get(path.path)
        if path.op == "delete":
            if here is not None:
                raise Conflict(f"{path.path} was made anew in dev since it was deleted.")
            if other := trees.clash(self._live.paths(repo), path.path):
                raise Conflict(f"dev has {other} since {path.path} was deleted.", hint=trees.BESIDE)
            return PathChange(path=path.path, document=path.document, op="revive", mode=path.mode)
        update = inverses[path.document]
        if path.op == "create" and here == path.document:
            replica = await self._live.replica(repo, path.document, path.path)
            left = documents.text_of(path.path, replica.state(), update)
            if left in ("", documents.text_of(path.path, documents.EMPTY)):
                return PathChange(
                    path=path.path, document=path.document, op="delete", mode=path.mode
                )
        empty = documents.text_of(path.path, documents.EMPTY)
        undo = PathChange(
            path=path.path, document=path.document, op="edit", update=update, mode=path.mode
        )
        return await self._rebase_onto_dev(repo, undo, after, {path.path: empty, **before})

    async def _proposal(self, proposal: ProposalId) -> StoredProposal:
        async with self._database.transaction() as conn:
            return await Store(conn).proposal(proposal)

    async def _texts(self, *sides: Mapping[str, str]) -> list[dict[str, str]]:
        """Return path -> text for each path -> hash."""
        async with self._database.transaction() as conn:
            blobs = await Store(conn).blobs([sha for side in sides for sha in side.values()])
        return [{path: blobs[sha].decode() for path, sha in side.items()} for side in sides]
