"""PostgreSQL: a pool, transactions, migrations from `sql/`, and queries from `.sql` files.

    async with Database(dsn) as db:
        await db.migrate()
        async with db.transaction() as conn:
            await conn.execute(QUERIES["add_person"], {"name": "ada"})

Migrations go forwards only: `sql/NNNN_name.sql`, all that are missing in one transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, LiteralString, NamedTuple, Self, cast

import psycopg
import psycopg_pool
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from angelos.core.errors import Conflict, InvalidInput, Unavailable

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 0x616E67656C6F73  # "angelos"
_MIGRATION = re.compile(r"^([0-9]{4})_[a-z0-9_]+\.sql$")
_QUERY = re.compile(r"^-- name: ([a-z0-9_]+)[ \t]*\n", re.MULTILINE)
_UNAVAILABLE = ("08", "53", "57")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention."""
_OLDEST = 15
_REASON_S = 2

_CREATE_TABLE = """
create table if not exists schema_migration (
    number integer primary key, name text not null, sha256 text not null,
    applied_at timestamptz not null default now()
)"""


class Migration(NamedTuple):
    """One file of `sql/`."""

    number: int
    name: str
    sha256: str
    text: LiteralString


class Database:
    """A pool of connections; enter it to open them.

    Every error that means "the server cannot be reached" is raised as `Unavailable`.

    Args:
        dsn: a PostgreSQL connection string.
        max_connections: more callers at once wait for a free one.
        timeout_s: how long they wait, in seconds.

    Raises:
        InvalidInput: `dsn` is not a connection string.
    """

    def __init__(
        self, dsn: str, *, max_connections: int = 10, timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            raise InvalidInput(  # without its text, which may hold a password
                "The DSN of PostgreSQL cannot be read.",
                hint="Write ANGELOS_POSTGRES_DSN as postgresql://user@host/database.",
            ) from None
        self.dsn = dsn
        self._timeout_s = timeout_s
        self._pool: psycopg_pool.AsyncConnectionPool[Connection] = psycopg_pool.AsyncConnectionPool(
            dsn,
            connection_class=Connection,
            min_size=1,
            max_size=max_connections,
            open=False,
            timeout=timeout_s,
            # The pool doubles its delay between attempts; without a bound it would still be
            # waiting long after the server is back.
            reconnect_timeout=2.0,
            # One round trip, so that the next caller does not get a connection that a restart cut.
            check=psycopg_pool.AsyncConnectionPool.check_connection,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._pool.open(wait=True, timeout=self._timeout_s)
        except psycopg_pool.PoolTimeout as error:
            await self._pool.close()
            raise Unavailable(
                f"PostgreSQL did not answer within {self._timeout_s:g} s: {await self._reason()}.",
                hint="Is the server of the DSN running?",
            ) from error
        return self

    async def _reason(self) -> str:
        """Return why no connection can be made; the pool does not say."""
        try:
            connection = await psycopg.AsyncConnection.connect(self.dsn, connect_timeout=_REASON_S)
        except psycopg.Error as error:
            return " ".join(str(error).split()).rstrip(".")
        await connection.close()
        return "the server answered too late"

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a connection (rows are tuples); commit at the end, roll back on any error."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except psycopg_pool.PoolTimeout as error:
            raise Unavailable("No connection to PostgreSQL was free or could be made.") from error
        except psycopg.OperationalError as error:
            if error.sqlstate is None or error.sqlstate[:2] in _UNAVAILABLE:
                raise Unavailable(f"PostgreSQL is not available: {error}".strip()) from error
            raise

    async def migrate(self) -> list[str]:
        """Apply what is missing, all or nothing, and return the names of what was applied.

        Raises `Conflict` when an applied migration differs from its file, when the database
        holds one that this version does not know, or when the server is too old or does not let
        us create tables.
        """
        try:
            return await self._migrate()
        except errors.InsufficientPrivilege as error:
            raise Conflict(
                f"PostgreSQL does not let us create tables: {error.diag.message_primary}. "
                "Nothing was changed.",
                hint="Make the user of the DSN the owner of its database.",
            ) from error

    async def _migrate(self) -> list[str]:
        known = migrations()
        async with self.transaction() as connection:
            if connection.info.server_version < _OLDEST * 10_000:
                raise Conflict(
                    f"This is PostgreSQL {connection.info.server_version // 10_000}; "
                    f"{_OLDEST} or newer is needed. Nothing was changed."
                )
            await connection.execute("select pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            await connection.execute(_CREATE_TABLE)
            rows = await connection.execute("select number, name, sha256 from schema_migration")
            missing = pending(known, await rows.fetchall())
            for migration in missing:
                await connection.execute(migration.text)
                await connection.execute(
                    "insert into schema_migration (number, name, sha256) values (%s, %s, %s)",
                    migration[:3],
                )
        return [migration.name for migration in missing]


def migrations() -> list[Migration]:
    """Return the migrations of this version in order."""
    found = []
    for file in resources.files("angelos.adapters").joinpath("sql").iterdir():
        if match := _MIGRATION.match(file.name):
            text = file.read_text(encoding="utf-8")
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            number = int(match.group(1))
            # Files of this package are as trusted as its code.
            found.append(Migration(number, file.name, sha256, cast("LiteralString", text)))
    found.sort()
    return found


def pending(known: list[Migration], applied: list[tuple[Any, ...]]) -> list[Migration]:
    """Return the migrations to apply, given rows (number, name, sha256); raise `Conflict`."""
    by_number = {migration.number: migration for migration in known}
    newest = 0
    for number, name, sha256 in applied:
        migration = by_number.pop(number, None)
        newest = max(newest, number)
        if migration is None:
            raise Conflict(
                f"The database has migration {name}, which this version does not know.",
                hint="It was made by a newer version of AngelOS; install that one.",
            )
        if migration.sha256 != sha256:
            raise Conflict(
                f"Migration {name} was changed after it was applied.",
                hint="Restore the file; put the change into a new migration.",
            )
    if late := [migration.name for number, migration in by_number.items() if number < newest]:
        raise Conflict(
            f"Migration {late[0]} comes before one that is applied already ({newest:04d}).",
            hint="Give it a number after the newest.",
        )
    return sorted(by_number.values())


def load_queries(package: str) -> dict[str, LiteralString]:
    """Return the queries of a package's `queries.sql` by name.

    Each begins with a line `-- name: some_words`; parameters are psycopg's `%(name)s`.
    Raises `ValueError` when a name stands twice or text comes before the first name.
    """
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    before, *parts = _QUERY.split(text)
    if re.sub(r"--[^\n]*", "", before).strip():
        msg = f"queries.sql of {package} has text before its first `-- name:`"
        raise ValueError(msg)
    queries: dict[str, LiteralString] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in queries:
            msg = f"queries.sql of {package} has {name} twice"
            raise ValueError(msg)
        queries[name] = cast("LiteralString", body.strip().rstrip(";"))
    return queries
