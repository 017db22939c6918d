"""`angelos demo` that cannot begin, fails on the way, or is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.datadir import DataDir
from tests.acceptance.demo_process import demo_process
from tests.acceptance.up_process import alive, descendants


def _until(process: subprocess.Popen[str], text: str) -> None:
    """Read its progress as far as a line with `text`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} did not come: {seen}")


def _started_by(process: subprocess.Popen[str], data: DataDir) -> dict[str, tuple[int, int]]:
    found = {part.name: (part.pid, part.start_ticks) for part in data.processes()}
    for pid in descendants(process.pid):
        if (ticks := start_ticks(pid)) is not None:
            found[f"pid {pid}"] = (pid, ticks)
    return found


def _nothing_is_left(data: DataDir, pids: dict[str, tuple[int, int]]) -> None:
    assert len(pids) > 8  # stores, server, two nodes, three agents, and up itself
    assert alive(pids) == set()
    assert data.processes() == []
    assert not data.runtime.exists()
    assert not (data.root / "system.json").exists()


def _run(root: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "angelos", "demo", "--keep", str(root)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_a_directory_with_something_in_it_is_a_usage_error(tmp_path):
    (tmp_path / "precious").write_text("mine")
    done = _run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path} is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_system_that_does_not_start_is_a_clear_failure(tmp_path):
    (tmp_path / "file").write_text("")
    done = _run(tmp_path / "file" / "data")
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert "The system did not start" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_told_to_stop_in_the_middle_it_stops_all_it_started(tmp_path, number):
    data = DataDir(tmp_path / "data")
    with demo_process(data.root) as process:
        _until(process, "1. ok")
        pids = _started_by(process, data)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "Interrupted; everything that was started has been stopped."
    assert "Traceback" not in err
    _nothing_is_left(data, pids)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["the first step", "a part is there"])
def test_killed_it_leaves_no_process_and_no_temporary_directory(tmp_path, when):
    process = subprocess.Popen(
        [sys.executable, "-m", "angelos", "demo", "--json"], process_group=0, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    with process:
        try:
            if when == "the first step":
                _until(process, "1. ok")
            _wait_for(lambda: list(tmp_path.glob("angelos-demo-*/processes.json")))
            (root,) = tmp_path.glob("angelos-demo-*")
            pids = _started_by(process, DataDir(root))
            assert len(pids) > (8 if when == "the first step" else 1)
        finally:
            process.kill()
    _wait_for(lambda: not alive(pids))
    _wait_for(lambda: not list(tmp_path.iterdir()))  # the sockets' directory, too


def _wait_for(condition: Callable[[], object], within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, condition
        time.sleep(0.05)  # nothing announces the end of somebody else's processes


@pytest.mark.slow
def test_a_step_that_fails_is_named_and_ends_the_demo(tmp_path):
    data = DataDir(tmp_path / "data")
    with demo_process(data.root) as process:
        _until(process, "ready, with three agents")
        pids = _started_by(process, data)
        ada = next(
            pid
            for pid, _ in pids.values()
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"/agents/ada\0")
        )
        os.kill(ada, signal.SIGKILL)
        out, err = process.communicate(timeout=150)
    assert process.returncode == 1
    report = json.loads(out.splitlines()[-1])
    *before, failed = report["steps"]
    assert report["ok"] is False
    assert all(step["ok"] for step in before)
    assert failed["ok"] is False
    assert failed["evidence"]["error"] == "StepFailed: the process of agent ada has ended"
    assert f"  {len(report['steps'])}. FAILED" in err
    assert "Not all steps did what they say" in err
    assert "Traceback" not in err
    _nothing_is_left(data, pids)
