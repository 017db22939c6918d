"""What a demo left behind, read from its stores once they run again on its directory.

Rows and stream entries are read as they are, without AngelOS's own decoders.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import redis
import zstandard

from angelos.adapters.host.datadir import DataDir
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.acceptance.independent import read_fact, sha256

EPHEMERAL = {"task.output", "document.edited"}


class Leaf(NamedTuple):
    """A row of `audit_entry`."""

    place: int
    body: bytes
    leaf: bytes
    salt: bytes
    data: bytes


@dataclass
class Left:
    """The contents of both stores."""

    facts: list[dict[str, Any]]
    """The journal as Valkey has it, in order; `index` is that of the audit log, if it lasts."""
    leaves: list[Leaf]
    notes: list[tuple[int, bytes, str]]
    """Checkpoints: size, root, note."""
    commits: dict[str, dict[str, Any]]
    """Revision -> SignedCommit, with `files`: path -> (mode, content)."""
    branches: dict[str, str]
    """`<repo>:<branch>` -> revision."""
    proposals: dict[str, tuple[str, dict[str, Any]]]
    """Id -> state and ProposalRecord."""
    certificates: list[tuple[str, str, bool]]
    """Principal, serial, denied."""
    quarantined: set[str]

    def find(self, kind: str, subject: str = "", **wanted: Any) -> list[dict[str, Any]]:
        """Return the facts of a kind with this subject and these fields or data, in order."""
        return [
            fact
            for fact in self.facts
            if fact["kind"] == kind
            and subject in ("", fact["subject"])
            and wanted.items() <= {**fact, **fact["data"]}.items()
        ]

    def one(self, kind: str, subject: str = "", **wanted: Any) -> dict[str, Any]:
        """Return the only such fact."""
        found = self.find(kind, subject, **wanted)
        assert len(found) == 1, (kind, subject, wanted, found)
        return found[0]

    def at(self, offset: str) -> dict[str, Any]:
        """Return the fact at a position of the journal."""
        return next(fact for fact in self.facts if fact["offset"] == offset)

    def history(self, revision: str) -> Iterator[str]:
        """Yield a revision and its first parents, back to the import."""
        yield revision
        while parents := self.commits[revision]["commit"]["parents"]:
            revision = parents[0]
            yield revision

    def content(self, revision: str) -> dict[str, bytes]:
        """Return path -> content of a commit."""
        return {path: content for path, (_, content) in self.commits[revision]["files"].items()}

    def text(self, revision: str, path: str) -> str:
        """Return the text of a file of a commit."""
        return self.content(revision)[path].decode()


async def read(root: Path) -> Left:
    """Run the stores on a data directory that nobody uses, and read them."""
    data = DataDir(root)
    with data.locked():
        runtime = data.create_runtime()
        try:
            async with (
                EmbeddedPostgres(data.postgres, runtime) as postgres,
                EmbeddedValkey(data.valkey, runtime) as valkey,
            ):
                with redis.Redis.from_url(valkey.url, protocol=2) as client:
                    facts = _journal(client)
                with psycopg.connect(postgres.url) as connection:
                    return _read(connection, facts)
        finally:
            shutil.rmtree(runtime)


def _journal(client: redis.Redis) -> list[dict[str, Any]]:
    entries: Any = client.xrange("{journal}")
    facts, index = [], 0
    for offset, fields in entries:
        fact = read_fact(fields[b"b"]) | {"offset": offset.decode(), "index": None}
        if fact["kind"] not in EPHEMERAL:
            fact["index"], index = index, index + 1
        facts.append(fact)
    return facts


def _read(connection: psycopg.Connection, facts: list[dict[str, Any]]) -> Left:
    def rows(query: str) -> list[Any]:
        return connection.execute(query.encode()).fetchall()

    blobs = {}
    for name, body in rows("select sha256, body from angelgit_blob"):
        blobs[name] = zstandard.ZstdDecompressor().decompress(body)
        assert sha256(blobs[name]) == name
    commits = {}
    for revision, manifest, body in rows("select revision, manifest, body from angelgit_commit"):
        files = {
            path: (mode, blobs[content])
            for path, mode, content, *_ in msgspec.msgpack.decode(blobs[manifest])
        }
        commits[revision] = msgspec.msgpack.decode(body) | {"files": files}
    decode = msgspec.msgpack.decode
    return Left(
        facts=facts,
        leaves=[
            Leaf(*row)
            for row in rows("select idx, body, leaf, salt, data from audit_entry order by idx")
        ],
        notes=rows("select size, root, note from audit_checkpoint order by size"),
        commits=commits,
        branches=dict(rows("select repo || ':' || name, revision from angelgit_branch")),
        proposals={
            row[0]: (row[1], decode(row[2]))
            for row in rows("select id, status, body from angelgit_proposal")
        },
        certificates=rows("select principal, serial, denied from certificate"),
        quarantined={row[0] for row in rows("select principal from quarantine")},
    )
