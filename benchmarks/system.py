"""What a system costs: its start, its idle parts, its growth on disk, a run from the command line.

Each figure stands beside the bound that it has to keep; there is no peer. A real `angelos up` with
one node is measured from outside: seconds until `ready`, /proc of every process, the size of its
directory.

    python benchmarks/system.py [--quick] [--json] [--tasks N] [--facts N] [--connections N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import DataDir
from angelos.adapters.identity.enrolment import enrol
from angelos.adapters.net.websocket import connect_channel
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.client import Angelos
from angelos.core.facts import Fact, TaskRefused
from angelos.core.ids import PrincipalId
from angelos.core.repository import NewText
from angelos.wiring.settings import load
from angelos.wiring.stores import open_stores

AT_ONCE = 8
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = 4096
Row = dict[str, Any]


def row(work: str, unit: str, ours: float, bound: float | None = None) -> Row:
    """Return one row; a ratio above 1 means better than the bound."""
    return {
        "work": work, "unit": unit, "ours": round(ours, 3), "peer": "the bound", "theirs": bound,
        "ratio": round(bound / ours, 3) if bound and ours else None,
        "at_least": 1.0 if bound else None,
    }  # fmt: skip


class Up:
    """One run of `angelos up`."""

    def __init__(self, data: Path, *options: str) -> None:
        began = time.perf_counter()
        argv = [sys.executable, "-m", "angelos", "up", "--json", "--data-dir", str(data), *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if json.loads(line).get("event") == "ready":
                break
        else:
            sys.exit("angelos up ended before it was ready")
        self.seconds = time.perf_counter() - began
        self.data = DataDir(data)

    def stop(self) -> None:
        """End it in good order."""
        self.process.terminate()
        self.process.communicate(timeout=120)

    def parts(self) -> dict[str, list[int]]:
        """Return the processes of each part: its own, then all below it."""
        parts = {p.name: tree(p.pid) for p in self.data.processes()}
        parts["up"] = [self.process.pid]
        return parts


@contextmanager
def running(data: Path, *options: str) -> Iterator[Up]:
    """Yield a system that is ready."""
    up = Up(data, *options)
    try:
        yield up
    finally:
        up.stop()


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    return 0.0


def proportional(pids: list[int]) -> float:
    """Return the memory of processes in MB, each shared page counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1e3


