"""Both stores are killed while facts come in; the log keeps each one and verifies."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.errors import Unavailable
from angelos.core.facts import Fact, Kind
from angelos.core.messages import decode
from angelos.core.signing import SigningKey
from angelos.governance.config import GovernanceConfig
from angelos.governance.service import Governance
from angelos.governance.verify import verify
from angelos.testing import ManualClock, eventually, make_fact
from angelos.wiring.stores import PLANES

KEY = SigningKey(bytes(range(32)))


class NoSignals:
    async def quarantine(self, principal, reason):
        raise AssertionError(principal)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="angelos-") as name:
        yield Path(name)


async def restart(server):
    """Kill a server and start it again while its users go on."""
    os.kill(server.pid, signal.SIGKILL)
    await server.start()


async def test_a_log_through_kills_of_both_stores(folder):
    acknowledged = []

    async def write(journal, writer, stop):
        index = 0
        while not stop.is_set():
            fact = make_fact(Kind.task_finished, f"task-{writer}", data={"index": index})
            while fact.id not in acknowledged:
                try:
                    await journal.append([fact])
                    acknowledged.append(fact.id)
                except Unavailable:
                    await asyncio.sleep(0.01)
            index += 1
            await asyncio.sleep(0.002)

    async def more(count):
        wanted = len(acknowledged) + count
        await eventually(lambda: len(acknowledged) >= wanted, f"{count} more facts", within_s=60)

    config = GovernanceConfig(checkpoint_every_s=0.05, batch=20)
    async with (
        EmbeddedPostgres(folder / "postgres", folder / "run", fsync=False) as postgres,
        EmbeddedValkey(folder / "valkey", folder / "run") as valkey,
        Database(postgres.url) as database,
    ):
        await database.migrate(PLANES)
        client = connect(valkey.url)
        journal = ValkeyJournal(client, database)
        stop = asyncio.Event()
        async with Governance(
            journal, database, KEY, ManualClock(), NoSignals(), config
        ) as governance:

            async def signed():
                try:
                    return await governance.checkpoint()
                except Unavailable:
                    return None

            writers = [asyncio.create_task(write(journal, n, stop)) for n in range(3)]
            await more(50)
            for server in (postgres, valkey, postgres):
                await eventually(signed, "a checkpoint", within_s=60)
                await restart(server)
                await more(50)
            stop.set()
            await asyncio.gather(*writers)
            async with asyncio.timeout(60):
                pieces = [piece async for piece in governance.export()]
                lines = b"".join(pieces).splitlines(keepends=True)
            rows = await governance.entries(-1, len(acknowledged) + 1)
        await client.aclose()
    kept = [decode(row.body, Fact).id for row in rows]
    assert sorted(kept) == sorted(acknowledged)  # each once
    report = verify(lines, key=KEY.public.raw)
    assert report.ok, report.problems
    assert report.checkpoints > 3  # one before each kill, and the export's
