"""The embedded servers: start, stop, `kill -9`, orphans, and what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import msgspec
import psycopg
import pytest

from angelos.adapters.host.children import end_recorded, start_ticks
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey, Recorded
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.errors import Conflict, Unavailable
from angelos.core.ids import START, PrincipalId
from angelos.testing import eventually, make_fact
from angelos.wiring.stores import PLANES

NODE = PrincipalId("node/exec1")


@pytest.fixture
def folder():
    # Not tmp_path: its name alone may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="angelos-") as name:
        yield Path(name)


@pytest.fixture
def postgres(folder):
    return EmbeddedPostgres(folder / "data" / "postgres", folder / "run", fsync=False)


@pytest.fixture
def embedded_valkey(folder):
    return EmbeddedValkey(folder / "data" / "valkey", folder / "run")


async def killed(server):
    """Kill a server the hard way and wait until it is gone."""
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: start_ticks(server.pid) != server.start_ticks, "the end of it")


async def insert(url, value):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("create table if not exists t (v int)")
        await connection.execute("insert into t values (%s)", (value,))


async def values(url):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        rows = await connection.execute("select v from t order by v")
        return [v for (v,) in await rows.fetchall()]


async def test_postgres_keeps_its_data_over_stops_and_leaves_nothing_behind(postgres):
    async with postgres:
        pid = postgres.pid
        assert start_ticks(pid) == postgres.start_ticks
        await insert(postgres.url, 1)
    assert start_ticks(pid) is None
    assert not (postgres.data_dir / "process.json").exists()
    async with postgres:
        assert await values(postgres.url) == [1]


async def test_postgres_listens_on_a_private_socket_only(postgres):
    async with postgres:
        async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
            rows = await connection.execute("show listen_addresses")
            assert await rows.fetchone() == ("",)
        for path in (postgres.data_dir, postgres.data_dir / "cluster", postgres.runtime_dir):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def rights(pid):
    process = Path(f"/proc/{pid}")
    return process.stat().st_uid, (process / "status").read_text()


async def test_postgres_never_runs_as_root(postgres):
    async with postgres:
        owner, status = rights(postgres.pid)
        assert owner != 0
        if os.getuid() != 0:
            assert owner == os.getuid()
        assert "CapEff:\t0000000000000000" in status


async def test_postgres_has_vectors(postgres):
    async with (
        postgres,
        await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection,
    ):
        await connection.execute("create extension vector")
        rows = await connection.execute("select '[1,2]'::vector <-> '[1,4]'::vector")
        assert await rows.fetchone() == (2.0,)


async def test_postgres_killed_starts_again_with_all_that_was_committed(postgres):
    async with postgres:
        for value in range(20):
            await insert(postgres.url, value)
        await killed(postgres)
        again = EmbeddedPostgres(postgres.data_dir, postgres.runtime_dir, fsync=False)
        async with again:
            assert await values(again.url) == list(range(20))


async def test_a_database_object_survives_a_killed_server(postgres):
    async with postgres, Database(postgres.url, timeout_s=1.0) as database:
        assert await database.migrate(PLANES)
        await killed(postgres)
        with pytest.raises(Unavailable):
            async with database.transaction() as connection:
                await connection.execute("select 1")
        async with EmbeddedPostgres(postgres.data_dir, postgres.runtime_dir, fsync=False):

            async def back():
                with contextlib.suppress(Unavailable):
                    return await database.migrate(PLANES) == []

            await eventually(back, "the way back")


async def test_postgres_of_another_version_is_refused_and_untouched(postgres):
    async with postgres:
        pass
    marker = postgres.data_dir / "cluster" / "PG_VERSION"
    marker.write_text("16\n")
    with pytest.raises(Conflict, match="made by PostgreSQL 16; this is PostgreSQL 18"):
        await postgres.start()
    marker.write_text("18\n")
    async with postgres:
        pass


async def test_a_lock_file_whose_process_id_a_stranger_has_does_not_stop_the_start(postgres):
    async with postgres:
        await insert(postgres.url, 1)
        await killed(postgres)
    lock = postgres.data_dir / "cluster" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    os.chown(lock, *_owner(lock.parent))
    async with postgres:
        assert await values(postgres.url) == [1]


def _owner(path):
    found = path.stat()
    return found.st_uid, found.st_gid


async def test_a_start_that_was_killed_half_way_is_done_again(postgres):
    half = postgres.data_dir / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with postgres:
        await insert(postgres.url, 1)


def test_the_socket_path_must_be_short(folder):
    long = EmbeddedValkey(folder / "v", folder / ("r" * 120))
    with pytest.raises(Unavailable, match="longer than 107"):
        asyncio.run(long.start())


async def test_valkey_is_private_and_keeps_what_it_acknowledged(embedded_valkey):
    async with embedded_valkey as server:
        client = connect(server.url)
        await client.set("k", "v")
        assert list((await client.config_get("port")).values()) in (["0"], [b"0"])
        assert stat.S_IMODE((server.runtime_dir / "valkey.sock").stat().st_mode) == 0o700
        await client.aclose()
    async with embedded_valkey as server:
        client = connect(server.url)
        assert await client.get("k") == b"v"
        await client.aclose()


@pytest.mark.parametrize("durability", ["everysec", "always"])
async def test_valkey_killed_while_many_write_loses_no_acknowledged_fact(folder, durability):
    valkey = EmbeddedValkey(folder / "valkey", folder / "run", durability=durability)
    acknowledged, stop = [], asyncio.Event()

    async def write(journal, writer):
        for index in range(100_000):
            fact = make_fact("task.output", f"task-{writer}", data={"index": index})
            try:
                await journal.append([fact])
            except Unavailable:
                return
            acknowledged.append(fact.id)
            if stop.is_set():
                return

    for round_ in range(3):
        async with valkey as server:
            client = connect(server.url)
            journal = ValkeyJournal(client)
            if round_:
                kept = {f.id for f in await journal.read(START, limit=1_000_000)}
                assert set(acknowledged) <= kept
            writers = [asyncio.create_task(write(journal, n)) for n in range(8)]
            wanted = len(acknowledged) + 400
            await eventually(lambda wanted=wanted: len(acknowledged) >= wanted, "400 facts")
            await killed(server)
            stop.set()
            await asyncio.gather(*writers)
            stop.clear()
            await client.aclose()
    async with valkey as server:
        client = connect(server.url)
        kept = {f.id for f in await ValkeyJournal(client).read(START, limit=1_000_000)}
        await client.aclose()
    assert set(acknowledged) <= kept


async def test_readers_go_on_and_writers_are_told_when_valkey_is_killed(embedded_valkey):
    async with embedded_valkey as server:
        client = connect(server.url)
        journal, queue = ValkeyJournal(client), ValkeyEnvelopeQueue(client)
        seen, taken, acknowledged = [], [], []

        async def follow():
            async for fact in journal.follow(START):
                seen.append(fact.id)  # noqa: PERF401 - it never ends

        async def take():
            token = await queue.claim(NODE, "test")
            async for delivery in queue.take(token):
                taken.append(delivery.envelope)
                await queue.ack(token, [delivery.position])
                acknowledged.append(delivery.envelope)

        tasks = [asyncio.create_task(follow()), asyncio.create_task(take())]
        first, second = make_fact("task.accepted", "task-1"), make_fact("task.started", "task-1")
        header = EnvelopeHeader(
            id="one", source=PrincipalId("agent/ada"), destination=NODE, lane=Lane.command,
            sequence=1, codec="msgpack",
        )  # fmt: skip
        envelopes = [
            RoutedEnvelope(header, b"1"),
            RoutedEnvelope(msgspec.structs.replace(header, id="two"), b"2"),
        ]
        await journal.append([first])
        await queue.put(envelopes[0])
        await eventually(lambda: seen and acknowledged, "the first of each")
        await killed(server)
        with pytest.raises(Unavailable):
            await journal.append([second])
        with pytest.raises(Unavailable):
            await queue.put(envelopes[1])
        again = EmbeddedValkey(server.data_dir, server.runtime_dir)
        async with again:
            await journal.append([first, second])  # the first is known there
            await queue.put(envelopes[1])
            await eventually(lambda: len(seen) == 2 and len(taken) == 2, "the second of each")
            assert seen == [first.id, second.id]
            assert taken == envelopes
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.aclose()


async def test_valkey_of_a_newer_version_is_refused(embedded_valkey):
    async with embedded_valkey as server:
        version = server.data_dir / "VERSION"
    version.write_text("99.0.0\n")
    with pytest.raises(Conflict, match=r"written by Valkey 99.0.0"):
        await embedded_valkey.start()


async def test_a_start_that_fails_says_why(embedded_valkey):
    async with embedded_valkey as server:
        aof = server.data_dir / "appendonlydir"
    next(aof.glob("*.manifest")).write_text("nonsense\n")
    with pytest.raises(Unavailable, match=r"did not start: .*anifest"):
        async with embedded_valkey:
            pass


OWNER = """
    import asyncio, sys
    from pathlib import Path
    from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey

    async def main():
        data, run = Path(sys.argv[1]) / "data", Path(sys.argv[1]) / "run"
        async with EmbeddedPostgres(data / "postgres", run, fsync=False) as a, EmbeddedValkey(
            data / "valkey", run
        ) as b:
            print(a.pid, a.start_ticks, b.pid, b.start_ticks, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@contextlib.contextmanager
def owner_of(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(folder)], stdout=subprocess.PIPE
    )
    try:
        yield process, [int(word) for word in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_the_servers_end_when_their_owner_is_killed(folder, postgres):
    with owner_of(folder) as (process, (pg, pg_ticks, vk, vk_ticks)):
        process.kill()
        await eventually(lambda: start_ticks(pg) != pg_ticks, "the end of Postgres")
        await eventually(lambda: start_ticks(vk) != vk_ticks, "the end of Valkey")
    async with postgres:  # its record names a process that is gone
        await insert(postgres.url, 1)


async def test_an_orphan_is_ended_by_its_record_before_a_start(embedded_valkey, folder):
    async with embedded_valkey as server:
        pid, ticks = server.pid, server.start_ticks
        record = msgspec.json.decode((server.data_dir / "process.json").read_bytes(), type=Recorded)
        assert record == Recorded(pid, ticks)
        again = EmbeddedValkey(server.data_dir, server.runtime_dir)
        async with again:
            assert start_ticks(pid) != ticks
            assert again.pid != pid


def child_of(script):
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)


