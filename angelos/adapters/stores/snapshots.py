"""Signed snapshots of folds in PostgreSQL.

    snapshots = SignedSnapshots(database, journal, log, key)
    await snapshots.save("control", version, SavedFold(offset, body))

Each is signed together with the code, the journal and the audit log that it belongs to, so that
whoever can write to the database alone cannot give the server another past.
"""

from __future__ import annotations

import logging
from hashlib import sha256

import msgspec

from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.errors import Unavailable
from angelos.core.ids import Offset, offset_key
from angelos.core.ports import Journal
from angelos.core.signing import SigningKey, VerifyKey
from angelos.core.snapshots import LogPoint, LogPoints, PointCheck, SavedFold

log = logging.getLogger(__name__)
_QUERIES = load_queries("angelos.adapters.stores")
_CONTEXT = b"angelos.fold-snapshot.v1"


class SnapshotStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed."""

    name: str
    version: str
    """Of the code that folds."""
    epoch: str
    """Of the journal."""
    offset: Offset
    log: LogPoint
    """Covers every lasting fact up to `offset`."""
    digest: str
    """SHA-256 of the body, hex."""


class SnapshotReader:
    """`core.snapshots.FoldSnapshots` for a process that only loads.

    Args:
        database: Migrated.
        journal: Whose facts are folded.
        points: The audit log.
        public: The key of whoever saves.
    """

    def __init__(
        self, database: Database, journal: Journal, points: PointCheck, public: VerifyKey
    ) -> None:
        self._database = database
        self._journal = journal
        self._points = points
        self._public = public

    async def load(self, name: str, version: str) -> SavedFold | None:
        """Return the last snapshot of a fold; None, and a warning, if it does not count."""
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["snapshot"], {"name": name})
            row = await result.fetchone()
        if row is None:
            return None
        statement, signature, body = map(bytes, row)
        offset, wrong = await self._judge(name, version, statement, signature, body)
        if wrong:
            log.warning(
                "the snapshot of %s is discarded, and its facts are folded: %s", name, wrong
            )
            return None
        return SavedFold(offset, body)

    async def save(self, name: str, version: str, saved: SavedFold) -> None:
        """Raise `Unavailable`: whoever only loads has no key."""
        del version, saved
        raise Unavailable(f"This process saves no snapshots of {name}.")

    async def _judge(
        self, name: str, version: str, statement: bytes, signature: bytes, body: bytes
    ) -> tuple[Offset, str]:
        """Return the offset of a snapshot, and why it does not count; empty if it does."""
        if not self._public.verify(_CONTEXT, statement, signature):
            return Offset(""), "it is not signed by this server"
        try:
            stated = msgspec.json.decode(statement, type=SnapshotStatement)
        except msgspec.DecodeError:
            return Offset(""), "it cannot be read"
        return stated.offset, await self._mismatch(name, version, stated, body)

    async def _mismatch(
        self, name: str, version: str, stated: SnapshotStatement, body: bytes
    ) -> str:
        if (stated.name, stated.version) != (name, version):
            return "other code has made it"
        if sha256(body).hexdigest() != stated.digest:
            return "its content was changed"
        position = await self._journal.position(stated.offset)
        if position.epoch != stated.epoch:
            return "it belongs to another journal"
        if offset_key(position.newest) < offset_key(stated.offset):
            return "the journal does not reach so far"
        if not await self._points.holds(stated.log):
            return "the audit log is not the one that it was made from"
        return ""


class SignedSnapshots(SnapshotReader):
    """`core.snapshots.FoldSnapshots` in a table.

    Args:
        database: Migrated.
        journal: Whose facts are folded.
        points: The audit log.
        key: Signs what is saved, and verifies what is loaded.
    """

    def __init__(
        self, database: Database, journal: Journal, points: LogPoints, key: SigningKey
    ) -> None:
        super().__init__(database, journal, points, key.public)
        self._log = points
        self._key = key

    async def save(self, name: str, version: str, saved: SavedFold) -> None:
        """Sign a snapshot and keep it in the place of the last one."""
        point = await self._log.point(saved.offset)
        position = await self._journal.position(saved.offset)
        digest = sha256(saved.body).hexdigest()
        statement = msgspec.json.encode(
            SnapshotStatement(name, version, position.epoch, saved.offset, point, digest)
        )
        row = {
            "name": name,
            "statement": statement,
            "signature": self._key.sign(_CONTEXT, statement),
            "body": saved.body,
        }
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["save_snapshot"], row)
