"""However a run ends, or is abandoned, its box ends whole and with the word that it has earned."""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from angelos.core.messages import Limits, Status, Tier
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import box as box_module
from angelos.node.sandbox.cgroup import Cgroups, Group
from angelos.node.sandbox.launch import LaunchedBox, Launcher
from angelos.node.sandbox.layout import BoxShape, this_interpreter
from angelos.node.sandbox.proc import Sampler, tree
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import need
from tests.integration.node.boxes import Children, children, is_gone, no_bwrap, run

__all__ = ["children", "no_bwrap"]
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def orphans() -> Iterator[Children]:
    """Let what loses its parent come to this process, where it can be seen."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield Children()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def boxed(box: BubblewrapSandbox) -> None:
    need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")


async def test_a_caller_cancelled_twice_leaves_the_clean_up_to_the_sandbox(
    children: Children,
) -> None:
    begun = asyncio.Event()
    spec = RunSpec(argv=(), code="print(1)\nimport time\ntime.sleep(99)", limits=Limits(wall_s=60))

    async def follow() -> None:
        async with aclosing(run_session(box, spec)) as events:  # type: ignore[type-var]
            async for _ in events:
                begun.set()

    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        job = asyncio.create_task(follow())
        await begun.wait()
        job.cancel()
        await asyncio.sleep(0)  # it has the first cancellation and waits for the box's end
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    assert children.now() == []


async def test_a_slow_reader_does_not_time_out_a_program_that_has_ended() -> None:
    spec = RunSpec(argv=(), code="print('x' * 9)\nexit(3)", limits=Limits(wall_s=1))
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        async for event in run_session(box, spec):
            match event:
                case Output():
                    await asyncio.sleep(2 * spec.limits.wall_s)  # it ends, and its time goes by
                case Exit():
                    assert (event.status, event.exit_code) == (Status.error, 3), event.evidence
                    assert event.duration_s < spec.limits.wall_s


async def test_a_flood_counts_even_if_its_program_ended_before_it_was_read() -> None:
    spec = RunSpec(argv=(), code="print('x' * 999)", limits=Limits(output_bytes=10))
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        end, printed = await run(box, spec)
    assert (end.status, printed) == (Status.output, "x" * 10)


async def test_a_box_abandoned_while_it_starts_ends_with_all_its_processes(
    orphans: Children, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    program = tmp_path / "bwrap"  # as bubblewrap is for a moment: its child does not know it yet
    program.write_text("#!/bin/sh\nsleep 99 &\nwait\n")
    program.chmod(0o755)
    real, begun, pids = Launcher._start, threading.Event(), list[int]()

    def start(self: Launcher, *args: Any) -> LaunchedBox:
        begun.set()
        launched = real(self, *args)
        while len(pids) < 2:
            pids[:] = tree(launched.process.pid)
        return launched

    monkeypatch.setattr(Launcher, "_start", start)
    launcher = Launcher(program, this_interpreter(), b"")
    job = asyncio.create_task(launcher.start((), BoxShape(disk_mb=1)))
    assert await asyncio.to_thread(begun.wait, 30)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    launcher.close()
    for pid in orphans.now():
        ended(pid)


def ended(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    ready, _, _ = select.select([pidfd], [], [], 20)
    os.close(pidfd)
    assert ready, f"{pid} is still alive"
    os.waitpid(pid, 0)


async def test_a_run_that_cannot_be_measured_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        spec = RunSpec(argv=(), code="print(1)\nimport time\ntime.sleep(99)", limits=Limits())
        async with aclosing(run_session(box, spec)) as events:  # type: ignore[type-var]
            await anext(events)
            for meter in (Group, Sampler):
                real = meter.read

                def fail(self: Any, real: Any = real, calls: list[int] = [0]) -> Any:  # noqa: B006
                    calls[0] += 1
                    if calls[0] == 1:
                        raise OSError(19, "No such device")
                    return real(self)

                monkeypatch.setattr(meter, "read", fail)
            end = await anext(events)
    assert isinstance(end, Exit)
    assert (end.status, end.evidence["source"]) == (Status.killed, "node")
    assert "could not be measured" in str(end.evidence["reason"])


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroup", "sampler"])
async def test_without_a_box_orphans_end_with_their_program(
    no_bwrap: None, children: Children, *, cgroups: bool
) -> None:
    code = (
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    print(os.getcwd())\n"
        "    time.sleep(99)\n"
        "while not os.path.exists('go'):\n    time.sleep(0.01)\nexit(3)\n"
    )
    config = SandboxConfig(allow_unsandboxed=True, use_cgroups=cgroups)
    async with BubblewrapSandbox(config) as box:
        need(box.tier is Tier.landlock, "no Landlock here")
        async with aclosing(
            run_session(box, RunSpec(argv=(), code=code, limits=Limits()))
        ) as events:  # type: ignore[type-var]
            folder = (await anext(events)).data.split()[0].decode()
            running = children.of_boxes()
            (Path(folder) / "go").touch()
            async for event in events:
                if isinstance(event, Exit):
                    assert (event.status, event.exit_code) == (Status.error, 3)
    assert len(running) >= 3
    assert [pid for pid in running if not is_gone(pid)] == []


async def test_without_a_control_group_no_box_is_started(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Cgroups) -> Group:
        raise OSError(28, "No space left on device")

    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        need(box._groups is not None, f"no control groups here: {box.reasons}")
        monkeypatch.setattr(Cgroups, "new", full)
        end, _ = await run(box, RunSpec(argv=(), code="1", limits=Limits()))
        assert (end.status, end.evidence["source"]) == (Status.denied, "node")
        assert "No space left" in str(end.evidence["reason"])
        assert children.of_boxes() == []
    assert children.now() == []


async def test_a_failure_to_start_boxes_ahead_affects_neither_runs_nor_the_end(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    async def fail(_: object, shape: object) -> None:
        del shape
        tried.set()
        raise RuntimeError("not expected")

    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        boxed(box)
        box._config = SandboxConfig(ready_boxes=1)
        with monkeypatch.context() as patch:
            patch.setattr(BubblewrapSandbox, "_start", fail)
            box._refiller = asyncio.create_task(box._keep_ready())
            box._refill.set()
            await tried.wait()
        assert (await run(box, RunSpec(argv=(), code="1", limits=Limits())))[0].status is Status.ok
        waiting = await box._start(BoxShape(disk_mb=1))
        assert waiting.alive
    assert children.now() == []


async def test_a_full_shared_memory_is_oom_although_no_sampler_has_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(box_module, "_SAMPLER_TICK_S", 3600.0)
    full = "with open('/dev/shm/x', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))"
    of_its_own = Limits(memory_mb=32, disk_mb=4)
    small = "open('/tmp/x', 'wb').write(bytes(5 << 20))"
    config = SandboxConfig(use_cgroups=False, ready_boxes=1)  # one made ahead has a larger folder
    async with BubblewrapSandbox(config) as box:
        boxed(box)
        for limits in (Limits(memory_mb=64), of_its_own):
            end, printed = await run(box, RunSpec(argv=(), code=full, limits=limits))
            assert end.status is Status.oom, (end, printed)
        end, printed = await run(box, RunSpec(argv=(), code=small, limits=of_its_own))
        assert (end.status, "No space left" in printed) == (Status.error, True), (end, printed)
