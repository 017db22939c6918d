"""What AngelGit stores in PostgreSQL: commits, contents, documents, proposals.

A `Store` is one database transaction; what is done on it becomes true together or not at all.

    async with stores.begin() as store:
        await store.add_contents([b"content"])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import zstandard

from angelos.adapters.stores.postgres import Connection, Database
from angelos.angelgit.documents.canonical import is_text
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.git_table import GitTable
from angelos.angelgit.storage.models import (
    DocumentRow,
    PreparedProposal,
    ProposalStatus,
    StoredProposal,
    UnloggedUpdate,
    decode,
    encode,
    sha256,
)
from angelos.angelgit.storage.objects import NewObject, ObjectCache, Objects
from angelos.angelgit.storage.ownership import RepositoryLeases
from angelos.angelgit.storage.sql import NamedQueries
from angelos.core.branches import BranchName
from angelos.core.errors import Conflict, Fenced, NotFound, Tampered
from angelos.core.facts import Fact
from angelos.core.ids import Offset, PrincipalId, ProposalId, Revision
from angelos.core.repository import BranchHead
from angelos.core.revision import MAX_FILE_BYTES
from angelos.core.revision_v2 import (
    CommitObject,
    SignedCommitObject,
    TreeEntry,
    build_tree,
    decode_commit,
    find_entry,
    read_tree,
    update_tree,
)

OUTBOX_PAGE = 500
COLLECTION_LOCK = 0x616E67656C6763
"""Of PostgreSQL's advisory locks: "angelgc"."""


class Snapshot(NamedTuple):
    """A document's stored state, the log that it contains, and the hash of its content."""

    state: bytes
    upto: Offset
    sha256: str


