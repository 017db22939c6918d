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
from angelos.core.audit import read_leaf
from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.governance.config import GovernanceConfig
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.log.verify import Trust, verify
from angelos.governance.signer.client import SignerProcess
from angelos.testing import ManualClock, eventually, make_fact
from angelos.wiring.stores import PLANES


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
        origin = await AuditStore(database).origin()
        async with (
            SignerProcess(origin, folder / "signer") as signer,
            LogService(journal, database, signer, ManualClock(), config) as log,
        ):

            async def signed():
                try:
                    return await log.checkpoint()
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
                pieces = [piece async for piece in log.export()]
                lines = b"".join(pieces).splitlines(keepends=True)
            rows = await log.entries(-1, len(acknowledged) + 10)
        await client.aclose()
    kept = [read_leaf(row.body) for row in rows]
    lasting = [leaf.id for leaf in kept if leaf.kind != Kind.audit_key]
    assert sorted(lasting) == sorted(acknowledged)  # each once
    report = verify(lines, Trust(epochs=[signer.epoch]))
    assert report.ok, report.problems
    assert report.checkpoints > 3  # one before each kill, and the export's
