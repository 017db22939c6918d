"""What PostgreSQL keeps for git: ids, derived commits, references and packs that came from git."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import NamedTuple

from angelos.angelgit.storage.sql import NamedQueries
from angelos.core.ids import PrincipalId, ProposalId, Revision

PIECE_BYTES = 1_000_000


class GitCommit(NamedTuple):
    """The git commit of a revision."""

    id: str
    body: bytes | None
    """None: it came from git, in a pack."""


class LastPush(NamedTuple):
    """The proposal that a push for review made or replaced."""

    proposal: ProposalId
    digest: str


class GitTable:
    """The rows of all repositories, on one connection."""

    def __init__(self, queries: NamedQueries) -> None:
        self._sql = queries

    async def commit(self, repo: str, revision: Revision) -> GitCommit | None:
        """Return the git commit of a revision, None if none was made yet."""
        row = await self._sql.one("git_commit", repo=repo, revision=bytes.fromhex(revision))
        return GitCommit(row[0].hex(), row[1]) if row else None

    async def revision(self, repo: str, git: str) -> Revision | None:
        """Return the revision of a git commit, None if it has none."""
        row = await self._sql.one("git_revision", repo=repo, git=bytes.fromhex(git))
        return Revision(row[0].hex()) if row else None

    async def add_commits(
        self, repo: str, rows: Iterable[tuple[Revision, str, bytes | None]]
    ) -> None:
        """Record which git commits revisions are; what is recorded stays."""
        params = [(repo, bytes.fromhex(r), bytes.fromhex(git), body) for r, git, body in rows]
        if params:
            await self._sql.many("add_git_commit", params)

    async def ids(self, hashes: Collection[str]) -> dict[str, str]:
        """Return hash -> id of the blobs and trees that were derived."""
        keys = [bytes.fromhex(digest) for digest in hashes]
        rows = await self._sql.all("git_ids", hashes=keys) if keys else []
        return {row[0].hex(): row[1].hex() for row in rows}

    async def add_ids(self, ids: Mapping[str, str]) -> None:
        """Record ids of blobs and trees."""
        rows = [(bytes.fromhex(digest), bytes.fromhex(git)) for digest, git in ids.items()]
        if rows:
            await self._sql.many("add_git_id", rows)

    async def refs(self, repo: str) -> dict[bytes, str]:
        """Return the references that came from git: full name -> id."""
        rows = await self._sql.all("git_refs", repo=repo)
        return {bytes(row[0]): row[1].hex() for row in rows}

    async def put_ref(self, repo: str, name: bytes, git: str) -> None:
        """Store a reference."""
        await self._sql.run("put_git_ref", repo=repo, ref=name, git=bytes.fromhex(git))

    async def delete_ref(self, repo: str, name: bytes) -> None:
        """Delete a reference, if it is there."""
        await self._sql.run("delete_git_ref", repo=repo, ref=name)

    async def known(self, repo: str) -> dict[str, Revision]:
        """Return git id -> revision of all commits that have both."""
        rows = await self._sql.all("git_known", repo=repo)
        return {row[0].hex(): Revision(row[1].hex()) for row in rows}

    async def pushed(self, repo: str) -> set[str]:
        """Return the ids of the commits that came from git, and are in a pack."""
        return {row[0].hex() for row in await self._sql.all("git_pushed", repo=repo)}

    async def known_mains(self, repo: str) -> dict[str, Revision]:
        """Return the same of the commits that are or were `main`."""
        rows = await self._sql.all("git_mains", repo=repo)
        return {row[0].hex(): Revision(row[1].hex()) for row in rows}

    async def last_push(self, repo: str, by: PrincipalId, topic: str) -> LastPush | None:
        """Return what somebody's last push for review made, None if there was none."""
        row = await self._sql.one("git_push", repo=repo, principal=by, topic=topic)
        return LastPush(ProposalId(row[0]), row[1]) if row else None

    async def put_last_push(self, repo: str, by: PrincipalId, topic: str, last: LastPush) -> None:
        """Record what somebody's last push for review made."""
        await self._sql.run(
            "put_git_push",
            repo=repo,
            principal=by,
            topic=topic,
            proposal=last.proposal,
            digest=last.digest,
        )

    async def packs(self, repo: str) -> dict[int, int]:
        """Return number -> size of the packs that came from git."""
        return {row[0]: row[1] for row in await self._sql.all("git_packs", repo=repo)}

    async def add_pack(self, repo: str, pack: memoryview) -> int:
        """Store a pack and return its number."""
        row = await self._sql.one("add_git_pack", repo=repo, size=len(pack))
        assert row is not None  # noqa: S101 - `returning` gives a row
        for number, start in enumerate(range(0, len(pack), PIECE_BYTES)):
            body = bytes(pack[start : start + PIECE_BYTES])
            await self._sql.run("add_git_pack_piece", pack=row[0], number=number, body=body)
        return row[0]

    async def pack_pieces(self, pack: int) -> AsyncIterator[bytes]:
        """Yield the pieces of a pack."""
        number = 0
        while row := await self._sql.one("git_pack_piece", pack=pack, number=number):
            yield row[0]
            number += 1
