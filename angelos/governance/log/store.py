"""The audit log in PostgreSQL: entries, the head of the projection, tiles and checkpoints.

`project` and `sign` each are one transaction under a lock on the head's row, so two processes
cannot disturb each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import InvalidInput, Tampered
from angelos.core.facts import Fact
from angelos.core.ids import Offset, offset_key
from angelos.core.snapshots import LogPoint
from angelos.governance.log.acceptance import AcceptedDamage, acceptance_of
from angelos.governance.log.checkpoint import Checkpoint, KeyEpoch, open_checkpoint
from angelos.governance.log.merkle import Frontier, leaf_hash
from angelos.governance.log.models import EntryRow, Head, NewEntry, Signed, new_entry
from angelos.governance.log.notes import NoteKey
from angelos.governance.log.proof import InclusionProof
from angelos.governance.log.tiles import (
    WIDTH,
    Span,
    TileId,
    consistency_spans,
    edge_ids,
    grown,
    inclusion_spans,
    span_hash,
    tiles_of,
)

_QUERIES = load_queries("angelos.governance")
_PAGE = 5_000
_TYPES = ("int8", "int8", "int8", "text", "text", "bytea", "bytea", "bytea", "bytea")
REPAIR = (
    "Run `angelos audit verify`; then restore the database from a backup, or stop the system and "
    "run `angelos audit accept-damage`."
)


_EXPIRE_STEP = 1_000


class Expiring(NamedTuple):
    """Entries of a log, some of them with outputs that expire."""

    origin: str
    after: int
    """Those up to this index were looked at."""
    upto: int
    offset: Offset
    """Of the last of them."""


class Signer(Protocol):
    """Whoever holds the log's keys."""

    epoch: KeyEpoch
    """Its public keys."""
    lasting: bool
    """Whether it has the same keys after a restart."""

    async def sign(self, checkpoint: Checkpoint, proof: Sequence[bytes]) -> str:
        """Return the signed note of a tree that continues the last one.

        Args:
            checkpoint: The tree.
            proof: Consistency with the last one that was signed.

        Raises:
            Tampered: It does not continue it.
            Unavailable: The signer does not answer.
        """
        ...


