"""The named queries of `queries.sql` on one connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from angelos.adapters.stores.postgres import Connection, load_queries

QUERIES: dict[str, LiteralString] = load_queries("angelos.angelgit")


class NamedQueries:
    """Runs queries by name; commit and rollback are the caller's."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    @property
    def connection(self) -> Connection:
        """Where they run."""
        return self._conn

    async def run(self, name: str, **params: object) -> None:
        """Run a query that returns no rows."""
        await self._conn.execute(QUERIES[name], params)

    async def many(
        self, name: str, rows: Sequence[Sequence[object]] | Sequence[Mapping[str, object]]
    ) -> None:
        """Run a query once for each row of parameters."""
        async with self._conn.cursor() as cursor:
            await cursor.executemany(QUERIES[name], rows)

    async def one(self, name: str, **params: object) -> tuple[Any, ...] | None:
        """Return the first row, None if there is none."""
        cursor = await self._conn.execute(QUERIES[name], params)
        return await cursor.fetchone()

    async def all(self, name: str, **params: object) -> list[tuple[Any, ...]]:
        """Return all rows."""
        cursor = await self._conn.execute(QUERIES[name], params)
        return await cursor.fetchall()
