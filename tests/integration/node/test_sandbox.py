"""The sandbox as the node uses it: streaming, stdin, cancelling, and the tools of the pipeline."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from angelos.core.messages import Limits, Status, Tier
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import launch
from angelos.node.sandbox.launch import LaunchedBox, Launcher
from angelos.node.sandbox.layout import BoxShape
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import need
from tests.integration.node.boxes import Children, children, is_gone, no_bwrap, run

__all__ = ["children", "no_bwrap"]


@pytest.fixture(params=[True, False], ids=["cgroup", "sampler"])
async def sandbox(
    request: pytest.FixtureRequest, children: Children
) -> AsyncIterator[BubblewrapSandbox]:
    config = SandboxConfig(ready_boxes=0, use_cgroups=request.param)
    async with BubblewrapSandbox(config) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        yield box
    assert children.now() == []


async def test_output_arrives_while_the_program_runs_and_closing_kills_it(
    sandbox: BubblewrapSandbox, children: Children
) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    time.sleep(99)\n"
        "print('here')\ntime.sleep(99)\n"
    )
    spec = RunSpec(argv=(), code=code, limits=Limits(wall_s=60))
    async with aclosing(run_session(sandbox, spec)) as events:  # type: ignore[type-var]
        first = await anext(events)
        assert first == Output("stdout", b"here\n")
        running = children.of_boxes()
        assert len(running) >= 4
    for pid in running:
        assert is_gone(pid)


async def test_stdin_larger_than_a_pipe(sandbox: BubblewrapSandbox) -> None:
    code = "import sys; print(len(sys.stdin.buffer.read()))"
    spec = RunSpec(argv=(), code=code, limits=Limits(), stdin=bytes(700_000))
    assert (await run(sandbox, spec))[1] == "700000\n"


async def test_stdin_that_the_program_does_not_read(sandbox: BubblewrapSandbox) -> None:
    spec = RunSpec(argv=(), code="print(1)", limits=Limits(), stdin=bytes(700_000))
    assert (await run(sandbox, spec))[0].status is Status.ok


async def test_the_code_is_main_and_its_traceback_is_its_own(sandbox: BubblewrapSandbox) -> None:
    code = "import sys\nprint(__name__, sys.argv, dir())\ndef f():\n    return 1 / 0\nf()\n"
    end, printed = await run(sandbox, RunSpec(argv=("a",), code=code, limits=Limits()))
    assert end.status is Status.error
    names = "['__builtins__', '__doc__', '__file__', '__name__', '__spec__', 'sys']"
    assert printed.startswith(f"__main__ ['/tmp/main.py', 'a'] {names}")
    assert "    return 1 / 0" in printed
    assert "shim.py" not in printed


ORDINARY = {
    "spawn": (
        """
import multiprocessing as mp

def f(x):
    return x * x

if __name__ == "__main__":
    with mp.get_context("spawn").Pool(2) as p:
        print(p.map(f, range(3)))
""",
        "[0, 1, 4]\n",
    ),
    "file": ("import pathlib\nprint(pathlib.Path(__file__).read_text() != '')", "True\n"),
    "byte order mark": ("\ufeffprint('marked')", "marked\n"),
    "coding line": ("# -*- coding: latin-1 -*-\nprint('caf\u00e9')", "caf\u00e9\n"),
    "shared memory": (
        """
