"""Witnesses over HTTP: they cosign what grows, and a log with two pasts is left alone."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from angelos.core.facts import Kind
from angelos.governance.log.checkpoint import LogKeys, cosigners
from angelos.governance.log.service import LogHooks, LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.log.verify import Trust, verify
from angelos.governance.signer.client import LocalSigner
from angelos.governance.witness.client import WitnessAddress, WitnessClient
from angelos.governance.witness.folder import WitnessFolder
from angelos.governance.witness.server import WitnessServer
from angelos.testing import eventually, make_fact


def some(count):
    return [make_fact(Kind.task_finished, f"task-{i}", outcome="ok") for i in range(count)]


@pytest.fixture
async def witnesses(tmp_path, keys, clock):
    async with AsyncExitStack() as stack:
        servers = []
        for number in range(2):
            folder = WitnessFolder(tmp_path / f"w{number}")
            folder.create(f"w{number}.example")
            folder.trust([keys.epoch])
            server = WitnessServer(folder, "127.0.0.1", 0, clock)
            servers.append(await stack.enter_async_context(server))
        yield servers


def addresses(servers):
    return [WitnessAddress(server.url, server.key.public) for server in servers]


async def test_every_checkpoint_is_cosigned_and_an_export_says_so(
    start, journal, database, keys, witnesses
):
    public = [server.key.public for server in witnesses]
    store = AuditStore(database)

    async def cosigned():
        last = await store.last()
        return last and last.checkpoint.size == size and len(cosigners(last.note, public)) == 2

    hooks = LogHooks(witnesses=WitnessClient(addresses(witnesses)))
    async with start(hooks=hooks, checkpoint_every_s=0.01) as log:
        for size in (5, 12, 30):
            await journal.append(some(size - (await store.head()).tree.size))
            await log.settled(await journal.last())
            await eventually(cosigned, "two cosignatures")
        lines = b"".join([p async for p in log.export()]).splitlines(keepends=True)
    trust = Trust(epochs=[keys.epoch], witnesses=public, quorum=2)
    report = verify(lines, trust)
    assert report.ok, report.problems
    assert report.cosigners == ("w0.example", "w1.example")


async def test_a_witness_that_is_away_holds_nothing_up_and_is_asked_again(
    start, journal, database, witnesses, caplog
):
    away, there = witnesses
    store = AuditStore(database)
    await away.__aexit__()
    hooks = LogHooks(witnesses=WitnessClient(addresses(witnesses)))
    async with start(hooks=hooks, checkpoint_every_s=0.01):
        await journal.append(some(3))

        async def one():
            last = await store.last()
            return last and cosigners(last.note, [there.key.public]) != []

        await eventually(one, "the other's cosignature")
    assert "has not cosigned" in caplog.text


async def test_a_log_with_two_pasts_gets_no_second_cosignature(
    journal, database, clock, keys, origin, witnesses, caplog
):
    """Somebody who has the log's keys shows the witness another log of the same name."""
    forged = LogKeys(origin, bytes(range(32)), bytes(range(1, 33)))
    assert forged.epoch == keys.epoch
    store = AuditStore(database)
    client = WitnessClient(addresses(witnesses))
    async with LogService(journal, database, LocalSigner(keys, origin), clock) as log:
        await journal.append(some(4))
        honest = await log.checkpoint()
        assert len(cosigners(await client.cosign(honest, store), _keys(witnesses))) == 2
        other = LogKeys(origin, bytes(range(32)), bytes(range(1, 33)))
        tree = honest.checkpoint._replace(root=bytes(32))
        fork = type(honest)(tree, other.sign(tree, 1), honest.tree)
        assert await client.cosign(fork, store) == ""
        fresh = WitnessClient(addresses(witnesses))  # which remembers nothing
        assert await fresh.cosign(fork, store) == ""
        assert len(cosigners(await fresh.cosign(honest, store), _keys(witnesses))) == 2
    assert "another tree" in caplog.text


def _keys(servers):
    return [server.key.public for server in servers]
