"""Every part of `angelos up` is killed and frozen under load; no acknowledged task is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time

import pytest

from angelos.adapters.host.children import start_ticks
from angelos.client import Angelos
from angelos.client.rooms import RoomClient
from angelos.core.errors import AngelError
from angelos.core.facts import Kind
from tests.acceptance.up_process import cli, running

PARTS = ("valkey", "postgres", "server", "exec1")
BACK_S = {"exec1": 20.0}
"""Within how many seconds a part has to be replaced; the rest has 15."""
SLACK = 2.0
"""How much slower a busy machine may be."""


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for the module."""
    with running(tmp_path_factory.mktemp("system") / "data") as up:
        yield up


class Load:
    """One client that submits a task after the other and keeps what was acknowledged."""

    def __init__(self, up):
        self.up = up
        self.acknowledged = []
        self.stop = asyncio.Event()

    async def __aenter__(self):
        self._task = asyncio.create_task(self._submit())
        return self

    async def __aexit__(self, *_):
        self.stop.set()
        await self._task

    async def _submit(self):
        async with Angelos.connect(self.up.data.root) as angelos:
            while not self.stop.is_set():
                with contextlib.suppress(AngelError):
                    number = len(self.acknowledged)
                    self.acknowledged.append((await angelos.tasks.start(f"print({number})")).id)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        await self.stop.wait()


class Typist:
    """Somebody who types line after line into one live document and keeps what was acknowledged.

    The room is opened again whenever it closes, as JupyterLab does.
    """

    PATH = "study/notes.md"

    def __init__(self, where):
        self.where = where
        self.acknowledged = []
        self.stop = asyncio.Event()

    async def __aenter__(self):
        self._task = asyncio.create_task(self._type())
        return self

    async def __aexit__(self, *_):
        self.stop.set()
        await self._task

    def room(self, timeout):
        return RoomClient(*self.where(), self.PATH, timeout)

    async def _type(self):
        number = 0
        while not self.stop.is_set():
            with contextlib.suppress(AngelError, OSError, TimeoutError, ConnectionError):
                async with self.room(5) as room:
                    while not self.stop.is_set():
                        number += 1
                        await room.insert(0, f"line {number}\n")
                        self.acknowledged.append(number)
                        await self._pause(0.25)
            await self._pause(0.25)

    async def _pause(self, seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()

    async def more(self, seconds):
        """Wait until the room has taken another line."""
        before = len(self.acknowledged)
        async with asyncio.timeout(seconds):
            while len(self.acknowledged) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def text(self):
        async with self.room(60) as room:
            return room.text


def each_once(text, acknowledged):
    """Return whether each acknowledged line is in the text, and none twice."""
    lines = [line for line in text.splitlines() if line.startswith("line ")]
    return len(set(lines)) == len(lines) and {f"line {n}" for n in acknowledged} <= set(lines)


SLOW = "import time\nfor n in range(15):\n    print(n, flush=True)\n    time.sleep(1)\n"
"""Runs while the stores and the server are killed."""


async def _until_a_task_runs(up, seconds):
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(AngelError, TimeoutError):
                async with Angelos.connect(up.data.root) as angelos, asyncio.timeout(3):
                    if (await angelos.tasks.run("print(6 * 7)")).stdout == "42\n":
                        return
            await asyncio.sleep(0.1)


async def _replaced(up, name, pid, seconds):
    """Wait until another process has taken the place of `pid`."""
    async with asyncio.timeout(seconds):
        while {p.name: p.pid for p in up.data.processes()}[name] == pid:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def killed_and_frozen_parts_come_back_and_no_acknowledged_task_is_lost(system):
    rounds = [(signal.SIGKILL, (name,)) for name in PARTS[:3]]
    others = [(signal.SIGKILL, PARTS[3:])]
    others += [(signal.SIGSTOP, ("valkey", "exec1")), (signal.SIGSTOP, ("postgres", "server"))]
    before = {p.name: p.pid for p in system.data.processes()}
    async with Angelos.connect(system.data.root) as angelos:
        await angelos.repos.create("study", {"notes.md": "the end\n"}, "import")
    async with Load(system) as load, Typist(lambda: _where(system)) as typist:
        await typist.more(60)
        async with Angelos.connect(system.data.root) as angelos:
            slow = await angelos.tasks.start(SLOW)
        for how, names in rounds:
            await _strike(system, typist, how, names)
        async with Angelos.connect(system.data.root) as angelos, asyncio.timeout(90):
            result = await angelos.tasks[slow.id].result()
        assert (result.status, result.stdout) == ("ok", "".join(f"{n}\n" for n in range(15)))
        for how, names in others:
            await _strike(system, typist, how, names)
    assert system.process.poll() is None
    after = {p.name: p.pid for p in system.data.processes()}
    assert all(before[name] != after[name] for name in PARTS)
    assert before["labs1"] == after["labs1"], "what was well was left alone"
    assert load.acknowledged  # how many depends on the machine
    async with Angelos.connect(system.data.root) as angelos, asyncio.timeout(60):
        for number, task in enumerate(load.acknowledged):
            result = await angelos.tasks[task].result()
            assert (result.status, result.stdout) == ("ok", f"{number}\n"), (number, result)
    assert each_once(await typist.text(), typist.acknowledged)


def _where(system):
    running = system.data.system()
    return running.url, running.token


async def _strike(system, typist, how, names):
    """Kill or freeze parts; return when each was replaced, a task runs and the room goes on."""
    pids = {p.name: (p.pid, p.start_ticks) for p in system.data.processes()}
    for name in names:
        os.kill(pids[name][0], how)
    for name in names:
        await _replaced(system, name, pids[name][0], SLACK * BACK_S.get(name, 15.0))
        assert start_ticks(pids[name][0]) != pids[name][1], "the frozen one has ended"
    await _until_a_task_runs(system, SLACK * 20)
    await typist.more(60)


def each_restart_is_a_fact_and_a_line_in_the_status(system):
    events = [
        json.loads(line) for line in cli_lines(system, "audit", "tail", "--json", "-n", "900")
    ]
    facts = [e["fact"] for e in events if e["fact"]["kind"] == Kind.part_restarted]
    causes = {(f["subject"], f["data"]["cause"]) for f in facts}
    assert causes >= {(f"system/{name}", how) for name in PARTS for how in ("ended", "frozen")}
    lines = cli(system.data.root, "status").stdout
    view = json.loads(cli(system.data.root, "status", "--json").stdout)
    assert {restart["part"] for restart in view["restarts"]} >= set(PARTS)
    assert all(f"{name} was started again" in lines for name in PARTS)


def cli_lines(up, *args):
    """Return the lines that a command prints."""
    return cli(up.data.root, *args).stdout.splitlines()


def a_removed_runtime_directory_is_made_again(system):
    runtime = system.data.runtime
    shutil.rmtree(runtime)
    assert system.until("rebuilt")["path"] == str(runtime)
    until = time.monotonic() + SLACK * 20
    while (done := cli(system.data.root, "run", "-c", "print('again')")).returncode != 0:
        assert time.monotonic() < until, done.stderr
    assert done.stdout == "again\n"
    assert system.stop() == 0
    assert not runtime.exists()


@pytest.mark.slow
async def test_parts_that_end_or_freeze_are_replaced(system):
    """One after the other on one system: each looks at what the one before has done."""
    await killed_and_frozen_parts_come_back_and_no_acknowledged_task_is_lost(system)
    each_restart_is_a_fact_and_a_line_in_the_status(system)
    a_removed_runtime_directory_is_made_again(system)
