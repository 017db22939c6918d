"""The branch `main`: candidates for it, its advance to a tested one, and its rollback.

candidate = await mainline.candidate(proposal)
await mainline.advance("study", candidate.revision, expected=candidate.main)
await mainline.rollback("study", to=candidate.main, author=author, reason="health check")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import candidates
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.documents import documents
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import (
    FileState,
    MainAdvance,
    Manifest,
    PathChange,
    Transaction,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, NotFound, Tampered
from angelos.core.ids import PrincipalId, ProposalId, Revision, uuid7
from angelos.core.revision import SignedCommit

_HISTORY = 100_000


class CandidateCommit(msgspec.Struct, frozen=True):
    """A candidate and the `main` that it was made on."""

    repo: str
    main: Revision
    revision: Revision


class Mainline:
    """`main` of all repositories."""

    def __init__(self, database: Database, live: LiveReplicas, transactions: Transactions) -> None:
        """Take the parts."""
        self._database = database
        self._live = live
        self._transactions = transactions

    async def candidate(self, proposal: ProposalId) -> CandidateCommit:
        """Merge a proposal onto the present `main` and commit the result on no branch."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            stored = await store.proposal(proposal)
            record = stored.record
            if stored.state != "merged":
                raise Conflict(
                    f"Proposal {proposal} is {stored.state}; a candidate needs one that is merged."
                )
            main = await store.head(record.repo, "main")
            revision = await store.find_candidate(proposal, main)
            if revision is None:
                _, manifest = await store.commit(record.repo, main)
                put, gone = await candidates.merge_into_main(store, stored, manifest)
                files = trees.with_files(manifest, [b.file for b in put], gone)
                signed = self._transactions.sign(
                    record.repo, (main,), files, record.author, record.message
                )
                revision = signed.revision
                await store.add_blobs(blob for b in put for blob in b.blobs)
                await store.add_commit(signed, files)
                await store.add_candidate(proposal, main, revision)
        return CandidateCommit(record.repo, main, revision)

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate by compare-and-set; doing so again is nothing."""
        async with self._transactions.lock(repo):
            await self._transactions.recover(repo)
            async with self._database.transaction() as conn:
                store = Store(conn)
                signed, _ = await store.commit(repo, revision)
                if await store.head(repo, "main") == revision:
                    return
                if signed.commit.parents[:1] != (expected,):
                    raise Conflict(f"{revision[:12]} was not made on {expected[:12]}.")
                if not await store.promoted(revision):
                    raise Conflict(
                        f"{revision[:12]} is no candidate of a proposal that is in dev.",
                        hint="main moves only to candidates; make one with `candidate`.",
                    )
                await store.advance_main(repo, MainAdvance(revision=revision, expected=expected))
                author = signed.commit.author
                fact = self._transactions.advanced(
                    repo, "main", expected, revision, "advance", author
                )
                await store.add_facts([fact])
            await self._transactions.flush_outbox()

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit `to`'s tree on top of `main` and make the same change in `dev`."""
        async with self._transactions.lock(repo):
            await self._transactions.recover(repo)
            rewound = await self._rewind(repo, to, author, reason)
            self._check_free(repo, rewound.paths)
            held = self._transactions.held(repo, rewound.paths)
            async with self._live.hold(held):
                await self._transactions.commit_live_edits(repo, held)
                paths = [await self._rebase_onto_dev(repo, p, rewound.texts) for p in rewound.paths]
                transaction = Transaction(
                    id=f"rollback-{uuid7()}",
                    repo=repo,
                    cause="rollback",
                    author=author,
                    message=rewound.signed.commit.message,
                    paths=tuple(paths),
                    main=MainAdvance(revision=rewound.signed.revision, expected=rewound.head),
                )
                await self._transactions.begin(transaction, (rewound.signed, rewound.manifest))
                await self._transactions.execute(transaction)
            await self._transactions.publish(transaction)
        return rewound.signed.revision

    async def _rewind(
        self, repo: str, to: Revision, author: PrincipalId, reason: str
    ) -> _RollbackPlan:
        """Make the commit of a rollback, on no branch yet, and what it means for `dev`."""
        async with self._database.transaction() as conn:
            store = Store(conn)
            head = await store.head(repo, "main")
            history = await store.history(repo, head, _HISTORY)
            if to not in history:
                raise NotFound(f"{to[:12]} is not in the history of main of {repo}.")
            now, main = await store.commit(repo, head)
            then, target = await store.commit(repo, to)
            if now.commit.tree == then.commit.tree:
                raise Conflict(f"main of {repo} has the tree of {to[:12]} already.")
            newest = await _newest(store, repo, history, main, target)
            plan = trees.plan_rollback(main, target, newest)
            put = [made for step in plan if (made := await candidates.rewind(store, step))]
            files = trees.with_files(main, [b.file for b in put], {s.document for s in plan})
            message = f"Roll back to {to[:12]}: {reason}".removesuffix(": ")
            signed = self._transactions.sign(repo, (head,), files, author, message)
            await store.add_blobs(blob for b in put for blob in b.blobs)
            sides = {s.document: (s.source, s.target) for s in plan if s.source and s.target}
            blobs = await store.blobs([f.sha256 for pair in sides.values() for f in pair])
        texts = {
            d: (blobs[a.sha256].decode(), blobs[b.sha256].decode()) for d, (a, b) in sides.items()
        }
        if signed.commit.tree != then.commit.tree:
            raise Tampered(f"The rollback to {to[:12]} did not give its tree; nothing was moved.")
        updates = {b.file.document: b.update for b in put}
        alive = set(self._live.paths(repo).values())
        return _RollbackPlan(head, signed, files, trees.dev_changes(plan, updates, alive), texts)

    async def _rebase_onto_dev(
        self, repo: str, path: PathChange, texts: Mapping[str, tuple[str, str]]
    ) -> PathChange:
        """Return a path with all that `dev` needs to hold the expected text; its lock is held.

        Lines that people have changed in `dev` since stay as they are there, if need be: what
        must be back at once is `main`.
        """
        if path.document not in texts:
            return path
        now = (await self._live.replica(repo, path.document, path.path)).state()
        args = (path.path, now, path.update or documents.EMPTY, *texts[path.document])
        update = await in_thread(len(now), partial(rebase.onto_dev, keep=True), *args)
        return msgspec.structs.replace(path, update=b"" if update == documents.EMPTY else update)

    def _check_free(self, repo: str, paths: Sequence[PathChange]) -> None:
        gone = {p.document for p in paths if p.op == "delete"}
        dev = {path: d for path, d in self._live.paths(repo).items() if d not in gone}
        for change in paths:
            other = change.path if change.path in dev else trees.clash(dev, change.path)
            if change.op == "revive" and other is not None:
                raise Conflict(
                    f"dev has another file at {other}.",
                    hint="Revert the proposal that made it, then roll back.",
                )


class _RollbackPlan(msgspec.Struct, frozen=True):
    head: Revision
    signed: SignedCommit
    manifest: Manifest
    paths: tuple[PathChange, ...]
    texts: dict[str, tuple[str, str]]
    """Document -> its text on `main` before and after."""


async def _newest(
    store: Store, repo: str, history: list[Revision], main: Manifest, target: Manifest
) -> dict[str, FileState]:
    """Return the newest state on `main` of documents that it no longer has."""
    missing = {f.document for f in target} - {f.document for f in main}
    found: dict[str, FileState] = {}
    for revision in history:
        if not missing - found.keys():
            break
        _, manifest = await store.commit(repo, revision)
        for file in manifest:
            if file.document in missing:
                found.setdefault(file.document, file)
    return found
