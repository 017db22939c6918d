"""The two roads, timed from the caller's side and interleaved with their peers.

1. A trivial Python task from `client` to its result, against the same cell on a plain local
   Jupyter kernel (warm, unsandboxed, no policy, no journal).
2. A one-line proposal to `main`, against `git` with the same checks run plainly on the host
   (unsandboxed, one after the other, no review, no signature).

    python benchmarks/road.py [--quick] [--json] [--rounds N]
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
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_async_kernel

from angelos.core.repository import NewText
from angelos.demo import study
from angelos.demo.world import World, start_up

CODE = "print(6 * 7)"
Timed = Callable[[int], Awaitable[None]]


async def measure(rounds: int, ours: Timed, theirs: Timed) -> tuple[list[float], list[float]]:
    """Run both `rounds` times, turn about, after one warm-up each; return seconds of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, rounds):
        pair = [(ours, times[0]), (theirs, times[1])]
        for work, into in pair if number % 2 else reversed(pair):
            began = time.perf_counter()
            await work(number)
            if number >= 0:
                into.append(time.perf_counter() - began)
    return times


def row(work: str, peer: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return one row of the result; a ratio above 1 means that we are quicker."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "ms", "ours": round(a * 1e3, 2), "peer": peer,
        "theirs": round(b * 1e3, 2), "ratio": round(b / a, 3), "at_least": None,
        "ours_min_max": [round(min(ours) * 1e3, 2), round(max(ours) * 1e3, 2)],
        "theirs_min_max": [round(min(theirs) * 1e3, 2), round(max(theirs) * 1e3, 2)],
    }  # fmt: skip


async def tasks(world: World, rounds: int) -> dict[str, Any]:
    """Time the first road."""
    manager, client = await start_new_async_kernel()

    async def ours(_: int) -> None:
        result = await world.angelos.tasks.run(CODE)
        if result.stdout != "42\n":
            sys.exit(f"the task did not print 42: {result}")

    async def theirs(_: int) -> None:
        reply = await client.execute_interactive(CODE, timeout=30, output_hook=lambda _: None)
        if reply["content"]["status"] != "ok":
            sys.exit(f"the kernel did not run the cell: {reply}")

    try:
        pair = await measure(rounds, ours, theirs)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    return row("trivial Python task, client to result", "plain local Jupyter kernel", *pair)


def checks(folder: Path) -> None:
    """Run the study's checks plainly in `folder`."""
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    for argv in (
        ["-m", "study.check"],
        ["-c", "from nbclient.cli import main; main()", "analysis.ipynb"],
        ["-m", "ruff", "check", "--no-cache", "."],
        ["-m", "bandit", "-q", "-ll", "-r", "study"],
        ["-m", "study.health"],
    ):
        subprocess.run(
            [sys.executable, *argv], cwd=folder, env=env, check=True, capture_output=True
        )


async def proposals(world: World, rounds: int, scratch: Path) -> dict[str, Any]:
    """Time the second road."""
    await world.angelos.repos.create(study.REPO, world.files, "import")
    for path, text in world.files.items():
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).write_text(text)
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@invalid"]

    def in_git(*args: str) -> None:
        subprocess.run([*git, *args], cwd=scratch, check=True, capture_output=True)

    in_git("init", "-b", "main")
    in_git("add", ".")
    in_git("commit", "-m", "import")
    line = "# line {}\n".format

    async def ours(number: int) -> None:
        text = await world.text("study/__init__.py")
        edit = NewText(path="study/__init__.py", text=text + line(number))
        proposal = await world.repository.propose([edit], base="main", message=f"line {number}")
        view = await world.settled(proposal.id)
        if view.state != "promoted":
            sys.exit(f"the proposal was not promoted: {view.state}, {view.reason}")

    async def theirs(number: int) -> None:
        def work() -> None:
            in_git("checkout", "-b", f"p{number}")
            with (scratch / "study/__init__.py").open("a") as file:
                file.write(line(number))
            in_git("commit", "-am", f"line {number}")
            checks(scratch)
            in_git("checkout", "main")
            in_git("merge", "--no-ff", "-m", "merge", f"p{number}")

        await asyncio.to_thread(work)

    pair = await measure(rounds, ours, theirs)
    return row("one-line proposal to main, four checks", "git and the same checks, plain", *pair)


async def main() -> None:
    """Run both and print them, last as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 60 s; a smoke test")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    rounds = options.rounds or (10 if options.quick else 40)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="angelos-bench-"))
        world = await start_up(Path(folder) / "data", stack)
        rows = [await tasks(world, rounds)]
        rows.append(await proposals(world, 3 if options.quick else 7, Path(folder) / "git"))
    if not options.json:
        for r in rows:
            print(f"{r['work']}: {r['ours']} ms (min, max {r['ours_min_max']}); "
                  f"{r['peer']}: {r['theirs']} ms {r['theirs_min_max']}")  # fmt: skip
    machine = {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps({"benchmark": "road", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
