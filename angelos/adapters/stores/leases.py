"""`core.ports.Leases` in PostgreSQL: who owns what, by the database's own clock.

leases = PostgresLeases(database)
token = await leases.acquire("repo/study", "server-1 4711", ttl_s=10)
async with database.transaction() as connection:
await leases.check(token, connection)     # fences the writes of this transaction
...
"""

from __future__ import annotations

from typing import Any

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import Conflict, Fenced, InvalidInput
from angelos.core.fencing import FencingToken, check_epoch

_QUERIES = load_queries("angelos.adapters.stores")
_MAX_RESOURCE = 200


class PostgresLeases:
    """Leases in a migrated database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, resource: str, holder: str, ttl_s: float) -> FencingToken:
        """Take a free or expired resource."""
        if not resource or len(resource.encode()) > _MAX_RESOURCE:
            raise InvalidInput(f"A resource has a name of 1 to {_MAX_RESOURCE} bytes.")
        values = {"resource": resource, "holder": holder, "ttl": ttl_s}
        async with self._database.transaction() as connection:
            row = await _one(connection, "acquire_lease", values)
            if row is not None:
                return FencingToken(resource, holder, row[0])
            owner, rest = await _one(connection, "lease_holder", values) or ("", 0.0)
        raise Conflict(f"{resource} belongs to {owner}.", holder=owner, free_in_s=max(0.0, rest))

    async def holder(self, resource: str) -> str:
        """Return who holds a resource at present, empty if it is free."""
        async with self._database.transaction() as connection:
            row = await _one(connection, "lease_holder", {"resource": resource})
        owner, rest = row or (None, 0.0)
        return owner if owner and rest > 0 else ""

    async def renew(self, token: FencingToken, ttl_s: float) -> None:
        """Keep a resource for `ttl_s` more from now on."""
        values = {"resource": token.resource, "epoch": token.epoch, "ttl": ttl_s}
        async with self._database.transaction() as connection:
            if await _one(connection, "renew_lease", values) is None:
                await self._check(connection, token)

    async def release(self, token: FencingToken) -> None:
        """Give a resource back."""
        async with self._database.transaction() as connection:
            await connection.execute(
                _QUERIES["release_lease"], {"resource": token.resource, "epoch": token.epoch}
            )

    async def check(self, token: FencingToken, connection: Connection | None = None) -> None:
        """Return if the token has the highest epoch that was given.

        Args:
            token: Whose right to write it is.
            connection: Of the transaction that the check is to be part of; its own by default.
        """
        if connection is not None:
            await self._check(connection, token)
            return
        async with self._database.transaction() as own:
            await self._check(own, token)

    async def _check(self, connection: Connection, token: FencingToken) -> None:
        row = await _one(connection, "lease_epoch", {"resource": token.resource})
        epoch, held = row or (0, False)
        check_epoch(token, epoch)
        if not held:
            raise Fenced(f"{token.resource} was released.")


async def _one(
    connection: Connection, query: str, values: dict[str, Any]
) -> tuple[Any, ...] | None:
    return await (await connection.execute(_QUERIES[query], values)).fetchone()
