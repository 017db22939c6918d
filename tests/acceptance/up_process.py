"""A real `angelos up` for tests: a process as a user starts it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.datadir import DataDir

READY_S = 120


class Up:
    """One run of `angelos up --json`."""

    def __init__(self, data_dir: Path, *args: str, prefix: Sequence[str] = ()) -> None:
        self.data = DataDir(data_dir, os.environ.get("XDG_RUNTIME_DIR", ""))
        command = [*prefix, sys.executable, "-m", "angelos", "up", "--json", "--data-dir"]
        self.process = subprocess.Popen(
            [*command, str(data_dir), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, event: str, **data: Any) -> dict[str, Any]:
        """Return the next event of this name that holds `data`."""
        while (line := self._lines.get(timeout=READY_S)) is not None:
            told = json.loads(line)
            self.events.append(told)
            if told.get("event") == event and data.items() <= told.items():
                return told
        self.process.wait(30)
        pytest.fail(f"up ended before {event!r}: {self.events}\n{self.process.stderr.read()}")

    def rest(self) -> list[dict[str, Any]]:
        """Return the events that were not waited for, once it has ended."""
        return [json.loads(line) for line in iter(self._lines.get, None)]

    def pids(self) -> dict[str, tuple[int, int]]:
        """Return name -> (pid, start tick) of everything that it started, and all below that."""
        found = {p.name: (p.pid, p.start_ticks) for p in self.data.processes()}
        for pid in descendants(self.process.pid):
            if (ticks := start_ticks(pid)) is not None:
                found.setdefault(f"pid {pid}", (pid, ticks))
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it in good order and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def close(self) -> None:
        """Make sure that it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


def descendants(pid: int) -> set[int]:
    """Return every process below a process, as the kernel knows them now."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in map(int, children):
            found |= {child} | descendants(child)
    return found


def alive(pids: dict[str, tuple[int, int]]) -> set[str]:
    """Return the names of those that still run."""
    return {name for name, (pid, ticks) in pids.items() if start_ticks(pid) == ticks}


def cli(data_dir: Path, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run one command as a user does."""
    where = ["--data-dir", str(data_dir)]
    # What follows FILE of `run` is the program's.
    args = ("run", *where, *args[1:]) if args[:1] == ("run",) else (*args, *where)
    return subprocess.run(
        [sys.executable, "-m", "angelos", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **kwargs,
    )


@contextmanager
def running(data_dir: Path, *args: str) -> Iterator[Up]:
    """Run `angelos up` until it is ready, and end it afterwards."""
    up = Up(data_dir, *args)
    try:
        up.until("ready")
        yield up
    finally:
        up.close()