class AuditStore:
    """Reads and writes of the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> Head:
        """Return how far the projection has come."""
        async with self._database.transaction() as connection:
            return await _head(connection, "head")

    async def project(self, facts: list[Fact], entries: list[NewEntry] | None = None) -> Head:
        """Add facts in journal order; skip those that were added before.

        Args:
            facts: Lasting and other ones.
            entries: Those of the lasting ones, where they were made already.
        """
        if entries is None:
            entries = [entry for fact in facts if (entry := new_entry(fact)) is not None]
        async with self._database.transaction() as connection:
            head = await _head(connection, "lock_head")
            done = offset_key(head.offset)
            if offset_key(facts[-1].offset) <= done:
                return head
            fresh = [entry for entry in entries if offset_key(entry.offset) > done]
            tree = head.tree.extend(entry.leaf for entry in fresh)
            moved = Head(head.origin, tree, facts[-1].offset)
            ms, seq = offset_key(moved.offset)
            async with connection.cursor() as cursor:
                if fresh:
                    async with cursor.copy(_QUERIES["copy_entries"]) as copy:
                        copy.set_types(_TYPES)
                        for row in _rows(head.tree.size, fresh):
                            await copy.write_row(row)
                await cursor.execute(_QUERIES["move_head"], (tree.size, tree.packed(), ms, seq))
            return moved

    async def sign(self, at: float, previous: Checkpoint | None, signer: Signer) -> Signed:
        """Return the newest checkpoint, signing one now if entries came since.

        Args:
            at: Unix seconds.
            previous: The newest that the caller knows.
            signer: Whoever signs.

        Raises:
            Tampered: The stored entries no longer begin with those that the last checkpoint
                signed; nothing is signed.
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "lock_head")
            last = await _last(connection, await _epochs(connection))
            if previous is not None and previous.origin == head.origin:
                _not_set_back(previous, last)
            if last is not None and last.checkpoint.size > head.tree.size:
                raise Tampered(
                    f"{last.checkpoint.size} entries were signed, {head.tree.size} are left.",
                    hint=REPAIR,
                )
            base = last.tree if last is not None else Frontier()
            tree, leaves = await _extend(connection, base, head.tree.size)
            if tree != head.tree:
                raise Tampered(
                    "The entries since the last checkpoint do not have the head's root.",
                    hint=REPAIR,
                )
            if last is not None and last.checkpoint.size == tree.size:
                return last
            await _grow(connection, head.origin, base.size, leaves)
            checkpoint = Checkpoint(head.origin, tree.size, tree.root())
            proof = await _consistency(connection, head.origin, base.size, tree.size)
            note = await signer.sign(checkpoint, proof)
            open_checkpoint(note, [signer.epoch])
            await connection.execute(_QUERIES["add_key"], (_vkeys(signer.epoch),))
            row = (head.origin, tree.size, checkpoint.root, tree.packed(), note, at)
            await connection.execute(_QUERIES["add_checkpoint"], row)
            return Signed(checkpoint, note, tree)

    async def origin(self) -> str:
        """Return the log's name."""
        return (await self.head()).origin

    async def accepted(self) -> AcceptedDamage | None:
        """Return how this log came to be, if it goes on after a damaged one."""
        return await acceptance_of(self._database, await self.origin())

    async def last(self) -> Signed | None:
        """Return the last checkpoint, with the witnesses' signatures that came."""
        async with self._database.transaction() as connection:
            return await _last(connection, await _epochs(connection))

    async def holds(self, point: LogPoint) -> bool:
        """Return whether this log has entries up to a point, and a checkpoint that signs for it."""
        async with self._database.transaction() as connection:
            head = await _head(connection, "head")
            if head.origin != point.origin or head.tree.size < point.size:
                return False
            bounds = {"origin": point.origin, "after": point.size - 1, "upto": point.size}
            result = await connection.execute(_QUERIES["checkpoints"], bounds | {"limit": 1})
            row = await result.fetchone()
            epochs = await _epochs(connection)
        try:
            stated = Checkpoint(point.origin, point.size, point.root)
            return row is not None and open_checkpoint(row[1], epochs) == stated
        except Tampered:
            return False

    async def check(self) -> Signed | None:
        """Return the last checkpoint after checking its signature and every entry since.

        What it signs for is checked by `check_all`, which takes as long as the log is.

        Raises:
            Tampered: A signature, a row or an entry is wrong; the first bad one is named.
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "head")
            last = await _last(connection, await _epochs(connection))
            base = last.tree if last is not None else Frontier()
            if base.size > head.tree.size:
                raise Tampered(
                    f"{base.size} entries were signed, {head.tree.size} are left.", hint=REPAIR
                )
            tree, _ = await _extend(connection, base, head.tree.size)
            if tree != head.tree:
                raise Tampered("The head of the audit log was changed.", hint=REPAIR)
            return last

    async def check_all(self, signed: Signed) -> None:
        """Check every entry that a checkpoint signs for; raise `Tampered` for the first bad one."""
        tree = Frontier()
        while tree.size < signed.checkpoint.size:
            end = min(signed.checkpoint.size, tree.size + _PAGE)
            async with self._database.transaction() as connection:  # a page each: others go on
                tree, _ = await _extend(connection, tree, end)
        if tree.root() != signed.checkpoint.root:
            raise Tampered(
                f"The first {tree.size} entries do not have the root that was signed.", hint=REPAIR
            )

    async def entries(self, after: int, limit: int) -> list[EntryRow]:
        """Return at most `limit` entries whose index is over `after`."""
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["entries"], {"after": after, "limit": limit})
            return [_entry(row) for row in await result.fetchall()]

    async def prove(self, index: int, signed: Signed) -> InclusionProof:
        """Return the proof that an entry is in a signed tree.

        Raises:
            InvalidInput: The tree has no such entry.
            Tampered: The stored entry or hashes are not those that were signed.
        """
        size = signed.checkpoint.size
        if not 0 <= index < size:
            raise InvalidInput(f"There is no entry {index}: the log has {size}.")
        spans = inclusion_spans(index, size)
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["entry"], (index,))
            row = await result.fetchone()
            if row is None:
                raise Tampered(f"Entry {index} of the audit log is missing.", hint=REPAIR)
            path = await _hashes(connection, signed.checkpoint.origin, spans, size)
        return InclusionProof(_entry(row).body, index, tuple(path), signed.note)

    async def consistency(self, old_size: int, checkpoint: Checkpoint) -> list[bytes]:
        """Return the proof that the tree of `old_size` is a prefix of a signed one."""
        async with self._database.transaction() as connection:
            return await _consistency(connection, checkpoint.origin, old_size, checkpoint.size)

    async def extent(self) -> tuple[str, int]:
        """Return the log's name and how many entries it should have; nothing is verified."""
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["extent"])
            row = await result.fetchone()
        return row or ("", 0)

    async def notes(self, origin: str, after: int, upto: int, limit: int) -> list[tuple[int, str]]:
        """Return (size, note) of at most `limit` checkpoints over `after` up to `upto`, by size."""
        async with self._database.transaction() as connection:
            bounds = {"origin": origin, "after": after, "upto": upto, "limit": limit}
            result = await connection.execute(_QUERIES["checkpoints"], bounds)
            return [(size, note) for size, note in await result.fetchall()]

    async def add_cosigned(self, checkpoint: Checkpoint, note: str) -> None:
        """Keep a checkpoint's note with witnesses' signatures."""
        parameters = {"origin": checkpoint.origin, "size": checkpoint.size, "note": note}
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["cosign"], parameters)

    async def epochs(self) -> list[KeyEpoch]:
        """Return the keys that ever signed, in order."""
        async with self._database.transaction() as connection:
            return await _epochs(connection)

    async def erase(self, index: int) -> bool:
        """Remove the data of an entry and their salt for good; return whether there were any."""
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["erase"], (index,))
            return bool(result.rowcount)

    async def expiring(self, before: float) -> Expiring | None:
        """Return the entries whose outputs expire; None if there are none.

        Args:
            before: Of tasks that ended before (Unix seconds).
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "head")
            (done,) = await _row(connection, "expired_to", (head.origin,))
            result = await connection.execute(_QUERIES["newest_before"], (int(before * 1000),))
            newest = await result.fetchone()
            if newest is None or newest[0] <= done:
                return None
            upto, ms, seq = newest
            span = {"after": done, "upto": upto}
            (some,) = await _row(connection, "has_expired", span)
            if not some:
                await connection.execute(
                    _QUERIES["set_expired_to"], {"origin": head.origin, "upto": upto}
                )
                return None
        return Expiring(head.origin, done, upto, Offset(f"{ms}-{seq}"))

    async def expire(self, rest: Expiring) -> tuple[int, Expiring | None]:
        """Erase the outputs among the next entries; return how many, and what is left to look at.

        Outputs of tasks that tested a proposal stay, since its verdict rests on them.
        """
        upto = min(rest.upto, rest.after + _EXPIRE_STEP)
        span = {"after": rest.after, "upto": upto}
        async with self._database.transaction() as connection:
            result = await connection.execute(_QUERIES["expire"], span)
            await connection.execute(
                _QUERIES["set_expired_to"], {"origin": rest.origin, "upto": upto}
            )
        left = rest._replace(after=upto) if upto < rest.upto else None
        return result.rowcount, left


async def _row(connection: Connection, query: str, parameters: Any) -> tuple[Any, ...]:
    result = await connection.execute(_QUERIES[query], parameters)
    row = await result.fetchone()
    assert row is not None  # noqa: S101 - the query always has one
    return row


def _vkeys(epoch: KeyEpoch) -> list[str]:
    return [key.vkey for key in epoch]


async def _epochs(connection: Connection) -> list[KeyEpoch]:
    result = await connection.execute(_QUERIES["keys"])
    return [tuple(map(NoteKey.parse, vkeys)) for (vkeys,) in await result.fetchall()]


def _not_set_back(previous: Checkpoint, last: Signed | None) -> None:
    if last is None or last.checkpoint.size < previous.size:
        raise Tampered(f"The checkpoint of size {previous.size} is missing.", hint=REPAIR)


def _rows(size: int, entries: Sequence[NewEntry]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for idx, entry in enumerate(entries, start=size):
        place = (idx, *offset_key(entry.offset), entry.kind, entry.subject)
        rows.append((*place, entry.body, entry.leaf, entry.salt, entry.data))
    return rows


def _entry(row: tuple[int, int, int, bytes, bytes, bytes | None, bytes | None]) -> EntryRow:
    idx, ms, seq, body, leaf, salt, data = row
    return EntryRow(idx, Offset(f"{ms}-{seq}"), body, leaf, salt, data)


async def _last(connection: Connection, epochs: Collection[KeyEpoch]) -> Signed | None:
    result = await connection.execute(_QUERIES["last_checkpoint"])
    row = await result.fetchone()
    if row is None:
        return None
    size, root, frontier, note, cosigned = row
    checkpoint = open_checkpoint(note, epochs)
    if cosigned and open_checkpoint(cosigned, epochs) != checkpoint:
        raise Tampered("The last checkpoint's cosigned note is of another tree.", hint=REPAIR)
    try:
        tree = Frontier.unpacked(size, frontier)
    except ValueError as error:
        raise Tampered("The last checkpoint's frontier was changed.", hint=REPAIR) from error
    if (checkpoint.size, checkpoint.root) != (size, root) or tree.root() != root:
        raise Tampered("The last checkpoint's row was changed.", hint=REPAIR)
    return Signed(checkpoint, cosigned or note, tree)


async def _head(connection: Connection, query: str) -> Head:
    result = await connection.execute(_QUERIES[query])
    row = await result.fetchone()
    if row is None:
        raise Tampered("The head of the audit log is missing.", hint=REPAIR)
    origin, size, frontier, ms, seq = row
    try:
        return Head(origin, Frontier.unpacked(size, frontier), Offset(f"{ms}-{seq}"))
    except ValueError as error:
        raise Tampered("The head of the audit log was changed.", hint=REPAIR) from error


async def _extend(
    connection: Connection, tree: Frontier, size: int
) -> tuple[Frontier, list[bytes]]:
    """Return `tree` with the stored entries up to `size`, each checked against its body."""
    added: list[bytes] = []
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
        added += leaves
    return tree, added


async def _grow(connection: Connection, origin: str, size: int, leaves: list[bytes]) -> None:
    """Store the tiles that leaves complete; the lowest partial one is read from the entries."""
    stored = await _tiles(connection, origin, set(edge_ids(size)), size)
    edge = {tile.level: hashes for tile, hashes in stored.items()}
    try:
        changed = grown(edge, size, leaves)
    except ValueError as error:
        raise Tampered(f"A tile of the audit log was changed: {error}.", hint=REPAIR) from error
    partial = TileId(0, (size + len(leaves)) // WIDTH)
    rows = [(origin, *tile, hashes) for tile, hashes in changed.items() if tile != partial]
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(_QUERIES["put_tile"], rows)


async def _tiles(
    connection: Connection, origin: str, ids: set[TileId], size: int
) -> dict[TileId, bytes]:
    """Return stored tiles of a tree of `size`, and its lowest partial one from the entries."""
    partial = TileId(0, size // WIDTH)
    stored = sorted(ids - {partial})
    tiles: dict[TileId, bytes] = {}
    if stored:
        parameters = {
            "origin": origin,
            "levels": [tile.level for tile in stored],
            "indexes": [tile.number for tile in stored],
        }
        result = await connection.execute(_QUERIES["tiles"], parameters)
        tiles = {TileId(level, idx): hashes for level, idx, hashes in await result.fetchall()}
    if partial in ids:
        bounds = {"first": partial.number * WIDTH, "end": size}
        result = await connection.execute(_QUERIES["edge_leaves"], bounds)
        tiles[partial] = b"".join(leaf for (leaf,) in await result.fetchall())
    return tiles


async def _hashes(
    connection: Connection, origin: str, spans: Sequence[Span], size: int
) -> list[bytes]:
    tiles = await _tiles(connection, origin, tiles_of(spans), size)
    try:
        return [span_hash(span, tiles) for span in spans]
    except ValueError as error:
        raise Tampered(f"A tile of the audit log was changed: {error}.", hint=REPAIR) from error


async def _consistency(
    connection: Connection, origin: str, old_size: int, size: int
) -> list[bytes]:
    if not 0 < old_size < size:
        return []
    return await _hashes(connection, origin, consistency_spans(old_size, size), size)
