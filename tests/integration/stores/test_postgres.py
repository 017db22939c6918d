"""Migrations and transactions on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest

from angelos.adapters.stores import postgres
from angelos.adapters.stores.postgres import Database, Migration, migrations
from angelos.core.errors import Conflict, Unavailable
from angelos.wiring.stores import PLANES


@pytest.fixture
async def empty(stores):
    """A database without any table of ours."""
    async with await psycopg.AsyncConnection.connect(stores.postgres_url, autocommit=True) as admin:
        await admin.execute("create database empty_one")
        async with Database(stores.postgres_url.replace("/postgres?", "/empty_one?")) as database:
            yield database
        await admin.execute("drop database empty_one with (force)")


async def tables(database):
    async with database.transaction() as connection:
        rows = await connection.execute(
            "select tablename from pg_tables where schemaname = 'public'"
        )
        return {name for (name,) in await rows.fetchall()}


def pretend(monkeypatch, *found):
    monkeypatch.setattr(postgres, "migrations", lambda _: list(found))


ONE = Migration("hub", 1, "0001_a.sql", "aa", "create table a (x int)")
TWO = Migration("hub", 2, "0002_b.sql", "bb", "create table b (x int); create table c (x int);")
BAD = Migration("hub", 3, "0003_bad.sql", "cc", "create table d (x int); create table a (x int);")


async def test_all_migrations_apply_once(empty):
    names = [f"{migration.plane}/{migration.name}" for migration in migrations(PLANES)]
    assert "governance/0001_audit.sql" in names
    assert await empty.migrate(PLANES) == names
    assert await empty.migrate(PLANES) == []
    assert "audit_block" in await tables(empty)


async def test_many_processes_at_once_migrate_once(empty):
    others = [Database(empty.dsn, max_connections=1) for _ in range(4)]
    for other in others:
        await other.__aenter__()
    applied = await asyncio.gather(*(other.migrate(PLANES) for other in others))
    for other in others:
        await other.__aexit__()
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations(PLANES))]


async def test_a_failing_migration_leaves_nothing_of_any(empty, monkeypatch):
    pretend(monkeypatch, ONE, TWO, BAD)
    with pytest.raises(psycopg.errors.DuplicateTable):
        await empty.migrate(PLANES)
    assert await tables(empty) == set()
    pretend(monkeypatch, ONE, TWO)
    assert await empty.migrate(PLANES) == ["hub/0001_a.sql", "hub/0002_b.sql"]
    assert await tables(empty) == {"a", "b", "c", "schema_migration"}


async def test_a_changed_migration_and_a_newer_database_are_refused(empty, monkeypatch):
    pretend(monkeypatch, ONE, TWO)
    await empty.migrate(PLANES)
    pretend(monkeypatch, ONE, TWO._replace(sha256="changed"))
    with pytest.raises(Conflict, match=r"0002_b.sql was changed after it was applied"):
        await empty.migrate(PLANES)
    pretend(monkeypatch, ONE)
    with pytest.raises(Conflict, match=r"0002_b.sql, which this version does not know"):
        await empty.migrate(PLANES)


async def test_a_database_of_an_earlier_version_is_refused_and_untouched(empty):
    async with empty.transaction() as connection:
        await connection.execute(
            "create table schema_migration (number integer primary key, name text not null,"
            " sha256 text not null, applied_at timestamptz not null default now())"
        )
        await connection.execute("insert into schema_migration values (1, '0001_audit.sql', 'aa')")

    async def rows():
        async with empty.transaction() as connection:
            return await (await connection.execute("select * from schema_migration")).fetchall()

    before = await rows()
    with pytest.raises(Conflict, match=r"earlier version of AngelOS.*nothing was changed"):
        await empty.migrate(PLANES)
    assert await tables(empty) == {"schema_migration"}
    assert await rows() == before


async def test_an_error_rolls_back(database):
    async def fail():
        async with database.transaction() as connection:
            await connection.execute("create table gone (x int)")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    assert "gone" not in await tables(database)


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_each_test_has_a_database_of_its_own(database, turn):
    assert "mine" not in await tables(database), turn
    async with database.transaction() as connection:
        await connection.execute("create table mine (x int)")


async def test_a_server_that_is_not_there(tmp_path):
    dsn = f"postgresql://postgres@/postgres?host={tmp_path}"
    with pytest.raises(Unavailable, match="did not answer"):
        async with Database(dsn, timeout_s=0.2):
            pass


async def test_a_cancellation_that_comes_with_a_connection_is_not_lost(database):
    """The pool waits with asyncio.wait_for, which loses it until Python 3.12."""
    async with Database(database.dsn, max_connections=1) as pool:

        async def ask():
            while True:
                async with pool.transaction():
                    pass

        for number in range(100):
            async with pool.transaction():  # so that it waits for this one
                task = asyncio.create_task(ask())
                await asyncio.sleep(0.0005)
            for _ in range(number % 10):  # while the connection is handed over
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            assert done, f"the cancellation of number {number} is lost"
            assert task.cancelled()


async def test_a_cancelled_transaction_changes_nothing(database):
    async with database.transaction() as connection:
        await connection.execute("create table kept (n integer)")
    task = asyncio.current_task()
    assert task is not None

    async def change():
        async with database.transaction() as connection:
            await connection.execute("insert into kept values (1)")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # what wait_for does
                await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await change()
    task.uncancel()
    async with database.transaction() as connection:
        rows = await connection.execute("select count(*) from kept")
        assert await rows.fetchone() == (0,)
