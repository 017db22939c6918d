"""The composition root on real stores: what it builds, keeps, tells and refuses."""

from __future__ import annotations

import os
import signal
import socket
import stat

import pytest

from angelos.adapters.host.datadir import DataDir
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.entry_blocks import Packed, unpack
from angelos.adapters.stores.history import History
from angelos.adapters.stores.postgres import Database
from angelos.client import Angelos
from angelos.core.audit import read_leaf
from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId
from angelos.testing import eventually, make_fact, next_fact
from angelos.wiring.build import build_server
from angelos.wiring.server import RunningServer, serve
from angelos.wiring.settings import load
from angelos.wiring.stores import open_stores


@pytest.fixture
def settings(tmp_path):
    return load({}, data_dir=tmp_path / "data")


async def test_a_server_of_its_own_starts_keeps_and_ends_the_stores(settings):
    data = settings.data
    async with build_server(settings) as server:
        assert isinstance(server, RunningServer)
        where = data.server()
        assert (where.hub_url, where.enrol_url) == (server.hub.url, server.hub.enrol_url)
        paths = {(route.method, route.path) for route in server.routes}
        assert paths >= {
            ("GET", "/status"), ("POST", "/tasks"), ("POST", "/repos/{repo}/proposals"),
            ("GET", "/repos"), ("POST", "/enrolments"), ("GET", "/audit/export"),
        }  # fmt: skip
        assert ("POST", "/enrol") not in paths  # the enrolment listener's alone
        assert len(paths) == len(server.routes)
        first = await server.journal.read(START)
        assert Kind.system_started in {fact.kind for fact in first}
        for key in data.keys.rglob("*"):  # the signer's are in a folder of its own
            assert stat.S_IMODE(key.stat().st_mode) == (0o700 if key.is_dir() else 0o600)
        revision = await server.repository.create(
            "study", {"a.txt": b"one\n"}, PrincipalId("person/owner"), "import"
        )
        assert data.runtime.is_dir()
    assert not data.runtime.exists()
    assert data.server() is not None  # this process lives, but:
    async with build_server(settings) as server:
        assert server.hub.url == where.hub_url  # nodes find it where it was
        assert await server.repository.head("study", "main") == revision
        kinds = [fact.kind for fact in await server.journal.read(first[-1].offset)]
        assert kinds.count(Kind.system_stopped) == 1
        assert kinds.count(Kind.system_started) >= 1


async def test_the_end_of_the_system_is_in_the_audit_log_when_it_is_over(settings):
    async with open_stores(settings) as stores:
        async with serve(settings, stores, None):
            pass
        async with Database(stores.postgres) as database, database.transaction() as connection:
            rows = await connection.execute(
                "select first + count, leaves, bodies, data from audit_row order by first desc"
            )
            size, *columns = await rows.fetchone()
            assert read_leaf(unpack(Packed(*columns))[-1].body).kind == Kind.system_stopped
            rows = await connection.execute("select max(size) from audit_checkpoint")
            assert await rows.fetchone() == (size,)


async def test_a_port_that_was_taken_meanwhile_is_replaced(settings):
    async with build_server(settings) as server:
        port = int(server.hub.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        async with build_server(settings) as server:
            assert int(server.hub.url.rpartition(":")[2]) != port


async def test_it_is_found_once_it_is_published_and_not_after_its_end(settings):
    async with build_server(settings) as server:
        with pytest.raises(Unavailable):
            Angelos.connect(settings.data_dir)
        server.publish("http://127.0.0.1:1/base/", "token")
        assert Angelos.connect(settings.data_dir).url == "http://127.0.0.1:1/base"
        assert settings.data.system().hub_url == server.hub.url
    with pytest.raises(Unavailable):
        Angelos.connect(settings.data_dir)


async def test_a_second_one_does_not_touch_the_stores(settings):
    data = DataDir(settings.data_dir)
    data.create()
    with data.locked():
        async with open_stores(settings) as stores:
            assert stores is None
        with pytest.raises(Unavailable, match="No system runs"):
            async with build_server(settings):
                pytest.fail("there is nothing to attach to")


async def test_servers_of_ones_own_are_used(settings):
    env = {"ANGELOS_POSTGRES_DSN": "postgresql:///x", "ANGELOS_VALKEY_URL": "redis://x"}
    async with open_stores(load(env, data_dir=settings.data_dir)) as stores:
        assert stores == ("postgresql:///x", "redis://x")


async def test_a_store_that_cannot_be_reached_is_named(settings, tmp_path):
    env = {
        "ANGELOS_POSTGRES_DSN": f"postgresql:///x?host={tmp_path}&connect_timeout=1",
        "ANGELOS_VALKEY_URL": f"unix://{tmp_path}/none.sock",
    }
    with pytest.raises(Unavailable, match="PostgreSQL"):
        async with build_server(load(env, data_dir=settings.data_dir)):
            pytest.fail("there is no PostgreSQL")


async def test_under_up_it_waits_for_the_stores_of_up(settings):
    import asyncio

    from angelos.adapters.host.children import start_ticks
    from angelos.adapters.host.datadir import SystemFile

    settings.data.create()
    supervised = load({"ANGELOS_SUPERVISED": "1"}, data_dir=settings.data_dir)

    async def opened():
        async with open_stores(supervised) as stores:
            return stores

    waiting = asyncio.create_task(opened())
    await asyncio.sleep(0)
    assert not waiting.done()
    settings.data.write_system(
        SystemFile(
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
            started_at=0,
            postgres="dsn",
            valkey="url",
        )
    )
    assert await waiting == ("dsn", "url")


async def test_servers_of_ones_own_may_restart_under_a_running_system(settings, tmp_path):
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings.data.runtime, fsync=False)
    valkey = EmbeddedValkey(tmp_path / "valkey", settings.data.runtime)
    async with postgres, valkey:
        env = {"ANGELOS_POSTGRES_DSN": postgres.url, "ANGELOS_VALKEY_URL": valkey.url}
        async with build_server(load(env, data_dir=settings.data_dir)) as server:
            assert isinstance(server, RunningServer)
            assert not any(settings.data.postgres.iterdir())
            assert not any(settings.data.valkey.iterdir())
            for store in (postgres, valkey):
                os.kill(store.pid, signal.SIGKILL)
                await store.start()
            fact = make_fact("person.added", "person/ada")
            (offset,) = await server.journal.append([fact])
            found = await next_fact(server.journal, kind="person.added")
            assert found.offset == offset

            async def logged() -> bool:
                async with Database(postgres.url) as database:
                    history = History(database)
                    return bool(await history.read(START, None, 1, subject="person/ada"))

            await eventually(logged, "the fact in the audit log")
