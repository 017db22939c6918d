"""PostgreSQL and Valkey servers that somebody else runs: refused, or trusted for good reason."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from angelos.adapters.host.embedded import _valkey_binary
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, check_server, connect
from angelos.core.errors import Conflict, InvalidInput, Unavailable
from angelos.testing import eventually, make_fact
from angelos.wiring.stores import PLANES

KEEPS = ("--appendonly", "yes")


@contextmanager
def valkey_with(*options: str):
    """Run a Valkey as an administrator might have set it up; yield its URL and if it is ready."""
    with tempfile.TemporaryDirectory(prefix="angelos-") as name:
        folder = Path(name)
        socket, log = folder / "s", folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [_valkey_binary(), "--port", "0", "--unixsocket", socket, "--dir", folder,
                 "--save", "", *options],
                stdout=output, stderr=output,
            )  # fmt: skip
        try:
            yield f"unix://{socket}", lambda: b"eady to accept" in log.read_bytes()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--appendonly", "no"), "append-only file"),
        ((*KEEPS, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"), "allkeys-lru"),
        ((*KEEPS, "--maxmemory", "50mb", "--maxmemory-policy", "noeviction"), ""),
        ((*KEEPS, "--maxmemory-policy", "allkeys-lru"), ""),
    ],
)
async def test_a_valkey_that_may_forget_is_refused(options, why):
    with valkey_with(*options) as (url, ready):
        await eventually(ready, "Valkey")
        client = connect(url)
        try:
            if why:
                with pytest.raises(Conflict, match=why):
                    await check_server(client)
            else:
                await check_server(client)
        finally:
            await client.aclose()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--maxmemory", "200kb", "--maxmemory-policy", "noeviction"), "maxmemory"),
        (("--replicaof", "127.0.0.1 1"), "replica"),
        (("--user", "default", "on", "nopass", "~*", "+@all", "-xadd"), "permission"),
        (("--requirepass", "secret"), "uthentication"),
    ],
)
async def test_what_valkey_does_not_take_is_unavailable_with_its_reason(options, why):
    with valkey_with(*KEEPS, *options) as (url, ready):
        await eventually(ready, "Valkey")
        client = connect(url)
        try:
            with pytest.raises(Unavailable, match=why):
                await ValkeyJournal(client).append([make_fact("task.accepted", "task-1")])
        finally:
            await client.aclose()


@pytest.mark.parametrize(
    "url", ["", "host:6379", "http://x", "redis://x:y/0", "redis://:hunter2@x/0?nonsense=1"]
)
def test_an_address_of_another_kind_is_bad_input(url):
    with pytest.raises(InvalidInput, match="URL of Valkey") as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


async def test_a_valkey_that_is_not_there_is_named(tmp_path):
    client = connect(f"unix://{tmp_path}/none.sock")
    with pytest.raises(Unavailable, match=r"none\.sock"):
        await check_server(client)


@pytest.mark.parametrize("dsn", ["garbage", "postgresql://x?nonsense=1", "ada:hunter2@host/x"])
def test_a_dsn_of_another_kind_is_bad_input(dsn):
    with pytest.raises(InvalidInput, match="DSN") as caught:
        Database(dsn)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("/postgres?", "/nowhere?", 'database "nowhere" does not exist'),
        ("postgres@", "nobody_here@", 'role "nobody_here" does not exist'),
    ],
)
async def test_why_postgres_lets_nobody_in_is_told(stores, before, after, why):
    dsn = stores.postgres_url.replace(before, after, 1)
    with pytest.raises(Unavailable, match=why):
        async with Database(dsn, timeout_s=0.5):
            pytest.fail("it let us in")


async def test_a_role_that_may_make_no_tables_is_told_what_it_needs(stores):
    name = f"weak_{os.getpid()}"
    async with await psycopg.AsyncConnection.connect(stores.postgres_url, autocommit=True) as admin:
        await admin.execute(f"create role {name} login".encode())
        await admin.execute(f"create database {name}".encode())
        weak = stores.postgres_url.replace("postgres@/postgres", f"{name}@/{name}", 1)
        async with Database(weak) as database:
            with pytest.raises(Conflict, match=r"permission denied.*owner"):
                await database.migrate(PLANES)
        await admin.execute(f"drop database {name} with (force)".encode())
        await admin.execute(f"drop role {name}".encode())


async def test_a_full_disk_is_unavailable_and_rolls_back(database):
    full = "do $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$"

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute("create table half (v int)")
            await connection.execute(full)

    with pytest.raises(Unavailable, match="could not extend file"):
        await write()
    async with database.transaction() as connection:
        rows = await connection.execute("select to_regclass('half')")
        assert await rows.fetchone() == (None,)
