"""Connections that are slow, cut, garbled, silent, and hubs that sleep: every message counts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import textwrap
from contextlib import AsyncExitStack, aclosing

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.embedded import EmbeddedValkey
from angelos.adapters.net.websocket import connect_channel
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.channel import Config
from angelos.core.envelopes import DeadReason, EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Kind
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.ids import START, PrincipalId
from angelos.core.messages import encode
from angelos.hub.config import HubConfig
from angelos.testing import eventually, make_fact, next_fact
from angelos.testing.hub import OPERATOR, join, running_hub

NODE = PrincipalId("node/exec1")
OUTPUT = {"stream": "stdout", "text": "x"}
SOON = Config(idle_s=0.2, dead_s=1.0)
"""Signs of life 25 and 15 times as often as by default."""


class Network:
    """A TCP proxy in front of one port that does what networks do.

    `fault` is "" (forward), "delay" (each piece by up to 20 ms), "garble" (pieces change places),
    "blackhole" (nothing passes, nothing is closed).
    """

    def __init__(self) -> None:
        self.port, self.fault = 0, ""
        self._random = random.Random(11)
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.drop()

    def set(self, fault: str) -> None:
        """Behave so from now on; connections that went into a blackhole are cut."""
        if self.fault == "blackhole":
            self.drop()
        self.fault = fault

    def drop(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            self._writers |= {writer, back}
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                await self._pass(data, writer)
        if self.fault != "blackhole":  # which swallows an end, too
            writer.transport.abort()

    async def _pass(self, data, writer):
        match self.fault:
            case "blackhole":
                return
            case "delay":
                await asyncio.sleep(self._random.uniform(0, 0.02))
            case "garble":
                half = len(data) // 2
                data = data[half:] + data[:half]
        writer.write(data)


def command(number: int) -> RoutedEnvelope:
    header = EnvelopeHeader(
        id=f"c{number}", source=OPERATOR, destination=NODE, lane=Lane.command, sequence=number,
        codec="raw",
    )  # fmt: skip
    return RoutedEnvelope(header, b"%d" % number)


async def work(channel, done: list[str]) -> None:
    """Be a node: answer every command with a fact, settle it."""
    while True:
        for item in await channel.recv():
            if isinstance(item, Dispatch):
                fact = make_fact(Kind.task_started, f"task-{item.header.id}", actor=NODE)
                await channel.send([FactReport(fact.id, encode(fact)), Settle((item.position,))])
                done.append(item.header.id)


async def test_no_fault_of_the_network_loses_doubles_or_reorders_anything(
    database, journal, queue, tmp_path
):
    config, done = HubConfig(channel=SOON, tick_s=0.05), []
    async with (
        running_hub(database, journal, queue, tmp_path, config=config) as hub,
        Network() as net,
    ):
        net.port = int(hub.url.rpartition(":")[2])
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        channel = connect_channel(net.url, identity.client_context(), SystemClock(), config=SOON)
        async with channel, AsyncExitStack() as stack:
            working = asyncio.create_task(work(channel, done))
            stack.callback(working.cancel)
            number = 0
            for fault in ("delay", "garble", "", "blackhole", "", "delay", "garble", ""):
                if fault in {"garble", "blackhole"}:
                    await eventually(lambda: hub.sessions.local() and not channel.down.is_set())
                net.set(fault)
                if not fault:
                    net.drop()
                for _ in range(25):
                    number += 1
                    await queue.put(command(number))
                    fact = make_fact(Kind.task_output, f"out-{number}", actor=NODE, data=OUTPUT)
                    await channel.send([FactReport(fact.id, encode(fact))])
                if fault in {"garble", "blackhole"}:  # both ends notice
                    before = hub.sessions._sessions[NODE].link
                    await eventually(lambda before=before: before.wire is None)
                    await eventually(channel.down.is_set)
            await next_fact(journal, kind=Kind.task_output, subject=f"out-{number}")
            await next_fact(journal, kind=Kind.task_started, subject=f"task-c{number}")

            async def settled() -> bool:
                return not (await queue.depth(NODE)).waiting

            await eventually(settled)
            assert channel.ended is None
    facts = await journal.read(START)
    numbers = range(1, number + 1)
    assert [f.subject for f in facts if f.kind == Kind.task_output] == [f"out-{n}" for n in numbers]
    started = [f.subject for f in facts if f.kind == Kind.task_started]
    assert [*dict.fromkeys(started)] == [f"task-c{n}" for n in numbers]
    codes = {f.plain()["code"] for f in facts if f.kind == Kind.node_disconnected}
    assert "timeout" in codes, "the hub noticed the blackhole by itself"


def test_a_half_open_connection_is_noticed_within_20_seconds_by_both_ends():
    """By default; the test above sees it happen with the same code, 15 times as fast."""
    config = HubConfig()
    assert config.channel.dead_s + config.tick_s + 1 <= 20  # the peer looks each second
    assert 2 * config.channel.idle_s < config.channel.dead_s, "one lost ping ends nothing"


SLEEPER = """
import asyncio, sys
from contextlib import aclosing
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.valkey import connect
from angelos.core.errors import Fenced
from angelos.core.ids import PrincipalId

