"""Child processes of `angelos up`: started, logged, watched, restarted, stopped.

    child = Child("exec1", [sys.executable, "-m", "angelos.wiring.node"], env, logs / "exec1.log")
    await child.start()
    code = await child.wait()
    await child.stop()

A child has a session of its own, so a Ctrl-C in the terminal reaches only `up`, which stops its
children in order. When `up` is killed the kernel sends them SIGTERM (`host/exec_child.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from angelos.adapters.host import exec_child
from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.datadir import Process
from angelos.core.errors import Unavailable

_LOG_BYTES = 5_000_000
_TAIL_LINES = 30
_CHUNK = 65_536


class BoundedLog:
    """A log of at most twice `limit` bytes: the present file and the one before (`.1`).

    What does not fit on a full disk is dropped; the writer goes on.
    """

    def __init__(self, path: Path, limit: int = _LOG_BYTES) -> None:
        self.path = path
        self._limit = limit
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._open()

    def write(self, data: bytes) -> None:
        """Append, starting a new file when this one is full."""
        with contextlib.suppress(OSError):
            if self._size + len(data) > self._limit:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file.close()
                self._open()
            self._size += self._file.write(data) or 0
        self._tail.extend(line for line in data.splitlines() if line.strip())

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of this run."""
        return b"\n".join(list(self._tail)[-lines:]).decode(errors="replace")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        self._file = open(self.path, "ab", buffering=0, opener=private)  # noqa: SIM115
        self._size = self._file.tell()


class Child:
    """One child process; it may be started again after it has ended.

    Args:
        name: for messages and the record of processes.
        argv: its command line.
        env: its whole environment.
        log: where its output goes.
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self._log_path = log
        self._process: asyncio.subprocess.Process | None = None
        self._log: BoundedLog | None = None
        self._pump: asyncio.Task[None] | None = None
        self.record: Process | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> Process:
        """Start it and return its record; raise `Unavailable` if that is impossible."""
        order = {
            "parent": os.getpid(),
            "signal": int(signal.SIGTERM),
            "uid": 0,
            "binds": [],
            "argv": self.argv,
        }
        # A pipe of our own: asyncio's would keep `wait` from returning for as long as any
        # grandchild holds the other end.
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                exec_child.__file__,
                json.dumps(order),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env=self.env,
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise Unavailable(f"{self.name} cannot be started: {error.strerror}.") from error
        finally:
            os.close(writing)
        self._process = process
        self._log = log = BoundedLog(self._log_path)
        self._pump = asyncio.create_task(_pump(reading, log), name=f"log {self.name}")
        self.record = Process(self.name, process.pid, start_ticks(process.pid) or 0)
        return self.record

    async def wait(self) -> int:
        """Return its exit code once it has ended and its output is in the log."""
        if self._process is None or self._pump is None:
            raise Unavailable(f"{self.name} was not started.")
        code = await self._process.wait()
        await asyncio.wait({self._pump}, timeout=1)  # a grandchild may hold the pipe open
        return code

    async def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to end (SIGTERM), kill it after `grace_s`. Idempotent."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(grace_s):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        finally:
            await self._forget()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it now; `stop` is still to be called."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def tail(self) -> str:
        """Return the last lines of its output."""
        return self._log.tail() if self._log is not None else ""

    async def _forget(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        if self._log is not None:
            self._log.close()
        self._process = self._pump = None


async def _pump(pipe: int, log: BoundedLog) -> None:
    """Write what comes through a pipe to a log until the other end closes; closes the pipe."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    try:
        while data := await reader.read(_CHUNK):
            log.write(data)
    finally:
        transport.close()
