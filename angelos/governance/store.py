"""The audit log in PostgreSQL: entries, the head of the projection, and checkpoints.

`project` and `sign` each are one transaction under a lock on the head's row, so two processes
cannot disturb each other.
"""

from __future__ import annotations

import msgspec

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import Tampered
from angelos.core.facts import Fact
from angelos.core.ids import Offset, offset_key
from angelos.core.signing import SigningKey, VerifyKey
from angelos.governance.checkpoint import Checkpoint, open_note, sign
from angelos.governance.merkle import Frontier, leaf_hash
from angelos.governance.models import new_entry

_QUERIES = load_queries("angelos.governance")
_PAGE = 5_000
REPAIR = "Export the log and run `angelos audit verify`; restore the database from a backup."


class Head(msgspec.Struct, frozen=True):
    """How far the projection has come."""

    tree: Frontier
    offset: Offset


class Signed(msgspec.Struct, frozen=True):
    """A checkpoint with its note and the frontier it was signed at."""

    checkpoint: Checkpoint
    note: str
    tree: Frontier


class EntryRow(msgspec.Struct, frozen=True):
    """An entry as it is stored."""

    index: int
    offset: Offset
    body: bytes
    leaf: bytes


class AuditStore:
    """Reads and writes of the audit log."""

    def __init__(self, database: Database, key: SigningKey) -> None:
        self._database = database
        self._key = key

    async def head(self) -> Head:
        """Return how far the projection has come."""
        async with self._database.transaction() as connection:
            return await _head(connection, "head")

    async def project(self, facts: list[Fact]) -> Head:
        """Add facts in journal order; skip those that were added before."""
        async with self._database.transaction() as connection:
            head = await _head(connection, "lock_head")
            fresh = [f for f in facts if offset_key(f.offset) > offset_key(head.offset)]
            if not fresh:
                return head
            entries = [entry for fact in fresh if (entry := new_entry(fact)) is not None]
            rows = []
            for idx, entry in enumerate(entries, start=head.tree.size):
                ms, seq = offset_key(entry.offset)
                rows.append((idx, ms, seq, entry.kind, entry.subject, entry.body, entry.leaf))
            tree = head.tree.extend(entry.leaf for entry in entries)
            moved = Head(tree, fresh[-1].offset)
            ms, seq = offset_key(moved.offset)
            async with connection.cursor() as cursor:
                if rows:
                    await cursor.executemany(_QUERIES["add_entry"], rows)
                await cursor.execute(
                    _QUERIES["move_head"],
                    (tree.size, tree.packed(), ms, seq),
                )
            return moved

    async def sign(self, at: float, previous: Checkpoint | None) -> Signed:
        """Return the newest checkpoint, signing one now if entries came since.

        `previous` is the newest that the caller knows.

        Raises:
            Tampered: The stored entries no longer begin with those that the last checkpoint
                signed; nothing is signed.
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "lock_head")
            last = await self._last(connection)
            if previous is not None and (last is None or last.checkpoint.size < previous.size):
                raise Tampered(f"The checkpoint of size {previous.size} is missing.", hint=REPAIR)
            if last is not None and last.checkpoint.size > head.tree.size:
                raise Tampered(
                    f"{last.checkpoint.size} entries were signed, {head.tree.size} are left.",
                    hint=REPAIR,
                )
            base = last.tree if last is not None else Frontier()
            tree = await _extend(connection, base, head.tree.size)
            if tree != head.tree:
                raise Tampered("The entries since the last checkpoint do not have the head's root.")
            if last is not None and last.checkpoint.size == tree.size:
                return last
            root = tree.root()
            note = sign(self._key, tree.size, root)
            await connection.execute(
                _QUERIES["add_checkpoint"],
                (tree.size, root, tree.packed(), note, at),
            )
            return Signed(open_note(note, self._key.public), note, tree)

    async def check(self) -> Checkpoint | None:
        """Verify the last checkpoint against every entry; raise `Tampered` for the first bad."""
        async with self._database.transaction() as connection:
            last = await self._last(connection)
            if last is None:
                return None
            tree = await _extend(connection, Frontier(), last.checkpoint.size)
            if tree.root() != last.checkpoint.root:
                raise Tampered(
                    f"The first {tree.size} entries do not have the root that was signed.",
                    hint=REPAIR,
                )
            return last.checkpoint

    async def entries(self, after: int, limit: int) -> list[EntryRow]:
        """Return at most `limit` entries whose index is over `after`."""
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["entries"], {"after": after, "limit": limit})
            return [
                EntryRow(idx, Offset(f"{ms}-{seq}"), body, leaf)
                for idx, ms, seq, body, leaf in await result.fetchall()
            ]

    async def notes(self, after: int, upto: int, limit: int) -> list[tuple[int, str]]:
        """Return (size, note) of at most `limit` checkpoints over `after` up to `upto`, by size."""
        async with self._database.transaction() as connection:
            bounds = {"after": after, "upto": upto, "limit": limit}
            result = await connection.execute(_QUERIES["checkpoints"], bounds)
            return [(size, note) for size, note in await result.fetchall()]

    async def _last(self, connection: Connection) -> Signed | None:
        result = await connection.execute(_QUERIES["last_checkpoint"])
        row = await result.fetchone()
        if row is None:
            return None
        return _opened(self._key.public, *row)


def _opened(key: VerifyKey, size: int, root: bytes, frontier: bytes, note: str) -> Signed:
    checkpoint = open_note(note, key)
    try:
        tree = Frontier.unpacked(size, frontier)
    except ValueError as error:
        raise Tampered("The last checkpoint's frontier was changed.", hint=REPAIR) from error
    if (checkpoint.size, checkpoint.root) != (size, root) or tree.root() != root:
        raise Tampered("The last checkpoint's row was changed.", hint=REPAIR)
    return Signed(checkpoint, note, tree)


async def _head(connection: Connection, query: str) -> Head:
    result = await connection.execute(_QUERIES[query])
    row = await result.fetchone()
    if row is None:
        raise Tampered("The head of the audit log is missing.", hint=REPAIR)
    size, frontier, ms, seq = row
    try:
        return Head(Frontier.unpacked(size, frontier), Offset(f"{ms}-{seq}"))
    except ValueError as error:
        raise Tampered("The head of the audit log was changed.", hint=REPAIR) from error


async def _extend(connection: Connection, tree: Frontier, size: int) -> Frontier:
    """Return `tree` with the stored entries up to `size`, each checked against its body."""
    while tree.size < size:
        end = min(size, tree.size + _PAGE)
        result = await connection.execute(_QUERIES["leaves"], {"first": tree.size, "end": end})
        leaves = []
        for expected, (idx, body, leaf) in enumerate(await result.fetchall(), start=tree.size):
            if idx != expected:
                raise Tampered(f"Entry {expected} of the audit log is missing.", hint=REPAIR)
            if leaf_hash(body) != leaf:
                raise Tampered(f"Entry {idx} of the audit log was changed.", hint=REPAIR)
            leaves.append(leaf)
        if len(leaves) < end - tree.size:
            missing = tree.size + len(leaves)
            raise Tampered(f"Entry {missing} of the audit log is missing.", hint=REPAIR)
        tree = tree.extend(leaves)
    return tree
