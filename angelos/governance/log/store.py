"""The audit log in PostgreSQL: entries, the head of the projection, tiles and checkpoints.

Entries are kept in blocks of 256, compressed together, and those since the last multiple of 256 in
a tail, in rows as they came; an append that completes a block seals it and takes it from the tail.

`project` and `sign` each are one transaction under a lock on the head's row, so two processes
cannot disturb each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from angelos.adapters.stores.entry_blocks import Packed, body_at, without_data
from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import InvalidInput, Tampered
from angelos.core.facts import Fact
from angelos.core.ids import Offset, offset_key
from angelos.core.snapshots import LogPoint
from angelos.governance.log import expiry
from angelos.governance.log.acceptance import AcceptedDamage, acceptance_of
from angelos.governance.log.checkpoint import Checkpoint, KeyEpoch, open_checkpoint
from angelos.governance.log.merkle import HASH_BYTES, Frontier
from angelos.governance.log.models import EntryRow, Head, NewEntry, Signed, new_entry
from angelos.governance.log.notes import NoteKey
from angelos.governance.log.proof import InclusionProof
from angelos.governance.log.rows import (
    REPAIR,
    StoredRow,
    checked_page,
    entries_of,
    rows_for,
    tail_start,
    write_rows,
)
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
_PAGE = 4_096
_PAGE_BYTES = 8 << 20


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
            fresh = _ascending(entries, done)
            tree = head.tree.extend(entry.leaf for entry in fresh)
            moved = Head(head.origin, tree, facts[-1].offset)
            ms, seq = offset_key(moved.offset)
            rows = await rows_for(connection, head.tree.size, fresh)
            async with connection.pipeline():
                await write_rows(connection, rows)
                await connection.execute(_QUERIES["move_head"], (tree.size, tree.packed(), ms, seq))
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
            tree, leaves, misplaced = await _extend(connection, base, head.tree.size)
            if tree != head.tree:
                raise Tampered(
                    "The entries since the last checkpoint do not have the head's root.",
                    hint=REPAIR,
                )
            await _check_found(connection, tree.size, misplaced)
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
            head = await _head(connection, "lock_head")
            last = await _last(connection, await _epochs(connection))
            base = last.tree if last is not None else Frontier()
            if base.size > head.tree.size:
                raise Tampered(
                    f"{base.size} entries were signed, {head.tree.size} are left.", hint=REPAIR
                )
            tree, _, misplaced = await _extend(connection, base, head.tree.size)
            if tree != head.tree:
                raise Tampered("The head of the audit log was changed.", hint=REPAIR)
            await _check_found(connection, tree.size, misplaced)
            return last

    async def check_all(self, signed: Signed) -> None:
        """Check every entry that a checkpoint signs for; raise `Tampered` for the first bad one."""
        tree, misplaced = Frontier(), ""
        while tree.size < signed.checkpoint.size:
            end = min(signed.checkpoint.size, tree.size + _PAGE)
            async with self._database.transaction() as connection:  # a page each: others go on
                tree, _, wrong = await _extend(connection, tree, end)
            misplaced = misplaced or wrong
        if tree.root() != signed.checkpoint.root:
            raise Tampered(
                f"The first {tree.size} entries do not have the root that was signed.", hint=REPAIR
            )
        if misplaced:
            raise Tampered(misplaced, hint=REPAIR)

    async def entries(self, after: int, limit: int) -> list[EntryRow]:
        """Return at most `limit` entries whose index is over `after`; fewer where they are large.

        Entries that cannot be read have an empty body.
        """
        async with self._database.transaction() as connection:
            return await _entries(connection, after + 1, after + 1 + limit)

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
        query = _tile_query(signed.checkpoint.origin, tiles_of(spans), index)
        rows = await self._database.read(_QUERIES["proof"], query)
        body, tiles = _tiles_in(rows, index)
        if body is None:
            raise Tampered(f"Entry {index} of the audit log is missing.", hint=REPAIR)
        return InclusionProof(body, index, tuple(_hashes(spans, tiles)), signed.note)

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
            head = await _head(connection, "lock_head")
            result = await connection.execute(_QUERIES["row"], {"idx": index})
            row = await result.fetchone()
            if row is None:
                return False
            first, _, *columns = row
            changed = without_data(Packed(*columns), {index - first})
            if changed is None:
                return False
            query = "erase_tail" if first >= tail_start(head.tree.size) else "erase_block"
            parameters = {"data": changed.data, "first": first, "count": 1}
            await connection.execute(_QUERIES[query], parameters)
            return True

    async def expiring(self, before: float) -> Expiring | None:
        """Return the entries whose outputs expire; None if there are none.

        Args:
            before: Of tasks that ended before (Unix seconds).
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "head")
            (done,) = await _row(connection, "expired_to", (head.origin,))
            newest = await expiry.newest_before(connection, int(before * 1000))
            if newest is None:
                return None
            upto, offset = newest
            page = None
            while done < upto and not (page and page.outputs):
                page = await expiry.next_page(connection, done, upto)
                if not page.outputs:
                    done = page.upto
            await connection.execute(
                _QUERIES["set_expired_to"], {"origin": head.origin, "upto": done}
            )
        return Expiring(head.origin, done, upto, offset) if done < upto else None

    async def expire(self, rest: Expiring) -> tuple[int, Expiring | None]:
        """Erase the outputs among the next entries; return how many, and what is left to look at.

        Outputs of tasks that tested a proposal stay, since its verdict rests on them.
        """
        async with self._database.transaction() as connection:
            head = await _head(connection, "lock_head")
            upto = min(rest.upto, rest.after + _EXPIRE_STEP)
            page = await expiry.next_page(connection, rest.after, upto)
            erased = await expiry.erase(connection, page, head.tree.size)
            await connection.execute(
                _QUERIES["set_expired_to"], {"origin": rest.origin, "upto": page.upto}
            )
        left = rest._replace(after=page.upto) if page.upto < rest.upto else None
        return erased, left


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


