"""Rows of the audit log's tables: how entries go in and come out (`stores.entry_blocks`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from angelos.adapters.stores.entry_blocks import (
    BLOCK_ENTRIES,
    LEAF_BYTES,
    AuditLeaf,
    EntryNames,
    Packed,
    bytes_of,
    names_of,
    pack,
    split,
    terms_of,
    unpack,
)
from angelos.adapters.stores.postgres import Connection, load_queries
from angelos.core.audit import EMPTY_LEAF
from angelos.core.errors import Tampered
from angelos.core.ids import offset_key
from angelos.governance.log.merkle import leaf_hash
from angelos.governance.log.models import EntryRow, NewEntry

_QUERIES = load_queries("angelos.governance")
_INLINE = 32
"""Entries that are packed on the event loop; more go to a thread."""
REPAIR = (
    "Run `angelos audit verify`; then restore the database from a backup, or stop the system and "
    "run `angelos audit accept-damage`."
)

StoredRow = Sequence[Any]
"""first, count, leaves, bodies, data; perhaps what they are found by (`_places`)."""
NewRow = tuple[Any, ...]
"""As `add_block` and `add_tail` take it."""


class NewRows(NamedTuple):
    """What an append writes."""

    blocks: list[NewRow]
    tail: list[NewRow]


def tail_start(size: int) -> int:
    """Return the index of the first entry that is not in a sealed block yet."""
    return size - size % BLOCK_ENTRIES


def _new_rows(first: int, entries: Sequence[AuditLeaf], end: int) -> NewRows:
    """Return entries as rows: sealed ones up to the last multiple of 256, then the tail.

    Args:
        first: The index of the first entry.
        entries: Consecutive ones.
        end: The size of the log with them.
    """
    sealed = max(0, tail_start(end) - first)
    return NewRows(
        [_new_row(at, part, sealed=True) for at, part in split(first, entries[:sealed])],
        [_new_row(at, part, sealed=False) for at, part in split(first + sealed, entries[sealed:])],
    )


def entries_of(rows: Iterable[StoredRow], first: int) -> list[EntryRow]:
    """Return the entries of stored rows from `first` on; of one that is unreadable, the hashes."""
    return [entry for row in rows for entry in _entries_in(row) if entry.index >= first]


def _entries_in(row: StoredRow) -> list[EntryRow]:
    first, _, leaves, bodies, data, *_ = row
    try:
        entries = unpack(Packed(leaves, bodies, data))
    except Tampered:
        entries = [
            AuditLeaf(EMPTY_LEAF, leaves[at : at + LEAF_BYTES], None, None)
            for at in range(0, len(leaves), LEAF_BYTES)
        ]
    return [EntryRow(index, *entry) for index, entry in enumerate(entries, start=first)]


async def rows_for(connection: Connection, size: int, fresh: Sequence[NewEntry]) -> NewRows:
    """Return what is to be written to add entries after the first `size`.

    Raises:
        Tampered: An entry of the tail, which would be sealed, was changed or is missing.
    """
    first, end = size, size + len(fresh)
    entries = [AuditLeaf(entry.body, entry.leaf, entry.salt, entry.data) for entry in fresh]
    if tail_start(end) > size != tail_start(size):
        first = tail_start(size)
        result = await connection.execute(_QUERIES["tail"], (first,))
        tail = entries_of(await result.fetchall(), first)
        checked_leaves(tail, first, size)
        entries = [AuditLeaf(row.body, row.leaf, row.salt, row.data) for row in tail] + entries
    if len(entries) > _INLINE:
        return await asyncio.to_thread(_new_rows, first, entries, end)
    return _new_rows(first, entries, end)


async def write_rows(connection: Connection, rows: NewRows) -> None:
    """Write rows, and take what they seal from the tail."""
    for row in rows.blocks:
        await connection.execute(_QUERIES["add_block"], row)
    if rows.blocks:
        first, count, *_ = rows.blocks[-1]
        await connection.execute(_QUERIES["drop_tail"], (first + count,))
    for row in rows.tail:
        await connection.execute(_QUERIES["add_tail"], row)


def checked_leaves(rows: Sequence[EntryRow], first: int, end: int) -> list[bytes]:
    """Return the hashes of entries that are all there and have them; raise `Tampered`."""
    _in_order(rows, first, end)
    for row in rows:
        if leaf_hash(row.body) != row.leaf:
            raise Tampered(f"Entry {row.index} of the audit log was changed.", hint=REPAIR)
    return [row.leaf for row in rows]


class CheckedPage(NamedTuple):
    """Entries of a page of rows that have their hashes."""

    leaves: list[bytes]
    misplaced: str
    """What is said of the first row that readers would not find by what it holds, or empty."""


def checked_page(rows: Sequence[StoredRow], first: int, end: int) -> CheckedPage:
    """Return what the entries of stored rows are, from `first` up to `end` or fewer.

    Raises:
        Tampered: One was changed or is missing.
    """
    pages = [(row, _entries_in(row)) for row in rows]
    entries = [entry for _, part in pages for entry in part if first <= entry.index < end]
    reached = entries[-1].index + 1 if entries else first + 1
    leaves = checked_leaves(entries, first, reached)
    misplaced = (
        f"What entries {part[0].index} to {part[-1].index} of the audit log are found by was "
        "changed."
        for row, part in pages
        if part and part[-1].index < reached and not _is_found(row, part)
    )
    return CheckedPage(leaves, next(misplaced, ""))


def _is_found(row: StoredRow, entries: Sequence[EntryRow]) -> bool:
    """Return whether the columns beside a row's entries, by which readers look, are theirs."""
    _, count, _, _, _, *places, terms = row
    names = _names_in(entries)
    if count != len(entries) or tuple(places) != _places(names):
        return False
    return terms is None or terms == terms_of(names)


def _in_order(rows: Sequence[EntryRow], first: int, end: int) -> None:
    """Raise `Tampered` unless rows are the entries from `first` up to `end`, each once."""
    for expected, row in enumerate(rows, start=first):
        if row.index > expected:
            raise Tampered(f"Entry {expected} of the audit log is missing.", hint=REPAIR)
        if row.index < expected:
            raise Tampered(f"Entry {row.index} of the audit log is there twice.", hint=REPAIR)
    if len(rows) > end - first:
        raise Tampered(f"Entry {end} of the audit log was added.", hint=REPAIR)
    if len(rows) < end - first:
        raise Tampered(f"Entry {first + len(rows)} of the audit log is missing.", hint=REPAIR)


def _new_row(first: int, entries: list[AuditLeaf], *, sealed: bool) -> NewRow:
    names = _names_in(entries)
    raw = sum(map(bytes_of, entries))
    terms = terms_of(names) if sealed else None
    return (first, len(entries), *_places(names), raw, terms, *pack(entries))


def _names_in(entries: Iterable[AuditLeaf | EntryRow]) -> list[EntryNames]:
    return [names for entry in entries if (names := names_of(entry.body)) is not None]


def _places(names: Sequence[EntryNames]) -> tuple[int, int, int, int]:
    """Return the offsets of the first and the last entry."""
    offsets = [offset_key(each.offset) for each in names] or [(0, 0)]
    return (*offsets[0], *offsets[-1])
