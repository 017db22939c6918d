"""Outputs of tasks that have expired: which entries have them, and how they are erased.

Outputs of tasks that tested a proposal stay, since its verdict rests on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from angelos.adapters.stores.entry_blocks import Packed, term, without_data
from angelos.adapters.stores.postgres import Connection, load_queries
from angelos.core.audit import read_header
from angelos.core.errors import Tampered
from angelos.core.facts import Kind
from angelos.core.ids import Offset, offset_key
from angelos.governance.log.models import EntryRow
from angelos.governance.log.rows import StoredRow, entries_of, tail_start

_QUERIES = load_queries("angelos.governance")
_PAGE_BYTES = 4 << 20
_ENDS = frozenset({Kind.task_finished, Kind.task_reported})


class StoredOutput(NamedTuple):
    """An entry with the output of a task."""

    place: int
    task: str


class OutputPage(NamedTuple):
    """Some rows of the log."""

    rows: list[StoredRow]
    outputs: list[StoredOutput]
    tests: dict[str, bool]
    """Of each task that was accepted here, whether it tested a proposal."""
    upto: int
    """The last entry that was looked at."""


async def newest_before(connection: Connection, ms: int) -> tuple[int, Offset] | None:
    """Return the index and the offset of the last entry before a time of the journal."""
    result = await connection.execute(_QUERIES["row_before"], {"ms": ms})
    row = await result.fetchone()
    if row is None:
        return None
    for entry in reversed(entries_of([row], row[0])):
        offset = read_header(entry.body).offset
        if offset_key(offset)[0] < ms:
            return entry.index, offset
    raise Tampered("The offsets of the audit log were changed.")


async def next_page(connection: Connection, after: int, upto: int) -> OutputPage:
    """Return the next entries after `after`, of some megabytes at most, and their outputs."""
    bounds = {"first": after + 1, "end": upto + 1, "bytes": _PAGE_BYTES}
    rows = await (await connection.execute(_QUERIES["rows"], bounds)).fetchall()
    page = await asyncio.to_thread(_page_of, rows, after, upto)
    return page._replace(outputs=[o for o in page.outputs if not await _tests(connection, page, o)])


async def erase(connection: Connection, page: OutputPage, size: int) -> int:
    """Erase the outputs of a page; return how many there were.

    Args:
        connection: In a transaction that holds the log's lock.
        page: Read in it.
        size: Of the log.
    """
    erased = 0
    for first, count, leaves, bodies, data, *_ in page.rows:
        places = {o.place - first for o in page.outputs if first <= o.place < first + count}
        changed = without_data(Packed(leaves, bodies, data), places) if places else None
        if changed is not None:
            query = "erase_tail" if first >= tail_start(size) else "erase_block"
            parameters = {"data": changed.data, "first": first, "count": len(places)}
            await connection.execute(_QUERIES[query], parameters)
            erased += len(places)
    return erased


def _page_of(rows: Sequence[StoredRow], after: int, upto: int) -> OutputPage:
    outputs: list[StoredOutput] = []
    tests: dict[str, bool] = {}
    entries = entries_of(rows, after + 1)
    for entry in entries:
        if entry.index > upto:
            break
        leaf = read_header(entry.body)
        if leaf.kind in _ENDS and entry.data is not None:
            outputs.append(StoredOutput(entry.index, leaf.subject))
        tests |= _accepted(entry)
    last = min(upto, entries[-1].index) if entries else upto
    return OutputPage(list(rows), outputs, tests, last)


def _accepted(entry: EntryRow) -> dict[str, bool]:
    leaf = read_header(entry.body)
    if leaf.kind != Kind.task_accepted:
        return {}
    return {leaf.subject: bool(leaf.public.get("proposal"))}


async def _tests(connection: Connection, page: OutputPage, output: StoredOutput) -> bool:
    """Return whether the task of an output tested a proposal."""
    if output.task not in page.tests:
        terms = [term("subject", output.task), term("kind", Kind.task_accepted)]
        result = await connection.execute(_QUERIES["rows_with"], {"terms": terms})
        for entry in entries_of(await result.fetchall(), 0):
            page.tests.update(_accepted(entry))
        page.tests.setdefault(output.task, False)
    return page.tests[output.task]