def cpu_s(pids: list[int]) -> float:
    """Return the processor time of processes so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICK


def disk(folder: Path) -> float:
    """Return the size of a directory on the disk in MB."""
    blocks = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            blocks += path.lstat().st_blocks
    return blocks * 512 / 1e6


def idle(up: Up, seconds: float) -> list[Row]:
    """Measure every part of a system that has nothing to do."""
    time.sleep(seconds / 2)  # let the start settle
    parts = up.parts()
    before = {name: cpu_s(pids) for name, pids in parts.items()}
    time.sleep(seconds)
    rows = []
    for name, pids in parts.items():
        bound = 40.0 if name.startswith(("exec", "labs")) else None
        rows.append(row(f"idle {name}, its own process", "MB resident", resident(pids[0]), bound))
        if len(pids) > 1:
            rows.append(row(f"idle {name}, with all below it", "MB", proportional(pids)))
        used = 100 * (cpu_s(pids) - before[name]) / seconds
        rows.append(row(f"idle {name}", "% of a core", used))
    return rows


async def run_tasks(data: Path, count: int) -> None:
    """Run so many tasks, some at once."""
    async with Angelos.connect(data) as angelos:
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                result = await angelos.tasks.run(f"print({number})")
                if result.stdout != f"{number}\n":
                    sys.exit(f"task {number} did not print its number: {result}")

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def propose(data: Path, count: int) -> None:
    """Make a repository and propose so many changes to it; none has a test."""
    async with Angelos.connect(data) as angelos:
        files = {f"src/part{n}.py": f"value = {n}\n" * 50 for n in range(20)}
        await angelos.repos.create("growth", files, "import")
        for number in range(count):
            edit = NewText(path=f"src/part{number % 20}.py", text=f"value = -{number + 1}\n" * 50)
            made = await angelos.proposals.create(
                "growth", [edit], base="main", message=f"change {number}"
            )
            view = await made.view(wait=30)
            await made.reject(view.digest)  # one person may have 50 open ones


async def append_facts(data: Path, count: int) -> None:
    """Append so many lasting facts to the journal of a system that is down."""
    async with open_stores(load(data_dir=data)) as stores:
        if stores is None:
            sys.exit("the system still runs")
        client = connect(stores.valkey)
        journal = ValkeyJournal(client)
        for begin in range(0, count, 500):
            facts = [
                Fact.of(TaskRefused(reason=f"number {n}"), at=time.time(),
                        actor=PrincipalId("system/supervisor"), subject=f"task-{n:032x}")
                for n in range(begin, min(count, begin + 500))
            ]  # fmt: skip
            await journal.append(facts)
        await client.aclose()


def from_cli(data: Path, at_once: int, rounds: int) -> float:
    """Return the median seconds of `angelos run`, with so many at once."""
    argv = [sys.executable, "-m", "angelos", "run", "--data-dir", str(data), "-c", "print(42)"]
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        runs = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(at_once)]
        for one in runs:
            if one.communicate()[0] != b"42\n":
                sys.exit("a run from the command line failed")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def start_gateway(data: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a hub alone on the stores of a running system."""
    system = DataDir(data).system()
    key = subprocess.run(
        [sys.executable, "-m", "angelos", "hub", "key", "--data-dir", str(data)],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    (folder / "gateway.key").write_bytes(key)
    env = {
        **os.environ, "ANGELOS_POSTGRES_DSN": system.postgres, "ANGELOS_VALKEY_URL": system.valkey,
    }  # fmt: skip
    argv = [sys.executable, "-m", "angelos", "hub", "run", "--json"]
    argv += ["--key", str(folder / "gateway.key"), "--data-dir", str(folder / "gateway")]
    return subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


async def gateway(
    hub: subprocess.Popen[str], data: Path, folder: Path, connections: int
) -> list[Row]:
    """Return the memory of a hub alone, with this many nodes connected."""
    assert hub.stdout is not None
    try:
        ready = json.loads(hub.stdout.readline())
        alone = resident(hub.pid)
        async with contextlib.AsyncExitStack() as stack:
            angelos = await stack.enter_async_context(Angelos.connect(data))
            clock = SystemClock()
            for number in range(connections):
                token = (await angelos.nodes.add(f"bench{number}", "execution", 600)).token
                place = folder / f"bench{number}"
                urls = {"enrol_url": ready["enrol_url"], "hub_url": ready["hub_url"]}
                identity = await enrol(token, place, **urls)
                channel = connect_channel(identity.hub_url, identity.client_context(), clock,
                                          info={"tier": "full"}, patience_s=60)  # fmt: skip
                await stack.enter_async_context(channel)
            await asyncio.sleep(2)
            full = resident(hub.pid)
    finally:
        hub.terminate()
        hub.communicate(timeout=60)
    bound = 180.0 if connections == 1000 else None
    return [
        row("hub alone, no connection", "MB resident", alone),
        row(f"hub alone, {connections} connections", "MB resident", full, bound),
    ]


def grown(up: Up, tasks: int) -> list[Row]:
    """Run tasks and proposals; return what that costs on disk and in memory."""
    data = up.data.root
    asyncio.run(run_tasks(data, min(200, tasks)))  # what is allocated once
    parts = ("server", "exec1")
    memory = {name: resident(up.parts()[name][0]) for name in parts}
    size, began = disk(data), time.perf_counter()
    asyncio.run(run_tasks(data, tasks))
    seconds = time.perf_counter() - began
    rows = [
        row(f"{tasks} tasks, {AT_ONCE} at once", "tasks/s", tasks / seconds),
        row("growth on disk per 1,000 tasks", "MB", (disk(data) - size) * 1000 / tasks),
    ]
    for name in parts:
        more = resident(up.parts()[name][0]) - memory[name]
        rows.append(row(f"growth of {name} over {tasks} tasks", "MB resident", more))
    size = disk(data)
    asyncio.run(propose(data, 100))
    rows.append(row("growth on disk per 100 proposals", "MB", disk(data) - size))
    return rows


def measure(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Yield all rows, each as soon as it is measured."""
    data = folder / "data"
    with running(data) as up:
        yield row("start, fresh", "s", up.seconds, 10.0)
        yield from idle(up, 5 if options.quick else 20)
        for at_once in (1, 8):
            median = from_cli(data, at_once, 3 if options.quick else 9)
            yield row(f"run from the command line, {at_once} at once", "s", median)
        yield from grown(up, options.tasks)
        hub = start_gateway(data, folder)
        yield from asyncio.run(gateway(hub, data, folder, options.connections))
    with running(data) as up:
        yield row(f"start after {options.tasks} tasks", "s", up.seconds, 10.0)
    asyncio.run(append_facts(data, options.facts))
    with running(data) as up:
        yield row(f"start after {options.facts} facts", "s", up.seconds, 10.0)
    with running(data) as up:
        yield row(f"the next start after {options.facts} facts", "s", up.seconds, 10.0)


def main() -> None:
    """Measure, print, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 60 s; a smoke test")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--facts", type=int, default=0)
    parser.add_argument("--connections", type=int, default=0)
    options = parser.parse_args()
    options.tasks = options.tasks or (100 if options.quick else 10_000)
    options.facts = options.facts or (10_000 if options.quick else 1_000_000)
    options.connections = options.connections or (20 if options.quick else 1_000)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="angelos-bench-") as folder:
        for r in measure(Path(folder), options):
            rows.append(r)
            if not options.json:
                bound = f" (at most {r['theirs']})" if r["theirs"] else ""
                print(f"{r['work']}: {r['ours']} {r['unit']}{bound}", flush=True)
    machine = {
        "cpus": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }  # fmt: skip
    print(json.dumps({"benchmark": "system", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
