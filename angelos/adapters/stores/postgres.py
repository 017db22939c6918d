"""PostgreSQL: a pool, transactions, each plane's migrations and its queries in `.sql` files.

    async with Database(dsn) as db:
        await db.migrate(["angelos.hub", "angelos.control"])
        async with db.transaction() as conn:
            await conn.execute(QUERIES["add_person"], {"name": "ada"})

Migrations go forwards only. A plane keeps its own in `migrations/NNNN_name.sql`, numbered from
0001; all that are missing, of all planes, are applied in one transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
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
    plane text, number integer, name text not null, sha256 text not null,
    applied_at timestamptz not null default now(),
    primary key (plane, number)
)"""
_APPLIED = "select plane, number, name, sha256 from schema_migration"
_IS_OLDER = """
select to_regclass('schema_migration') is not null and not exists (
    select from pg_attribute
    where attrelid = to_regclass('schema_migration') and attname = 'plane' and not attisdropped
)"""


class Migration(NamedTuple):
    """One file of a plane's `migrations/`."""

    plane: str
    """The last word of its package: `hub`."""
    number: int
    name: str
    sha256: str
    text: LiteralString


class PoolStats(NamedTuple):
    """How busy a pool is."""

    size: int = 0
    """Connections that are open."""
    idle: int = 0
    limit: int = 0
    waiting: int = 0
    """Callers that wait for a connection."""


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

    @property
    def pool(self) -> PoolStats:
        """How busy the pool is."""
        stats = self._pool.get_stats()
        return PoolStats(
            size=stats.get("pool_size", 0),
            idle=stats.get("pool_available", 0),
            limit=stats.get("pool_max", 0),
            waiting=stats.get("requests_waiting", 0),
        )

    @asynccontextmanager
    async def transaction(self, *, autocommit: bool = False) -> AsyncIterator[Connection]:
        """Yield a connection (rows are tuples); commit at the end, roll back on any error.

        With `autocommit`, each statement is a transaction.

        A cancellation is never lost here: the pool waits with `asyncio.wait_for`, which until
        Python 3.12 returns the result, and forgets the cancellation, where both come together.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            async with self._pool.connection() as connection:
                _raise_if_cancelled(task, before)
                await connection.set_autocommit(autocommit)
                yield connection
                _raise_if_cancelled(task, before)
            _raise_if_cancelled(task, before)
        except psycopg_pool.PoolTimeout as error:
            raise Unavailable("No connection to PostgreSQL was free or could be made.") from error
        except psycopg.OperationalError as error:
            if error.sqlstate is None or error.sqlstate[:2] in _UNAVAILABLE:
                raise Unavailable(f"PostgreSQL is not available: {error}".strip()) from error
            raise

    async def read(
        self, query: LiteralString, parameters: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one query, which needs no transaction: two round trips, not five."""
        async with self.transaction(autocommit=True) as connection:
            return await (await connection.execute(query, parameters)).fetchall()

    async def migrate(self, packages: Sequence[str]) -> list[str]:
        """Apply the missing migrations, all or none.

        Args:
            packages: the planes that have a `migrations` folder, in the order in which theirs are
                applied.

        Returns:
            What was applied, as `hub/0001_identities.sql`.

        Raises:
            Conflict: an applied migration differs from its file; the database was made by another
                version; or the server is too old or does not let us create tables.
        """
        try:
            return await self._migrate(migrations(packages))
        except errors.InsufficientPrivilege as error:
            raise Conflict(
                f"PostgreSQL does not let us create tables: {error.diag.message_primary}. "
                "Nothing was changed.",
                hint="Make the user of the DSN the owner of its database.",
            ) from error

    async def missing(self, packages: Sequence[str]) -> list[str]:
        """Return the migrations that somebody else has yet to apply.

        Raises:
            Conflict: The database was made by a newer version.
        """
        async with self.transaction() as connection:
            rows = await connection.execute("select to_regclass('schema_migration') is not null")
            applied: list[tuple[Any, ...]] = []
            if (await rows.fetchone()) == (True,):
                cursor = await connection.execute(_APPLIED)
                applied = await cursor.fetchall()
        return [f"{m.plane}/{m.name}" for m in pending(migrations(packages), applied)]

    async def _migrate(self, available: list[Migration]) -> list[str]:
        async with self.transaction() as connection:
            if connection.info.server_version < _OLDEST * 10_000:
                raise Conflict(
                    f"This is PostgreSQL {connection.info.server_version // 10_000}; "
                    f"{_OLDEST} or newer is needed. Nothing was changed."
                )
            await connection.execute("select pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            if (await (await connection.execute(_IS_OLDER)).fetchone()) == (True,):
                raise Conflict(
                    "The database was made by an earlier version of AngelOS, whose tables this "
                    "version does not read; nothing was changed.",
                    hint="Name another database in ANGELOS_POSTGRES_DSN.",
                )
            await connection.execute(_CREATE_TABLE)
            rows = await connection.execute(_APPLIED)
            missing = pending(available, await rows.fetchall())
            for migration in missing:
                await connection.execute(migration.text)
                await connection.execute(
                    "insert into schema_migration (plane, number, name, sha256)"
                    " values (%s, %s, %s, %s)",
                    migration[:4],
                )
        return [f"{migration.plane}/{migration.name}" for migration in missing]


def _raise_if_cancelled(task: asyncio.Task[Any] | None, before: int) -> None:
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def migrations(packages: Sequence[str]) -> list[Migration]:
    """Return the migrations of these packages: package by package, each in order."""
    return [migration for package in packages for migration in _migrations_of(package)]


def _migrations_of(package: str) -> list[Migration]:
    plane = package.rpartition(".")[2]
    result = []
    for file in resources.files(package).joinpath("migrations").iterdir():
        if match := _MIGRATION.match(file.name):
            text = file.read_text(encoding="utf-8")
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            number = int(match.group(1))
            # Files of this package are as trusted as its code.
            result.append(Migration(plane, number, file.name, sha256, cast("LiteralString", text)))
    return sorted(result)


def pending(available: Sequence[Migration], applied: list[tuple[Any, ...]]) -> list[Migration]:
    """Return the migrations to apply, given rows (plane, number, name, sha256).

    Raises:
        Conflict: an applied one is unknown or was changed, or one to apply comes before it.
    """
    missing = {(migration.plane, migration.number): migration for migration in available}
    newest: dict[str, int] = {}
    for plane, number, name, sha256 in applied:
        migration = missing.pop((plane, number), None)
        newest[plane] = max(newest.get(plane, 0), number)
        if migration is None:
            raise Conflict(
                f"The database has migration {plane}/{name}, which this version does not know.",
                hint="It was made by a newer version of AngelOS; install that one.",
            )
        if migration.sha256 != sha256:
            raise Conflict(
                f"Migration {plane}/{name} was changed after it was applied.",
                hint="Restore the file; put the change into a new migration.",
            )
    for migration in missing.values():
        last = newest.get(migration.plane, 0)
        if migration.number < last:
            raise Conflict(
                f"Migration {migration.plane}/{migration.name} comes before one that is applied "
                f"already ({last:04d}).",
                hint="Give it a number after the newest.",
            )
    return list(missing.values())


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
