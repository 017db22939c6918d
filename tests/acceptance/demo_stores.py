"""What a demo left behind, read from its stores once they run again on its directory.

Rows and stream entries are read as they are, without AngelOS's own decoders.
"""

from __future__ import annotations

import hashlib
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
from tests.acceptance.independent import read_fact

EPHEMERAL = {"task.output", "document.edited"}


class Leaf(NamedTuple):
    """An entry of the audit log."""

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
    for entry, fields in entries:  # a block of facts, whose offsets count on from 512 times its own
        ms, _, number = entry.decode().partition("-")
        for place, one in enumerate(msgspec.msgpack.decode(fields[b"b"], type=list[msgspec.Raw])):
            offset = f"{ms}-{int(number) * 512 + place}"
            fact = read_fact(bytes(one)) | {"offset": offset, "index": None}
            if fact["kind"] not in EPHEMERAL:
                fact["index"], index = index, index + 1
            facts.append(fact)
    return facts


_PROPOSALS = "select id, status, body from angelgit_proposal"


def _record(objects: dict[str, bytes], record: dict[str, Any]) -> dict[str, Any]:
    return record | {"edits": msgspec.msgpack.decode(objects[record["edits"]])}


def _leaves(first: int, leaves: bytes, bodies: bytes, data: bytes) -> Iterator[Leaf]:
    """Yield the entries of a row of the log."""
    plain = zstandard.decompress(bodies)
    dictionary = zstandard.ZstdCompressionDict(plain, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    opened = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(data)
    salts, disclosed, *_ = msgspec.msgpack.decode(opened)
    for place, body in enumerate(msgspec.msgpack.decode(plain)):
        at = 32 * place  # nothing is erased here
        salt, fact = salts[at : at + 32], disclosed[place]
        commitment = hashlib.sha256(salt + fact).hexdigest().encode()
        whole = body.replace(b'"commitment":\0', b'"commitment":"%b"' % commitment)
        yield Leaf(first + place, whole, leaves[at : at + 32], salt, fact)


def _files(
    objects: dict[str, bytes], digest: str, folder: str
) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield (path, (mode, content)) of a directory and those below it."""
    kind, rows = msgspec.msgpack.decode(objects[digest])
    for row in rows:
        if kind == "fan":
            yield from _files(objects, row[0].hex(), folder) if row else ()
        elif row[1] == 0o040000:
            yield from _files(objects, row[2].hex(), f"{folder}{row[0]}/")
        else:
            yield f"{folder}{row[0]}", (row[1], objects[row[2].hex()])


def _read(connection: psycopg.Connection, facts: list[dict[str, Any]]) -> Left:
    def rows(query: str) -> list[Any]:
        return connection.execute(query.encode()).fetchall()

    decode = msgspec.msgpack.decode
    objects: dict[str, bytes] = {}
    query = "select hash, base, body from angelgit_object order by depth"
    for digest, base, packed in rows(query):
        kind = zstandard.DICT_TYPE_RAWCONTENT
        data = zstandard.ZstdCompressionDict(objects[base.hex()], dict_type=kind) if base else None
        objects[digest.hex()] = zstandard.ZstdDecompressor(dict_data=data).decompress(packed)
    commits = {}
    query = "select revision, body, signature from angelgit_commit"
    for revision, body, signature in rows(query):
        _, _, _, parents, tree, authors, *_ = decode(body)
        commit = {
            "parents": [parent.hex() for parent in parents],
            "tree": tree.hex(),
            "author": authors[0],
        }
        commits[revision.hex()] = {
            "revision": revision.hex(),
            "body": body,
            "signature": signature,
            "commit": commit,
            "files": dict(_files(objects, tree.hex(), "")),
        }
    return Left(
        facts=facts,
        leaves=[
            leaf
            for row in rows("select first, leaves, bodies, data from audit_row order by first")
            for leaf in _leaves(*row)
        ],
        notes=rows("select size, root, note from audit_checkpoint order by size"),
        commits=commits,
        branches={
            name: revision.hex()
            for name, revision in rows("select repo || ':' || name, revision from angelgit_branch")
        },
        proposals={row[0]: (row[1], _record(objects, decode(row[2]))) for row in rows(_PROPOSALS)},
        certificates=rows("select principal, serial, denied from certificate"),
        quarantined={row[0] for row in rows("select principal from quarantine")},
    )
