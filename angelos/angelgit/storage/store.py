"""What AngelGit stores in PostgreSQL: commits, content-addressed blobs, documents, proposals.

A `Store` works on a connection inside a database transaction of the caller, who decides so which
queries are atomic together.

    async with database.transaction() as conn:
        store = Store(conn)
        await store.add_blobs([b"content"])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import zstandard

from angelos.adapters.stores.postgres import Connection
from angelos.angelgit.documents import crdt
from angelos.angelgit.merge.rebase import RevertedEdit
from angelos.angelgit.storage.models import (
    DocumentRow,
    FileState,
    MainAdvance,
    Manifest,
    PathChange,
    PreparedProposal,
    ProposalStatus,
    StoredProposal,
    Transaction,
    decode,
    encode,
    sha256,
)
from angelos.angelgit.storage.sql import NamedQueries
from angelos.core.errors import Conflict, NotFound, Tampered
from angelos.core.facts import Fact
from angelos.core.ids import ProposalId, Revision
from angelos.core.repository import Branch
from angelos.core.revision import SignedCommit

OUTBOX_PAGE = 500


class Store:
    """The commits, documents and proposals of all repositories, on one connection."""

    def __init__(self, conn: Connection) -> None:
        self._sql = NamedQueries(conn)

    # -- blobs and commits -------------------------------------------------------------------

    async def add_blobs(self, contents: Iterable[bytes]) -> None:
        """Store contents under their hashes; contents that are stored already are skipped."""
        by_sha = {sha256(content): content for content in contents}
        stored = {row[0] for row in await self._sql.all("known_blobs", shas=list(by_sha))}
        compressor = zstandard.ZstdCompressor(3)
        rows = [
            (sha, len(content), compressor.compress(content))
            for sha, content in by_sha.items()
            if sha not in stored
        ]
        if rows:
            await self._sql.many("add_blob", rows)

    async def blobs(self, shas: Collection[str]) -> dict[str, bytes]:
        """Return contents by hash; raise `Tampered` if one is missing or has another hash."""
        rows = await self._sql.all("blobs", shas=list(set(shas)))
        contents = {sha: _decompress(sha, body) for sha, body in rows}
        if missing := set(shas) - contents.keys():
            raise Tampered(f"The content {min(missing)[:12]} is missing from the store.")
        return contents

    async def blob(self, sha: str) -> bytes:
        """Return one content."""
        return (await self.blobs([sha]))[sha]

    async def add_commit(self, signed: SignedCommit, manifest: Manifest) -> None:
        """Store a commit and its manifest; its contents and states are stored already."""
        body = encode(manifest)
        await self.add_blobs([body])
        await self._sql.run(
            "add_commit",
            revision=signed.revision,
            repo=signed.commit.repo,
            parent=signed.commit.parents[0] if signed.commit.parents else None,
            manifest=sha256(body),
            body=encode(signed),
        )

    async def commit(self, repo: str, revision: Revision) -> tuple[SignedCommit, Manifest]:
        """Return a commit and its files, sorted by path; raise `NotFound`."""
        row = await self._sql.one("commit", repo=repo, revision=revision)
        if row is None:
            raise NotFound(
                f"Repository {repo} has no revision {revision[:64]!r}.",
                hint="A revision is 64 hex digits; `dev` and `main` name branches.",
            )
        manifest = _decompress(row[1], row[2])
        return decode(row[0], SignedCommit), decode(manifest, tuple[FileState, ...])

    async def history(self, repo: str, revision: Revision, limit: int) -> list[Revision]:
        """Return the first-parent history from `revision` back, newest first."""
        rows = await self._sql.all("history", repo=repo, revision=revision, limit=limit)
        return [Revision(row[0]) for row in rows]

    # -- repositories and branches -----------------------------------------------------------

    async def add_repo(self, repo: str) -> None:
        """Add a repository; raise `Conflict` if its name is taken."""
        await self.check_free(repo)
        if await self._sql.one("add_repo", repo=repo) is None:
            raise Conflict(f"There is a repository {repo} already.", hint="Choose another name.")

    async def check_free(self, repo: str) -> None:
        """Raise `Conflict` if a name is taken; names that differ in case alone are the same."""
        if row := await self._sql.one("same_name", repo=repo):
            raise Conflict(f"There is a repository {row[0]} already.", hint="Choose another name.")

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        return [row[0] for row in await self._sql.all("repos")]

    async def set_branch(self, repo: str, branch: Branch, revision: Revision) -> None:
        """Create a branch."""
        await self._sql.run("set_branch", repo=repo, branch=branch, revision=revision)

    async def head(self, repo: str, branch: Branch) -> Revision:
        """Return the revision of a branch; raise `NotFound`."""
        row = await self._sql.one("head", repo=repo, branch=branch)
        if row is None:
            raise NotFound(f"There is no repository {repo!r} with a branch {branch}.")
        return Revision(row[0])

    async def move_branch(
        self, repo: str, branch: Branch, revision: Revision, expected: Revision
    ) -> None:
        """Move a branch by compare-and-set; raise `Conflict` if it is not at `expected`."""
        if (
            await self._sql.one(
                "move_branch", repo=repo, branch=branch, revision=revision, expected=expected
            )
            is None
        ):
            raise Conflict(
                f"{branch} of {repo} is no longer at {expected[:12]}; nothing was moved.",
                hint="Make the candidate again on the present head.",
            )

    # -- documents ---------------------------------------------------------------------------

    async def documents(self, repo: str) -> list[DocumentRow]:
        """Return every document that `dev` has or had."""
        return [
            DocumentRow(
                id=r[0],
                repo=repo,
                path=r[1],
                mode=r[2],
                alive=r[3],
                state=r[4],
                upto=r[5],
                sha256=r[6],
            )
            for r in await self._sql.all("documents", repo=repo)
        ]

    async def put_documents(self, rows: Iterable[DocumentRow]) -> None:
        """Insert or replace documents with their snapshots."""
        await self._sql.many("put_document", [msgspec.structs.asdict(row) for row in rows])

    async def mark_on_main(self, documents: Collection[str]) -> None:
        """Record that `main` has or had these documents."""
        await self._sql.run("mark_on_main", documents=list(documents))

    async def was_on_main(self, document: str) -> bool:
        """Return whether `main` has or had a document."""
        return await self._sql.one("on_main", documents=[document]) is not None

    # -- proposals ---------------------------------------------------------------------------

    async def add_proposal(self, record: PreparedProposal) -> bool:
        """Store a proposal; return False if its id is taken."""
        row = await self._sql.one(
            "add_proposal",
            id=record.id,
            repo=record.repo,
            digest=record.digest,
            documents=[p.document for p in record.paths],
            body=encode(record),
        )
        return row is not None

    async def find_proposal(self, proposal: ProposalId) -> StoredProposal | None:
        """Return a proposal, None if there is none."""
        row = await self._sql.one("proposal", id=proposal)
        if row is None:
            return None
        return _stored_proposal(row)

    async def pending(self, repo: str, after: str, limit: int) -> list[StoredProposal]:
        """Return the proposals that wait beside `dev`, in the order in which they came."""
        rows = await self._sql.all("pending", repo=repo, after=after, limit=limit)
        return [_stored_proposal(row) for row in rows]

    async def candidate_of(self, revision: Revision) -> StoredProposal | None:
        """Return the proposal of which a revision is a candidate, None if there is none."""
        row = await self._sql.one("candidate_of", revision=revision)
        return None if row is None else _stored_proposal(row)

    async def mark_withdrawn(self, proposal: ProposalId) -> bool:
        """Record that a proposal is closed; False if it is, or was, in `dev` or `main`."""
        return await self._sql.one("proposal_withdrawn", id=proposal) is not None

    async def proposal(self, proposal: ProposalId) -> StoredProposal:
        """Return a proposal; raise `NotFound`."""
        stored = await self.find_proposal(proposal)
        if stored is None:
            raise NotFound(f"There is no proposal {proposal!r}.")
        return stored

    async def mark_merged(
        self, proposal: ProposalId, revision: Revision, rebased: tuple[PathChange, ...]
    ) -> None:
        """Record the commit of `dev` that merged a proposal, and its rebased changes, if any."""
        record = (await self.proposal(proposal)).record
        if rebased:
            record = msgspec.structs.replace(record, paths=rebased)
        await self._sql.run("proposal_merged", id=proposal, revision=revision, body=encode(record))

    async def mark_reverted(
        self, proposal: ProposalId, revision: Revision, inverses: Mapping[str, bytes]
    ) -> None:
        """Record the commit of `dev` that reverted a proposal, and the inverse updates."""
        await self._sql.run(
            "proposal_reverted", id=proposal, revision=revision, inverses=encode(dict(inverses))
        )

    async def mark_promoted(self, revision: Revision) -> bool:
        """Record that `main` advances to a candidate; False if no open proposal has it."""
        return await self._sql.one("proposal_promoted", revision=revision) is not None

    async def reverted_on(self, repo: str, document: str) -> list[RevertedEdit]:
        """Return the edits of a document by proposals that were reverted."""
        edits: list[tuple[PreparedProposal, PathChange, bytes]] = []
        for body, inverses in await self._sql.all("reverted_on", repo=repo, documents=[document]):
            inverse = decode(inverses, dict[str, bytes]).get(document)
            record = decode(body, PreparedProposal)
            edits += [
                (record, p, inverse) for p in record.paths if p.document == document and inverse
            ]
        shas = {
            side[path.path]
            for record, path, _ in edits
            for side in (record.before, record.after)
            if path.path in side
        }
        texts = await self.blobs(shas)
        return [
            RevertedEdit(
                update=p.update,
                inverse=inverse,
                before=_text(p.path, record.before, texts),
                after=_text(p.path, record.after, texts),
            )
            for record, p, inverse in edits
        ]

    async def add_candidate(self, proposal: ProposalId, main: Revision, revision: Revision) -> None:
        """Record the candidate of a proposal on a given `main`."""
        await self._sql.run("add_candidate", proposal=proposal, main=main, revision=revision)

    async def find_candidate(self, proposal: ProposalId, main: Revision) -> Revision | None:
        """Return the candidate of a proposal on a given `main`, None if there is none."""
        row = await self._sql.one("candidate", proposal=proposal, main=main)
        return Revision(row[0]) if row else None

    # -- transactions and facts --------------------------------------------------------------

    async def add_transaction(self, transaction: Transaction) -> None:
        """Store a transaction before its first effect."""
        await self._sql.run(
            "add_transaction", id=transaction.id, repo=transaction.repo, body=encode(transaction)
        )

    async def transactions(self, repo: str) -> list[Transaction]:
        """Return the transactions that have begun and not ended, the oldest first."""
        return [
            decode(row[0], Transaction) for row in await self._sql.all("transactions", repo=repo)
        ]

    async def end_transaction(self, transaction: Transaction) -> None:
        """Remove a transaction, together with its last effect."""
        await self._sql.run("end_transaction", id=transaction.id)

    async def advance_main(self, repo: str, main: MainAdvance) -> None:
        """Advance `main` and record its documents."""
        await self.move_branch(repo, "main", main.revision, main.expected)
        _, manifest = await self.commit(repo, main.revision)
        await self.mark_on_main([f.document for f in manifest])

    async def add_facts(self, facts: Iterable[Fact]) -> None:
        """Add facts to the outbox, from where they go to the journal after the commit."""
        for fact in facts:
            await self._sql.run("add_outbox", body=encode(fact))

    async def outbox(self) -> list[tuple[int, Fact]]:
        """Return the facts that the journal may lack, the oldest first."""
        return [
            (row[0], decode(row[1], Fact))
            for row in await self._sql.all("outbox", limit=OUTBOX_PAGE)
        ]

    async def clear_outbox(self, numbers: Collection[int]) -> None:
        """Remove facts that the journal has."""
        await self._sql.run("clear_outbox", numbers=list(numbers))


def _stored_proposal(row: Sequence[Any]) -> StoredProposal:
    body, status, merged, reverted = row
    return StoredProposal(
        record=decode(body, PreparedProposal),
        status=ProposalStatus(status),
        merged=merged,
        reverted=reverted,
    )


def _text(path: str, side: Mapping[str, str], texts: Mapping[str, bytes]) -> str:
    if path in side:
        return texts[side[path]].decode()
    return crdt.text_of(path, crdt.EMPTY)


def _decompress(sha: str, body: bytes) -> bytes:
    content = zstandard.ZstdDecompressor().decompress(body)
    if sha256(content) != sha:
        raise Tampered(f"The stored content {sha[:12]} was changed.")
    return content
