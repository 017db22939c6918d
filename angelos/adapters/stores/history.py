"""Lasting facts older than the journal's stream, read from the audit log in PostgreSQL.

For example:

    page = await History(database).read(after=START, before=None, limit=500)
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from angelos.adapters.stores.entry_blocks import Packed, names_of, term, unpack
from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.audit import fact_of, shown_data
from angelos.core.errors import Tampered
from angelos.core.facts import Fact
from angelos.core.ids import Offset, offset_key

_PAGE_BYTES = 4 << 20
_Key = tuple[int, int]
_Row = tuple[Any, ...]
"""Offset of the last entry, leaves, bodies, data."""
_QUERIES = load_queries("angelos.adapters.stores")


class History:
    """Reads of the audit log for readers of the journal.

    Args:
        database: migrated, and the one that governance writes the audit log to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        after: Offset,
        before: Offset | None,
        limit: int,
        kinds: Collection[str] = (),
        subject: str = "",
    ) -> list[Fact]:
        """Return at most `limit` facts after `after` and, if given, before `before`."""
        facts: list[Fact] = []
        first, last = offset_key(after), offset_key(before) if before else None
        entries = limit
        while len(facts) < limit:
            rows = await self._rows(first, last, entries, kinds, subject)
            if not rows:
                break
            entries *= 2  # few of them are looked for
            facts += await asyncio.to_thread(_facts, rows, first, last, kinds, subject)
            first = rows[-1][:2]
        return facts[:limit]

    async def _rows(
        self,
        after: _Key,
        before: _Key | None,
        entries: int,
        kinds: Collection[str],
        subject: str,
    ) -> list[_Row]:
        """Return the next rows, of some megabytes at most, in which such facts may be."""
        before_ms, before_seq = before or (None, None)
        parameters = {
            "after_ms": after[0],
            "after_seq": after[1],
            "before_ms": before_ms,
            "before_seq": before_seq,
            "kinds": [term("kind", kind) for kind in kinds],
            "subject": [term("subject", subject)] if subject else [],
            "bytes": _PAGE_BYTES,
            "entries": entries,
        }
        return await self._database.read(_QUERIES["history"], parameters)

    async def projected(self) -> Offset:
        """Return the offset up to which all lasting facts are in the audit log."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_QUERIES["projected"])
            row = await rows.fetchone()
        ms, seq = row or (0, 0)
        return Offset(f"{ms}-{seq}")


def _facts(
    rows: Sequence[_Row],
    after: _Key,
    before: _Key | None,
    kinds: Collection[str],
    subject: str,
) -> list[Fact]:
    facts = []
    for _, _, *columns in rows:
        for entry in unpack(Packed(*columns)):
            names = names_of(entry.body)
            if names is None:
                raise Tampered("An entry of the audit log cannot be read.")
            place = offset_key(names.offset)
            inside = place > after and (before is None or place < before)
            if inside and (not kinds or names.kind in kinds) and subject in ("", names.subject):
                data = shown_data(entry.body) if entry.data is None else entry.data
                facts.append(fact_of(entry.body, data))
    return facts