async def _entries(connection: Connection, first: int, end: int) -> list[EntryRow]:
    """Return the stored entries from `first` up to `end`, or fewer where they are large."""
    rows = await _rows(connection, first, end)
    return [row for row in entries_of(rows, first) if row.index < end]


def _ascending(entries: Iterable[NewEntry], done: tuple[int, int]) -> list[NewEntry]:
    """Return the entries behind an offset, each once: a reader may be given some twice."""
    fresh = []
    for entry in entries:
        if (key := offset_key(entry.offset)) > done:
            fresh.append(entry)
            done = key
    return fresh


async def _rows(connection: Connection, first: int, end: int) -> list[StoredRow]:
    bounds = {"first": first, "end": end, "bytes": _PAGE_BYTES}
    result = await connection.execute(_QUERIES["rows"], bounds)
    return list(await result.fetchall())


async def _extend(
    connection: Connection, tree: Frontier, size: int
) -> tuple[Frontier, list[bytes], str]:
    """Return `tree` with the stored entries up to `size`, each checked against its body.

    Then the hashes of those, and what is said of the first row that its readers do not find.
    """
    added: list[bytes] = []
    misplaced = ""
    while tree.size < size:
        end = min(size, tree.size + _PAGE)
        rows = await _rows(connection, tree.size, end)
        page = await asyncio.to_thread(checked_page, rows, tree.size, end)
        tree = tree.extend(page.leaves)
        added += page.leaves
        misplaced = misplaced or page.misplaced
    return tree, added, misplaced


async def _check_found(connection: Connection, size: int, misplaced: str) -> None:
    """Raise `Tampered` where readers do not find entries that there are, or find more of them."""
    if misplaced:
        raise Tampered(misplaced, hint=REPAIR)
    result = await connection.execute(_QUERIES["beyond"], {"size": size})
    if await result.fetchone():
        raise Tampered(f"Entry {size} of the audit log was added: the log has {size}.", hint=REPAIR)


async def _grow(connection: Connection, origin: str, size: int, leaves: list[bytes]) -> None:
    """Store the tiles that leaves complete; those of level 0 are the entries' own."""
    stored = await _tiles(connection, origin, set(edge_ids(size)))
    edge = {tile.level: hashes for tile, hashes in stored.items()}
    if 0 in edge:
        edge[0] = edge[0][: size % WIDTH * HASH_BYTES]
    try:
        changed = grown(edge, size, leaves)
    except ValueError as error:
        raise Tampered(f"A tile of the audit log was changed: {error}.", hint=REPAIR) from error
    rows = [(origin, *tile, hashes) for tile, hashes in changed.items() if tile.level]
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(_QUERIES["put_tile"], rows)


async def _tiles(connection: Connection, origin: str, ids: set[TileId]) -> dict[TileId, bytes]:
    result = await connection.execute(_QUERIES["proof"], _tile_query(origin, ids))
    return _tiles_in(await result.fetchall())[1]


def _tile_query(origin: str, ids: set[TileId], index: int = -1) -> dict[str, Any]:
    """Return what the query `proof` asks for: tiles, and the row of an entry."""
    starts = {tile.number * WIDTH for tile in ids if tile.level == 0}
    if index >= 0:
        starts.add(index - index % WIDTH)
    upper = [tile for tile in ids if tile.level]
    return {
        "origin": origin,
        "idx": index,
        "group": min(starts, default=-WIDTH),
        "edge": max(starts, default=-WIDTH),
        "levels": [tile.level for tile in upper],
        "indexes": [tile.number for tile in upper],
    }


def _tiles_in(
    rows: Sequence[tuple[Any, ...]], index: int = -1
) -> tuple[bytes | None, dict[TileId, bytes]]:
    """Return the body of an entry, if there is one, and the tiles in the rows of `proof`."""
    body: bytes | None = None
    tiles: dict[TileId, bytes] = {}
    for level, number, hashes, bodies, data in rows:
        if level:
            tiles[TileId(level, number)] = hashes
            continue
        tile = TileId(0, number // WIDTH)
        before = tiles.get(tile, b"")
        if len(before) == number % WIDTH * HASH_BYTES:  # else there is a gap, and it is too short
            tiles[tile] = before + hashes
        if bodies is not None:
            body = body_at(Packed(hashes, bodies, data), index - number)
    return body, tiles


def _hashes(spans: Sequence[Span], tiles: Mapping[TileId, bytes]) -> list[bytes]:
    try:
        return [span_hash(span, tiles) for span in spans]
    except ValueError as error:
        raise Tampered(f"A tile of the audit log was changed: {error}.", hint=REPAIR) from error


async def _consistency(
    connection: Connection, origin: str, old_size: int, size: int
) -> list[bytes]:
    if not 0 < old_size < size:
        return []
    spans = consistency_spans(old_size, size)
    return _hashes(spans, await _tiles(connection, origin, tiles_of(spans)))