async def main():
    queue = ValkeyEnvelopeQueue(connect(sys.argv[1]))
    token = await queue.claim(PrincipalId("node/exec1"), "sleeper")
    try:
        async with aclosing(queue.take(token)) as deliveries:
            async for delivery in deliveries:
                await queue.ack(token, [delivery.position])
                print(delivery.envelope.header.id, flush=True)
    except Fenced:
        print("fenced", flush=True)

asyncio.run(main())
"""


async def test_a_hub_that_was_paused_delivers_nothing_once_another_has_its_peer(valkey, stores):
    queue = ValkeyEnvelopeQueue(valkey)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(SLEEPER), stores.valkey_url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await queue.put(command(1))
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"c1\n"

        async def acknowledged() -> bool:
            return not (await queue.depth(NODE)).waiting

        await eventually(acknowledged)
        process.send_signal(signal.SIGSTOP)
        token = await queue.claim(NODE, "awake")
        for number in range(2, 12):
            await queue.put(command(number))
        got = []
        async with aclosing(queue.take(token)) as deliveries:
            async for delivery in deliveries:
                got.append(delivery.envelope.header.id)
                await queue.ack(token, [delivery.position])
                if len(got) == 5:
                    process.send_signal(signal.SIGCONT)
                if len(got) == 10:
                    break
        async with asyncio.timeout(60):
            assert await process.stdout.read() == b"fenced\n", "and no delivery before it"
        assert got == [f"c{number}" for number in range(2, 12)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_damage_on_disk_is_told_and_everything_else_is_there(tmp_path):
    (tmp_path / "run").mkdir()
    valkey = EmbeddedValkey(tmp_path / "valkey", tmp_path / "run")
    async with valkey:
        client = connect(valkey.url)
        queue, journal = ValkeyEnvelopeQueue(client), ValkeyJournal(client)
        for number in range(1, 11):
            header = command(number).header
            await queue.put(RoutedEnvelope(header, b"body of %04d" % number))
            await journal.append([make_fact(Kind.task_started, f"subject-{number:04}", actor=NODE)])
        await client.aclose()
    spoilt = 0
    for path in (tmp_path / "valkey").rglob("*.aof"):
        data = path.read_bytes()
        spoilt += data.count(b"body of 0005") + data.count(b"subject-0007")
        data = data.replace(b"body of 0005", b"bodX of 0005")
        path.write_bytes(data.replace(b"subject-0007", b"subjecX-0007"))
    assert spoilt >= 2
    async with valkey:
        client = connect(valkey.url)
        journal = ValkeyJournal(client)
        queue = ValkeyEnvelopeQueue(client, journal=journal)
        token, got = await queue.claim(NODE, "me"), []
        async with aclosing(queue.take(token)) as deliveries:
            async for delivery in deliveries:
                got.append(delivery.envelope.header.id)
                if len(got) == 9:
                    break
        assert got == [f"c{number}" for number in range(1, 11) if number != 5]
        (letter,) = await queue.dead_letters(NODE)
        assert letter.reason is DeadReason.unreadable
        subjects = [f.subject for f in await journal.read(START) if f.kind == Kind.task_started]
        assert subjects == [f"subject-{number:04}" for number in range(1, 11) if number != 7]
        assert len(await journal.dead_letters()) == 1
        told = [f for f in await journal.read(START) if f.kind == Kind.letter_dead]
        assert {fact.subject for fact in told} == {NODE, "system/journal"}
        await client.aclose()