class Stores:
    """Opens transactions on the database that share one memory of objects."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ownership: RepositoryLeases | None = None
        """By which changes are fenced; without it nothing can be changed."""
        self._cache = ObjectCache()

    def forget_objects(self) -> None:
        """Forget the objects in memory: some were deleted."""
        self._cache.clear()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Store]:
        """Yield the store; commit at the end, roll back on any error."""
        async with self.database.transaction() as conn:
            store = Store(conn, self._cache)
            yield store
        store.objects.committed()

    @asynccontextmanager
    async def change(self, repo: str) -> AsyncIterator[Store]:
        """Yield the store for a change of a repository; raise `Fenced` unless it is owned here."""
        async with self.begin() as store:
            await self.fence(store, repo)
            yield store

    async def fence(self, store: Store, repo: str) -> None:
        """Hold newer owners of a repository off until a transaction ends, or raise `Fenced`."""
        if self.ownership is None:
            raise Fenced(f"Nothing owns {repo} here.")
        await self.ownership.check(repo, store.connection)
        await store.hold_garbage()


class Store:
    """The commits, documents and proposals of all repositories, on one connection."""

    def __init__(self, conn: Connection, cache: ObjectCache | None = None) -> None:
        self._sql = NamedQueries(conn)
        self.objects = Objects(self._sql, cache or ObjectCache())
        self.git = GitTable(self._sql)

    async def hold_garbage(self) -> None:
        """Let nothing be collected until this transaction ends: it may refer to what is there."""
        await self._sql.one("gc_hold", lock=COLLECTION_LOCK)

    @property
    def connection(self) -> Connection:
        """Where it runs."""
        return self._sql.connection

    def with_cache(self, cache: ObjectCache) -> Store:
        """Return the same transaction with another memory of objects."""
        return Store(self._sql.connection, cache)

    # -- contents ----------------------------------------------------------------------------

    async def add_contents(
        self, contents: Iterable[bytes], like: Mapping[str, str] | None = None
    ) -> None:
        """Store contents of files under their hashes.

        Args:
            contents: what is to be stored.
            like: hash of a content -> hash of a stored one that is similar.
        """
        by_sha = {sha256(content): content for content in contents}
        bases = like or {}
        await self.objects.add(
            NewObject(sha, content, bases.get(sha)) for sha, content in by_sha.items()
        )

    async def contents(self, hashes: Collection[str]) -> dict[str, bytes]:
        """Return contents by hash; raise `Tampered` if one is missing or has another hash."""
        return await self.objects.load(set(hashes))

    async def content(self, digest: str) -> bytes:
        """Return one content."""
        return (await self.objects.load([digest]))[digest]

    async def has_directory(self, digest: str) -> bool:
        """Return whether a directory object is stored under a hash."""
        row = await self._sql.one("directory", hash=bytes.fromhex(digest))
        return row is not None

    async def bodies(self, entries: Iterable[TreeEntry]) -> dict[str, bytes]:
        """Return the contents of entries by hash, blobs among them.

        Raises:
            Tampered: one is missing or has another hash.
        """
        hashes = {entry.sha256 for entry in entries}
        blobs = await self.blob_sizes(hashes)
        bodies = await self.contents(hashes - blobs.keys())
        for digest in blobs:
            body = b"".join([piece async for piece in self.blob_pieces(digest)])
            if sha256(body) != digest:
                raise Tampered(f"The stored blob {digest[:12]} was changed.")
            bodies[digest] = body
        return bodies

    async def blob_sizes(self, hashes: Collection[str]) -> dict[str, int]:
        """Return the sizes of contents that are stored as blobs, of those that are."""
        keys = [bytes.fromhex(digest) for digest in hashes]
        rows = await self._sql.all("blob_sizes", hashes=keys) if keys else []
        return {row[0].hex(): row[1] for row in rows}

    async def live_text(self, digest: str, size: int) -> bytes | None:
        """Return a blob's content if it can be a live document, else None."""
        if size > MAX_FILE_BYTES:
            return None
        body = b"".join([piece async for piece in self.blob_pieces(digest)])
        return body if is_text(body) and sha256(body) == digest else None

    async def blob_pieces(self, digest: str) -> AsyncIterator[bytes]:
        """Yield the stored pieces of a blob, unchecked; see `Blobs`."""
        number, key = 0, bytes.fromhex(digest)
        while row := await self._sql.one("blob_piece", sha256=key, number=number):
            yield row[0]
            number += 1

    async def add_blob(self, digest: str, size: int) -> None:
        """Record a blob; its pieces follow."""
        await self._sql.run("add_blob", sha256=bytes.fromhex(digest), size=size)

    async def add_blob_piece(self, digest: str, number: int, body: bytes) -> None:
        """Store a piece of a blob."""
        key = bytes.fromhex(digest)
        await self._sql.run("add_blob_piece", sha256=key, number=number, body=body)

    # -- trees -------------------------------------------------------------------------------

    async def tree(self, root: str) -> tuple[TreeEntry, ...]:
        """Return all files of a tree, sorted by path."""
        nodes = await self.nodes(root)
        return read_tree(root, nodes.__getitem__)

    async def nodes(self, root: str, paths: Collection[str] | None = None) -> dict[str, bytes]:
        """Return the directory objects of a tree, or those on the way to some paths."""
        nodes = dict(trees.EMPTY)
        while missing := trees.missing_nodes(root, nodes, paths):
            nodes |= await self.objects.load(missing)
        return nodes

    async def entries(self, root: str, paths: Collection[str]) -> dict[str, TreeEntry]:
        """Return the files of a tree at some paths, of those that are there."""
        nodes = await self.nodes(root, paths)
        rows = {path: find_entry(root, nodes.__getitem__, path) for path in paths}
        return {path: entry for path, entry in rows.items() if entry is not None}

    async def build_tree(self, entries: Iterable[TreeEntry]) -> str:
        """Store a new tree and return its hash."""
        tree = build_tree(entries)
        await self.objects.add(
            NewObject(digest, body, directory=True) for digest, body in tree.objects.items()
        )
        return tree.root

    async def update_tree(self, root: str, changes: Mapping[str, TreeEntry | None]) -> str:
        """Store a tree with some files put or removed, and return its hash."""
        if not changes:
            return root
        nodes = await self.nodes(root, changes)
        while True:
            try:
                tree = update_tree(root, nodes.__getitem__, changes)
                break
            except KeyError as error:  # a fan that becomes a leaf reads all of its slots
                nodes |= await self.objects.load([str(error.args[0])])
        bases = trees.predecessors(root, tree.root, {**nodes, **tree.objects})
        await self.objects.add(
            NewObject(digest, body, bases.get(digest), directory=True)
            for digest, body in tree.objects.items()
        )
        return tree.root

    async def differences(
        self, before: str, after: str
    ) -> list[tuple[str, TreeEntry | None, TreeEntry | None]]:
        """Return (path, before, after) of the files that differ, reading only what differs."""
        nodes = dict(trees.EMPTY)
        while True:
            rows, missing = trees.differences(before, after, nodes)
            if not missing:
                return sorted(rows, key=lambda row: row[0])
            nodes |= await self.objects.load(missing)

    # -- commits -----------------------------------------------------------------------------

    async def add_commit(self, repo: str, signed: SignedCommitObject) -> None:
        """Store a commit; its tree and contents are stored already."""
        parents = decode_commit(signed.body).parents
        await self._sql.run(
            "add_commit",
            revision=bytes.fromhex(signed.revision),
            repo=repo,
            parent=bytes.fromhex(parents[0]) if parents else None,
            body=signed.body,
            signature=signed.signature,
        )

    async def signed(self, repo: str, revision: Revision) -> SignedCommitObject:
        """Return a commit's exact bytes and signature; raise `NotFound`."""
        row = await self._sql.one("commit", repo=repo, revision=_key(revision))
        if row is None:
            raise NotFound(
                f"Repository {repo} has no revision {revision[:64]!r}.",
                hint="A revision is 64 hex digits; `dev` and `main` name branches.",
            )
        signed = SignedCommitObject(body=row[0], signature=row[1])
        if signed.revision != revision:
            raise Tampered(f"The stored commit {revision[:12]} was changed.")
        return signed

    async def commit(self, repo: str, revision: Revision) -> CommitObject:
        """Return a commit; raise `NotFound`."""
        return decode_commit((await self.signed(repo, revision)).body)

    async def commits_after(
        self, repo: str, after: str, limit: int
    ) -> list[tuple[Revision, SignedCommitObject]]:
        """Return commits in the order of their hashes, unchecked.

        Args:
            repo: the repository's name.
            after: the hash behind which they begin; empty for all.
            limit: at most so many.
        """
        rows = await self._sql.all("repo_commits", repo=repo, after=_key(after), limit=limit)
        return [(Revision(r[0].hex()), SignedCommitObject(body=r[1], signature=r[2])) for r in rows]

    async def history(self, repo: str, revision: Revision, limit: int) -> list[Revision]:
        """Return the first-parent history from `revision` back, newest first."""
        rows = await self._sql.all("history", repo=repo, revision=_key(revision), limit=limit)
        return [Revision(row[0].hex()) for row in rows]

    async def add_to_main(self, repo: str, revision: Revision) -> None:
        """Record that `main` is at a revision."""
        await self._sql.run("add_to_main", repo=repo, revision=_key(revision))

    async def was_main(self, repo: str, revision: Revision) -> bool:
        """Return whether `main` is or was at a revision."""
        return await self._sql.one("was_main", repo=repo, revision=_key(revision)) is not None

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

    async def set_branch(
        self, repo: str, branch: str, revision: Revision, owner: PrincipalId | None = None
    ) -> None:
        """Create a branch."""
        await self._sql.run(
            "set_branch", repo=repo, branch=branch, revision=_key(revision), owner=owner
        )

    async def head(self, repo: str, branch: str) -> Revision:
        """Return the revision of a branch; raise `NotFound`."""
        row = await self._sql.one("head", repo=repo, branch=branch)
        if row is None:
            raise NotFound(f"There is no repository {repo!r} with a branch {branch}.")
        return Revision(row[0].hex())

    async def find_branch(self, repo: str, name: str) -> BranchHead | None:
        """Return a branch, None if there is none."""
        row = await self._sql.one("branch", repo=repo, branch=name)
        return None if row is None else _branch_head(row)

    async def branch(self, repo: str, name: str) -> BranchHead:
        """Return a branch; raise `NotFound`."""
        head = await self.find_branch(repo, name)
        if head is None:
            raise NotFound(f"There is no repository {repo!r} with a branch {name[:80]!r}.")
        return head

    async def branches(self, repo: str, after: str, limit: int) -> list[BranchHead]:
        """Return branches whose names sort after one, in the order of their names."""
        rows = await self._sql.all("branches", repo=repo, after=after, limit=limit)
        return [_branch_head(row) for row in rows]

    async def branch_names(self, repo: str) -> list[str]:
        """Return the names of all branches."""
        return [row[0] for row in await self._sql.all("branch_names", repo=repo)]

    async def delete_branch(self, repo: str, name: str, expected: Revision) -> bool:
        """Delete a branch if it is at `expected`; return whether it was."""
        row = await self._sql.one("delete_branch", repo=repo, branch=name, expected=_key(expected))
        return row is not None

    async def beginning_with(self, repo: str, beginning: str) -> list[Revision]:
        """Return at most two revisions whose hex digits start with these."""
        low = bytes.fromhex(beginning.ljust(64, "0"))
        high = bytes.fromhex(beginning.ljust(64, "f"))
        rows = await self._sql.all("revisions_between", repo=repo, low=low, high=high)
        return [Revision(row[0].hex()) for row in rows]

    async def move_branch(
        self, repo: str, branch: str, revision: Revision, expected: Revision
    ) -> None:
        """Move a branch by compare-and-set; raise `Conflict` if it is not at `expected`."""
        row = await self._sql.one(
            "move_branch",
            repo=repo,
            branch=branch,
            revision=_key(revision),
            expected=_key(expected),
        )
        if row is None:
            raise Conflict(
                f"{branch} of {repo} is no longer at {expected[:12]}; nothing was moved.",
                hint="Make the candidate again on the present head.",
            )

    # -- documents ---------------------------------------------------------------------------

    async def documents(self, repo: str) -> list[DocumentRow]:
        """Return every document that `dev` has or had."""
        return [
            DocumentRow(
                id=r[0], repo=repo, path=r[1], mode=r[2], alive=r[3], upto=r[4], sha256=r[5].hex()
            )
            for r in await self._sql.all("documents", repo=repo)
        ]

    async def add_documents(self, rows: Iterable[tuple[DocumentRow, bytes]]) -> None:
        """Insert documents with their first states."""
        await self._sql.many(
            "add_document",
            [
                {
                    "id": row.id,
                    "repo": row.repo,
                    "path": row.path,
                    "mode": row.mode,
                    **_snapshot_params(Snapshot(state, row.upto, row.sha256)),
                }
                for row, state in rows
            ],
        )

    async def place_documents(self, rows: Iterable[DocumentRow]) -> None:
        """Record where documents are, with which mode, and whether they are alive."""
        await self._sql.many(
            "place_document",
            [{"id": r.id, "path": r.path, "mode": r.mode, "alive": r.alive} for r in rows],
        )

    async def put_snapshots(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Replace the snapshots of documents."""
        await self._sql.many(
            "put_snapshot",
            [{"id": document, **_snapshot_params(s)} for document, s in snapshots.items()],
        )

    async def snapshots(self, documents: Collection[str]) -> dict[str, Snapshot]:
        """Return the snapshots of documents, of those that are stored."""
        rows = await self._sql.all("states", documents=list(documents))
        return {row[0]: Snapshot(_state(row[0], row[3]), row[1], row[2].hex()) for row in rows}

    async def add_writers(self, rows: Iterable[tuple[str, int, PrincipalId]]) -> None:
        """Store (document, client, writer); an id that has an owner keeps it."""
        await self._sql.many("add_writer", list(rows))

    async def add_update(self, repo: str, document: str, path: str, body: bytes) -> UnloggedUpdate:
        """Store a committed update until the log has it."""
        row = await self._sql.one("add_update", repo=repo, document=document, path=path, body=body)
        assert row is not None  # noqa: S101 - `returning` gives a row
        return UnloggedUpdate(row[0], document, path, body)

    async def unlogged(self, repo: str) -> list[UnloggedUpdate]:
        """Return the committed updates that the log may lack, the oldest first."""
        return [UnloggedUpdate(*row) for row in await self._sql.all("updates", repo=repo)]

    async def clear_updates(self, numbers: Collection[int]) -> None:
        """Remove updates that the log has."""
        await self._sql.run("clear_updates", numbers=list(numbers))

    # -- proposals ---------------------------------------------------------------------------

    async def add_proposal(self, record: PreparedProposal) -> bool:
        """Store a proposal; return False if its id is taken."""
        row = await self._sql.one(
            "add_proposal",
            id=record.id,
            repo=record.repo,
            digest=bytes.fromhex(record.digest),
            body=encode(record),
            part_of=record.part_of,
        )
        return row is not None

    async def parts(self, proposal: ProposalId) -> list[StoredProposal]:
        """Return the parts of a proposal that were taken, in the order of their ids."""
        return [_stored_proposal(row) for row in await self._sql.all("parts", id=proposal)]

    async def narrow_proposal(self, record: PreparedProposal) -> None:
        """Replace what a waiting proposal holds; its candidates are void."""
        await self._sql.run(
            "narrow_proposal",
            id=record.id,
            digest=bytes.fromhex(record.digest),
            body=encode(record),
        )
        await self._sql.run("drop_candidates", id=record.id)

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

    async def mark_withdrawn(self, proposal: ProposalId) -> bool:
        """Record that a proposal is closed; False if it is, or was, in `dev` or `main`."""
        return await self._sql.one("proposal_withdrawn", id=proposal) is not None

    async def proposal(self, proposal: ProposalId) -> StoredProposal:
        """Return a proposal; raise `NotFound`."""
        stored = await self.find_proposal(proposal)
        if stored is None:
            raise NotFound(f"There is no proposal {proposal!r}.")
        return stored

    async def mark_merged(self, proposal: ProposalId, revision: Revision) -> None:
        """Record the commit of `dev` that merged a proposal."""
        await self._sql.run("proposal_merged", id=proposal, revision=_key(revision))

    async def mark_reverted(self, proposal: ProposalId, revision: Revision) -> None:
        """Record the commit of `dev` that took a proposal out."""
        await self._sql.run("proposal_reverted", id=proposal, revision=_key(revision))

    async def mark_promoted(self, revision: Revision) -> list[ProposalId]:
        """Record that `main` advances to a candidate; return its members that were open."""
        rows = await self._sql.all("proposal_promoted", revision=_key(revision))
        members = [ProposalId(row[0]) for row in rows]
        # Those that were made on an earlier `main` will not advance any more.
        await self._sql.run("drop_other_candidates", proposals=members, revision=_key(revision))
        return members

    async def add_candidate(
        self,
        key: bytes,
        main: Revision,
        revision: Revision,
        members: Mapping[ProposalId, Revision],
    ) -> None:
        """Record a candidate on a given `main`, with the commit of each member, in order."""
        await self._sql.many(
            "add_candidate",
            [
                {
                    "proposal": proposal,
                    "main": _key(main),
                    "revision": _key(revision),
                    "key": key,
                    "position": position,
                    "own": _key(own),
                }
                for position, (proposal, own) in enumerate(members.items())
            ],
        )

    async def find_candidate(
        self, key: bytes
    ) -> tuple[Revision, dict[ProposalId, Revision]] | None:
        """Return the candidate that was made for a request, with its members' commits."""
        rows = await self._sql.all("candidate", key=key)
        if not rows:
            return None
        members = {ProposalId(row[1]): Revision(row[2].hex()) for row in rows}
        return Revision(rows[0][0].hex()), members

    async def candidate_members(
        self, revision: Revision
    ) -> tuple[Revision | None, frozenset[ProposalId]]:
        """Return the `main` that a candidate was made on, and its members."""
        rows = await self._sql.all("candidate_members", revision=_key(revision))
        main = Revision(rows[0][1].hex()) if rows else None
        return main, frozenset(ProposalId(row[0]) for row in rows)

    # -- facts -------------------------------------------------------------------------------

    async def add_facts(self, facts: Iterable[Fact]) -> None:
        """Add facts to the outbox, from where they go to the journal after the commit."""
        await self._sql.many("add_outbox", [{"body": encode(fact)} for fact in facts])

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
    merged, reverted, promoted = (Revision(r.hex()) if r else None for r in row[2:])
    return StoredProposal(
        record=decode(row[0], PreparedProposal),
        status=ProposalStatus(row[1]),
        merged=merged,
        reverted=reverted,
        promoted=promoted,
    )


def _branch_head(row: Sequence[Any]) -> BranchHead:
    name, revision, owner = row
    return BranchHead(
        name=BranchName(name),
        revision=Revision(revision.hex()),
        owner=PrincipalId(owner) if owner else None,
    )


def _key(revision: str) -> bytes:
    """Return a hash as it is stored; what is no hash is found nowhere."""
    try:
        return bytes.fromhex(revision)
    except ValueError:
        return b""


def _state(document: str, compressed: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(compressed)
    except zstandard.ZstdError as error:
        raise Tampered(f"The stored snapshot of document {document} cannot be read.") from error


def _snapshot_params(snapshot: Snapshot) -> dict[str, object]:
    return {
        "upto": snapshot.upto,
        "sha256": bytes.fromhex(snapshot.sha256),
        "state": zstandard.ZstdCompressor(3).compress(snapshot.state),
    }