async def test_end_recorded_ends_that_process_and_no_other():
    with child_of("exec sleep 600") as child:
        ticks = start_ticks(child.pid)
        assert not await end_recorded(child.pid, ticks + 1)
        assert start_ticks(child.pid) == ticks
        assert await end_recorded(child.pid, ticks)
        child.wait()
        assert not await end_recorded(child.pid, ticks)


async def test_end_recorded_says_so_when_it_cannot_end_a_process(monkeypatch):
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)  # as one that hangs on a disk
    with child_of("exec sleep 600") as child:
        with pytest.raises(Unavailable, match="does not end"):
            await end_recorded(child.pid, start_ticks(child.pid), timeout_s=0.1)
        child.kill()


async def test_a_start_that_is_cancelled_leaves_nobody_at_work(postgres, monkeypatch):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def prepare(log):
        begun.set()
        go_on.wait(20)
        done.set()

    monkeypatch.setattr(postgres._cluster, "prepare", prepare)
    starting = asyncio.create_task(postgres.start())
    await asyncio.to_thread(begun.wait, 20)
    starting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert done.is_set()


async def test_end_recorded_kills_what_does_not_listen():
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    with child_of(script) as child:
        assert child.stdout.readline() == b"ready\n"
        assert await end_recorded(child.pid, start_ticks(child.pid), timeout_s=0.2)
        assert child.wait() == -signal.SIGKILL
