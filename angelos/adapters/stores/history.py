"""Lasting facts older than the journal's stream, read from the audit log in PostgreSQL.

For example:

    page = await History(database).read(after=START, before=None, limit=500)
"""

from __future__ import annotations

from collections.abc import Collection

from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.audit import fact_of, shown_data
from angelos.core.facts import Fact
from angelos.core.ids import Offset, offset_key

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
        after_ms, after_seq = offset_key(after)
        before_ms, before_seq = offset_key(before) if before else (None, None)
        parameters = {
            "after_ms": after_ms,
            "after_seq": after_seq,
            "before_ms": before_ms,
            "before_seq": before_seq,
            "kinds": list(kinds),
            "subject": subject,
            "limit": limit,
        }
        async with self._database.transaction() as connection:
            rows = await connection.execute(_QUERIES["history"], parameters)
            return [_fact_of(body, data) for body, data in await rows.fetchall()]

    async def projected(self) -> Offset:
        """Return the offset up to which all lasting facts are in the audit log."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_QUERIES["projected"])
            row = await rows.fetchone()
        ms, seq = row or (0, 0)
        return Offset(f"{ms}-{seq}")


def _fact_of(body: bytes, data: bytes | None) -> Fact:
    """Return a fact; of erased data it has what the log still shows."""
    return fact_of(body, shown_data(body) if data is None else data)
