"""Boxes beside what people run without one, interleaved in one run; median, p99, ratio and bound.

    python benchmarks/sandbox.py [--quick] [--json] [--rounds N]

Times are from the request at the sandbox to the first byte of output (`first`), or to the end. A
peer that is not installed is named as such. What has no row here is not built: pools of other
languages, and forks of a session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from angelos.core.ids import TaskId
from angelos.core.messages import Language, Limits, RunTask, limits_for
from angelos.core.runs import RunSpec
from angelos.core.sessions import SessionSpec
from angelos.demo.world import World, start_up
from angelos.node.config import SandboxConfig
from angelos.node.runtimes.builder import Builder, BuildFailure
from angelos.node.runtimes.definitions import definitions
from angelos.node.runtimes.finder import Missing, find
from angelos.node.runtimes.install import HELLO
from angelos.node.runtimes.program import Programs, main_file
from angelos.node.sandbox.sandbox import BubblewrapSandbox

CODE, JAVASCRIPT = "print(6 * 7)", "console.log(42)"
RUNTIMES = Path(os.environ.get("ANGELOS_RUNTIMES", "/usr/local/share/angelos/runtimes"))
Timed = Callable[[], Awaitable[float]]


async def interleaved(rounds: int, *works: Timed) -> list[list[float]]:
    """Run each `rounds` times, turn about, after one warm-up; return the seconds of each."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(-1, rounds):
        order = list(zip(works, times, strict=True))
        for work, into in order if number % 2 else reversed(order):
            seconds = await work()
            if number >= 0:
                into.append(seconds)
    return times