from multiprocessing import shared_memory as s
m = s.SharedMemory(create=True, size=4 << 20)
m.buf[:] = b"x" * (4 << 20)
print("whole")
m.close()
m.unlink()
""",
        "whole\n",
    ),
    "named pipe": ("import os\nos.mkfifo('/tmp/p')\nprint(os.path.exists('/tmp/p'))", "True\n"),
}


@pytest.mark.parametrize("what", ORDINARY)
async def test_ordinary_python_runs_as_it_does_at_home(
    sandbox: BubblewrapSandbox, what: str
) -> None:
    code, expected = ORDINARY[what]
    end, printed = await run(sandbox, RunSpec(argv=(), code=code, limits=Limits()))
    assert (end.status, printed) == (Status.ok, expected)


async def test_output_without_a_line_end_comes_at_once(sandbox: BubblewrapSandbox) -> None:
    spec = RunSpec(argv=(), code="print('.', end='')\nimport time\ntime.sleep(99)", limits=Limits())
    async with aclosing(run_session(sandbox, spec)) as events:  # type: ignore[type-var]
        assert await anext(events) == Output("stdout", b".")


async def test_a_syntax_error_is_the_programs_own(sandbox: BubblewrapSandbox) -> None:
    end, printed = await run(sandbox, RunSpec(argv=(), code="x = (", limits=Limits()))
    assert (end.status, end.exit_code) == (Status.error, 1)
    assert 'File "<task>", line 1' in printed
    assert "shim.py" not in printed


@pytest.mark.parametrize("argv", [("",), ("echo", "a\0b")])
async def test_a_program_with_an_impossible_name_ends_with_126(
    sandbox: BubblewrapSandbox, argv: tuple[str, ...]
) -> None:
    end, printed = await run(sandbox, RunSpec(argv=argv, limits=Limits()))
    assert (end.status, end.exit_code) == (Status.error, 126)
    assert printed.startswith(f"{argv[0]}: ")
    assert "Traceback" not in printed


async def test_a_missing_program_ends_with_127(sandbox: BubblewrapSandbox) -> None:
    end, printed = await run(sandbox, RunSpec(argv=("nothing",), limits=Limits()))
    assert (end.status, end.exit_code) == (Status.error, 127)
    assert printed == "nothing: No such file or directory\n"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").write_text('"""Study."""\n')
    (tmp_path / "study" / "maths.py").write_text(
        '"""Maths.\n\n>>> double(2)\n4\n"""\n\n\n'
        'def double(x):\n    """Double."""\n    return 2 * x\n'
    )
    return tmp_path


async def test_doctests_ruff_and_bandit_work_in_a_checkout(
    sandbox: BubblewrapSandbox, study: Path
) -> None:
    for argv in (
        ("python", "-m", "ruff", "check", "--no-cache", "study"),
        ("python", "-m", "bandit", "-q", "-r", "study"),
        ("python", "-m", "doctest", "study/maths.py"),
        ("python", "-c", "import study.maths as m; assert m.__file__ == '/work/study/maths.py'"),
    ):
        spec = RunSpec(argv=argv, limits=Limits(), read_only={"/work": str(study)}, chdir="/work")
        end, printed = await run(sandbox, spec)
        assert end.status is Status.ok, (argv, printed, end.evidence)


NOTEBOOK = """
import os
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
nb = nbformat.read("analysis.ipynb", as_version=4)
km = AsyncKernelManager(transport="ipc", ip="/tmp/k", connection_file="/tmp/k.json")
client = NotebookClient(nb, km=km, timeout=60)
client.execute(cwd=os.getcwd())
print(nb.cells[0].outputs[0]["text"])
"""


async def test_a_notebook_runs_in_a_clean_kernel_without_a_network(
    sandbox: BubblewrapSandbox, study: Path
) -> None:
    cell = {
        "cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
        "source": "from study.maths import double\nprint(double(21))",
    }  # fmt: skip
    body = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (study / "analysis.ipynb").write_text(json.dumps(body))
    spec = RunSpec(
        argv=(),
        code=NOTEBOOK,
        limits=Limits(wall_s=90, cpu_s=60, memory_mb=1024, pids=128),
        read_only={"/work": str(study)},
        chdir="/work",
    )
    end, printed = await run(sandbox, spec)
    assert end.status is Status.ok, (printed, end.evidence)
    assert printed.strip().endswith("42")


async def test_ready_boxes_are_used_once_and_replaced(children: Children) -> None:
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=2)) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        spec = RunSpec(
            argv=(), code="import os; print(os.path.exists('/tmp/x')); open('/tmp/x', 'w')",
            limits=Limits(),
        )  # fmt: skip
        for _ in range(6):
            end, printed = await run(box, spec)
            assert (end.status, printed) == (Status.ok, "False\n")
    assert children.now() == []


async def test_a_waiting_box_is_in_its_group_already_because_moving_takes_long() -> None:
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        need(box._groups is not None, f"no control groups here: {box.reasons}")
        waiting = await box._start(BoxShape())
        assert f"angelos-{os.getpid()}-" in groups_of(waiting._shim)


def groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


async def test_a_caller_cancelled_while_a_box_starts_leaves_nothing(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    real = Launcher._start

    def slow(self: Launcher, *args: Any) -> LaunchedBox:
        begun.set()
        go.wait(30)
        return real(self, *args)

    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        monkeypatch.setattr(Launcher, "_start", slow)
        job = asyncio.create_task(run(box, RunSpec(argv=(), code="1", limits=Limits())))
        assert await asyncio.to_thread(begun.wait, 30)
        job.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert children.now() == []


async def test_without_boxes_every_run_is_refused_with_the_reason(no_bwrap: None) -> None:
    async with BubblewrapSandbox() as box:
        assert box.tier in {Tier.landlock, Tier.none}
        end, printed = await run(box, RunSpec(argv=(), code="print(1)", limits=Limits()))
    assert (end.status, printed) == (Status.denied, "")
    assert "There is no bubblewrap" in str(end.evidence["reason"])


async def test_trusted_code_runs_unsandboxed_where_the_operator_allows_it(
    no_bwrap: None, study: Path, children: Children
) -> None:
    async with BubblewrapSandbox(SandboxConfig(allow_unsandboxed=True)) as box:
        need(box.tier is Tier.landlock, "no Landlock here")
        spec = RunSpec(
            argv=(), code="import study.maths as m, os; print(m.double(4)); open('/etc/x', 'w')",
            limits=Limits(), read_only={"/work": str(study)}, chdir="/work",
        )  # fmt: skip
        end, printed = await run(box, spec)
        assert end.status is Status.error, printed
        assert printed.startswith("8\n")
        fork = "import os, time\nos.fork(); os.setsid(); os.fork()\nprint(1)\ntime.sleep(60)"
        hung = RunSpec(argv=(), code=fork, limits=Limits(wall_s=0.5))
        end, _ = await run(box, hung)
        assert (end.status, end.tier) == (Status.timeout, Tier.landlock)
    assert children.now() == []


async def test_scratch_folders_of_a_killed_node_are_removed_at_its_next_start(
    no_bwrap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    records, old = tmp_path / "scratch", tmp_path / "angelos-task-old"
    records.mkdir()
    old.mkdir()
    record = {"path": str(old), "pid": 2**22 + 1, "start_ticks": 1}
    (records / old.name).write_text(json.dumps(record))
    async with BubblewrapSandbox(SandboxConfig(allow_unsandboxed=True, scratch=records)) as box:
        assert not old.exists()
        need(box.tier is Tier.landlock, "no Landlock here")
        end, printed = await run(box, RunSpec(argv=(), code="print(1)", limits=Limits()))
        assert end.status is Status.ok, printed
    outside = records.parent
    assert [path for path in (*records.iterdir(), *outside.iterdir()) if path != records] == []


async def test_a_stage_that_another_program_removed_is_made_again(
    monkeypatch: pytest.MonkeyPatch, study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    need(os.geteuid() == 0, "only root needs a stage")
    monkeypatch.setattr(launch, "reachable", lambda *_: False)
    work = RunSpec(
        argv=(), code="import study.maths as m; print(m.double(4))", limits=Limits(),
        read_only={"/work": str(study)}, chdir="/work",
    )  # fmt: skip
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        launcher = box._launcher
        assert isinstance(launcher, Launcher)
        waits = RunSpec(argv=(), code="print(input())", stdin=b"late\n", limits=Limits())
        running = run_session(box, waits)
        assert (await anext(running)).data == b"late\n"
        for _ in range(2):
            first = launcher._stage
            assert first is not None
            first.rmdir()  # as systemd-tmpfiles does with what is old and, to it, empty
            end, printed = await run(box, work)
            assert (end.status, printed) == (Status.ok, "8\n")
            assert launcher._stage != first
            assert launcher._stage is not None
        assert isinstance(await anext(running), Exit)
        launcher._stage.rmdir()
    assert "made again" in caplog.text


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def test_a_box_that_waits_is_sealed_already() -> None:
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=1)) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        async with asyncio.timeout(60):
            while not box.boxes_ready:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        (waiting,) = box._ready
        rows = status_of(waiting.task)
        assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
        assert int(rows["Seccomp_filters"]) >= 2, "bubblewrap's filter and the shim's"
        end, printed = await run(box, RunSpec(argv=(), code="print(1)", limits=Limits()))
        assert (end.status, printed) == (Status.ok, "1\n")
        assert waiting not in box._ready
