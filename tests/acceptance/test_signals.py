"""What asks a command to end, in every moment: Ctrl-C, SIGTERM, a terminal that is closed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import msgspec
import pytest

from angelos.adapters.host.datadir import DataDir
from angelos.testing import need
from tests.acceptance.up_process import Up, alive, cli, running

ANGELOS = [sys.executable, "-m", "angelos"]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("up") / "data") as up:
        yield up


def _run(system: Up, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ANGELOS, "run", "-c", code, "--data-dir", str(system.data.root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_leaves_no_task_behind(system, number):
    process = _run(system, "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled task-" in err
    assert "killed after" in err
    status = json.loads(cli(system.data.root, "status", "--json").stdout)
    assert status["tasks_running"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_before_the_server_answers_says_so(system, tmp_path, number):
    with _Silent(tmp_path, system.data) as silent:
        process = subprocess.Popen(
            [*ANGELOS, "run", "-c", "print(1)", "--data-dir", str(silent.data.root)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        asked = silent.asked.wait(60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert asked
    assert (process.returncode, out, err) == (1, "", "angelos: interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_while_it_waits_for_its_input_says_so(system, number):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*ANGELOS, "run", "--data-dir", str(system.data.root), "-c", "print(1)"],
        stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(writing, b"x")
    while select.select([reading], [], [], 0)[0]:  # until it has taken what there is
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    os.close(reading)
    os.close(writing)
    assert (process.returncode, out, err) == (1, "", "angelos: interrupted.\n")


class _Silent:
    """A server that takes requests and never answers, where `system.json` says it is."""

    def __init__(self, folder: Path, like: DataDir) -> None:
        self.asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.data = DataDir(folder / "data")
        self.data.create()
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.data.write_system(msgspec.structs.replace(like.system(), url=url))
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._take)

    def _take(self) -> None:
        with contextlib.suppress(OSError):  # nobody came, and it is shut down
            self._connection, _ = self._listener.accept()
        if self._connection is None:
            return
        self._connection.recv(1)
        self.asked.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # no more waiting
        self._thread.join()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


def test_up_ends_in_good_order_when_its_terminal_is_closed(tmp_path):
    master, slave = os.openpty()
    need(os.ttyname(slave), "a pseudo-terminal")
    data = DataDir(tmp_path / "data")
    # A session leader with this terminal gets SIGHUP when it closes, and cannot write to it more.
    become = "import fcntl, os, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0); "
    process = subprocess.Popen(
        [sys.executable, "-c", become + "os.execv(sys.argv[1], sys.argv[1:])",
         *ANGELOS, "up", "--data-dir", str(data.root)],
        stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"ready" not in said:
        said += os.read(master, 4096)
    started = {p.name: (p.pid, p.start_ticks) for p in data.processes()}
    os.close(master)
    assert process.wait(60) == 0
    assert not alive(started)
    assert not (data.root / "system.json").exists()


def test_nohup_keeps_up_running_when_the_terminal_is_closed(tmp_path):
    up = Up(tmp_path / "data", prefix=("nohup",))
    try:
        up.until("ready")
        up.process.send_signal(signal.SIGHUP)
        assert cli(up.data.root, "run", "-c", "print(6 * 7)").stdout == "42\n"
        assert up.stop(signal.SIGTERM) == 0
        assert [e["reason"] for e in up.rest() if e["event"] == "stopping"] == ["SIGTERM"]
    finally:
        up.close()