def row(
    work: str, peer: str, ours: list[float], theirs: list[float], at_least: float | None
) -> dict[str, Any]:
    """Return a row of times; a ratio above 1 means that we are quicker."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "ms", "ours": round(a * 1e3, 2), "peer": peer,
        "theirs": round(b * 1e3, 2), "ratio": round(b / a, 2), "at_least": at_least,
        "ours_p99": round(_p99(ours) * 1e3, 2), "theirs_p99": round(_p99(theirs) * 1e3, 2),
    }  # fmt: skip


def absent(work: str, peer: str, at_least: float, why: str = "not installed") -> dict[str, Any]:
    """Return the row of a peer that cannot be run here."""
    return {"work": work, "unit": "ms", "peer": f"{peer}: {why}", "at_least": round(at_least, 2)}


def _p99(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def plain(*argv: str) -> Timed:
    """Return a program that runs without a box, timed to its first byte."""

    async def work() -> float:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        if not await process.stdout.read(1):
            sys.exit(f"{argv[0]} printed nothing")
        seconds = time.perf_counter() - began
        await process.communicate()
        return seconds

    return work


def boxed(sandbox: BubblewrapSandbox, run: RunSpec, ready: int) -> Timed:
    """Return a run in a box, timed to its first byte; before it, `ready` boxes wait."""

    async def work() -> float:
        async with asyncio.timeout(60):
            while sandbox.boxes_ready < ready:  # noqa: ASYNC110 - a benchmark waits for it
                await asyncio.sleep(0.005)
        began = time.perf_counter()
        async with await sandbox.start(SessionSpec(run=run)) as session:
            seconds = 0.0
            async for _ in session.output():
                seconds = seconds or time.perf_counter() - began
            end = await session.wait()
        if not seconds:
            sys.exit(f"a box printed nothing: {end}")
        return seconds

    return work


def crun_bundle(folder: Path) -> list[str]:
    """Return the command of a container with the same namespaces and mounts, without a cgroup."""
    binds = [name for name in ("/usr", sys.prefix, sys.base_prefix) if Path(name).is_dir()]
    mounts = [
        {"destination": place, "type": "bind", "source": place, "options": ["rbind", "ro"]}
        for place in dict.fromkeys(binds)
    ]
    mounts += [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [{"destination": p, "type": "tmpfs", "source": "tmpfs"} for p in ("/dev", "/tmp")]
    kinds = ("pid", "network", "ipc", "uts", "mount")
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 65534, "gid": 65534},
            "args": [sys.executable, "-I", "-c", CODE],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": "root", "readonly": True},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["ptrace", "keyctl", "bpf"], "action": "SCMP_ACT_ERRNO"}],
            },
        },
    }
    root = folder / "root"
    for place in ("proc", "dev", "tmp", *(p.strip("/") for p in binds)):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    (folder / "config.json").write_text(json.dumps(config))
    return ["--cgroup-manager=disabled", "run", "--bundle", str(folder)]


def refusal(words: list[str]) -> str:
    """Return why a container does not run here, empty if it does."""
    done = subprocess.run([*words, "bench-probe"], capture_output=True, text=True, check=False)
    return "" if done.stdout else done.stderr.strip() or f"exit code {done.returncode}"


def container(words: list[str]) -> Timed:
    """Return a container, timed to its first byte."""
    numbers = iter(range(1_000_000))

    async def work() -> float:
        return await plain(*words, f"bench-{os.getpid()}-{next(numbers)}")()

    return work


async def starts(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Time warm and cold starts of Python and Node."""
    python = RunSpec(argv=(), code=CODE, limits=Limits())
    bare = plain(sys.executable, "-c", CODE)
    rows = []
    async with BubblewrapSandbox(SandboxConfig()) as warm:
        ready = SandboxConfig().ready_boxes
        times = await interleaved(rounds, boxed(warm, python, ready), bare)
        rows.append(row("warm Python, to first output", "bare python -c", times[0], times[1], 20))
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as cold:
        for name, at_least in (("crun", 1 / 1.5), ("runsc", 4)):
            work, program = "cold Python, all layers, to first output", shutil.which(name)
            if program is None:
                rows.append(absent(work, name, at_least))
                continue
            bundle = folder / name
            bundle.mkdir()
            words = [program, *await asyncio.to_thread(crun_bundle, bundle)]
            if why := await asyncio.to_thread(refusal, words):
                rows.append(absent(work, name, at_least, why))
                continue
            peer = container(words)
            times = await interleaved(rounds, boxed(cold, python, 0), peer)
            rows.append(
                row(work, f"{name} with such a bundle", times[0], times[1], round(at_least, 2))
            )
        node = shutil.which("node")
        if node is None:
            rows.append(absent("Node in a cold box (no pool of it is built)", "bare node -e", 5))
        else:
            script = RunSpec(argv=("node", "-e", JAVASCRIPT), limits=limits_for("javascript"))
            times = await interleaved(
                max(5, rounds // 2), boxed(cold, script, 0), plain(node, "-e", JAVASCRIPT)
            )
            work = "Node in a cold box (no pool of it is built)"
            rows.append(row(work, "bare node -e", times[0], times[1], 5))
        rows += await builds(cold, 3, folder)
    return rows


async def builds(sandbox: BubblewrapSandbox, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Time the first and the second run of the same source, where it is compiled."""
    rows = []
    compiled: tuple[Language, ...] = ("csharp", "go", "rust", "swift")
    for language in compiled:
        definition = definitions()[language]
        work = f"second run of the same {language} source"
        found = await asyncio.to_thread(find, definition, RUNTIMES)
        if isinstance(found, Missing):
            rows.append(absent(work, language, 5))
            continue
        first, second = [], []
        for number in range(rounds):
            place = folder / f"{language}{number}"
            (place / "in").mkdir(parents=True, mode=0o755)
            programs = Programs(Builder(place), RUNTIMES)
            for times in (first, second):
                times.append(await built(programs, sandbox, language, place / "in"))
        rows.append(row(work, "its first run", second, first, 5))
    return rows


async def built(
    programs: Programs, sandbox: BubblewrapSandbox, language: Language, source: Path
) -> float:
    """Return the seconds from a source to the end of its run."""
    limits = limits_for(language)
    task = RunTask(task=TaskId("task-1"), language=language, code=HELLO[language], limits=limits)
    for name, content in main_file(definitions()[language], task).items():
        await asyncio.to_thread((source / name).write_bytes, content)
    began = time.perf_counter()
    program = await asyncio.to_thread(programs.locate, task, source, None)
    run = await programs.spec(program, task, sandbox)
    if isinstance(run, BuildFailure):
        sys.exit(f"{language} does not build: {run.output!r}")
    async with await sandbox.start(SessionSpec(run=run)) as session:
        await session.wait()
    return time.perf_counter() - began


async def throughput(count: int, world: World) -> list[dict[str, Any]]:
    """Compare many short tasks, 8 at once, with a plain loop of processes."""
    run = RunSpec(argv=(), code=CODE, limits=Limits())

    async def many(one: Callable[[], Awaitable[object]]) -> float:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await one()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(worker())
        return time.perf_counter() - began

    async def process() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CODE, stdout=asyncio.subprocess.PIPE
        )
        await child.communicate()

    async with BubblewrapSandbox(SandboxConfig()) as sandbox:

        async def box() -> None:
            async with await sandbox.start(SessionSpec(run=run)) as session:
                await session.wait()

        async def task() -> None:
            await world.angelos.tasks.run(CODE)

        times = await interleaved(3, lambda: many(box), lambda: many(task), lambda: many(process))
    rows = []
    for work, ours, at_least in (("the sandbox", times[0], 0.5), ("the client", times[1], 0.35)):
        a, b = count / statistics.median(ours), count / statistics.median(times[2])
        rows.append({
            "work": f"{count} short tasks, 8 at once, at {work}", "unit": "tasks/s",
            "ours": round(a, 1), "peer": "a loop of plain processes", "theirs": round(b, 1),
            "ratio": round(a / b, 2), "at_least": at_least,
        })  # fmt: skip
    return rows


async def main() -> None:
    """Run all and print them, last as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 60 s; a smoke test")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    rounds = options.rounds or (10 if options.quick else 60)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="angelos-bench-")))
        await asyncio.to_thread(folder.chmod, 0o755)
        rows = await starts(rounds, folder)
        world = await start_up(folder / "data", stack)
        rows += await throughput(40 if options.quick else 1000, world)
    if not options.json:
        for r in rows:
            figures = f"{r['ours']} against {r['theirs']} {r['unit']}, " if "ours" in r else ""
            tail = f"p99 {r['ours_p99']} and {r['theirs_p99']}, " if "ours_p99" in r else ""
            print(f"{r['work']}; {r['peer']}: {figures}{tail}"
                  f"ratio {r.get('ratio', '-')}, at least {r['at_least']}")  # fmt: skip
    machine = {
        "cpus": os.cpu_count(), "load": os.getloadavg()[0], "system": platform.platform(),
        "python": platform.python_version(),
    }  # fmt: skip
    print(json.dumps({"benchmark": "sandbox", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    asyncio.run(main())
