"""One box, from its start to the last trace of it: handshake, run, watch, kill, clean up.

The event loop's callbacks read output, serve the seccomp listener and look at the meter; no task
is started, so there is nothing that a cancelled caller could leave behind. Killing is one signal
to the first process of the box's process namespace: the kernel then ends all the others,
whatever sessions they made and signals they ignore, before that process itself is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.runs import Output
from angelos.node.sandbox.launch import Started
from angelos.node.sandbox.models import Ending, Meter, Stop
from angelos.node.sandbox.proc import end_descendants, parent
from angelos.node.sandbox.seccomp_notify import Watch
from angelos.node.sandbox.verdict import must_stop

_START_S = 10.0
_KERNEL_TICK_S, _SAMPLER_TICK_S = 0.04, 0.01
_PATIENCE = 9
"""At most a tenth of the node's time goes into looking at one box."""
_CHUNK = 65536
_AHEAD = 16
"""Chunks of output kept for a slow reader before the box has to wait."""
_TAIL = 4096
_CREDENTIALS = struct.Struct("3i")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What `shim.py` is told to become."""

    argv: tuple[str, ...]
    code: str | None
    env: dict[str, str]
    chdir: str
    rlimits: dict[str, int]
    landlock: dict[str, tuple[str, ...]] | None
    notify_filter: str
    refuse_filter: str
    base_filter: str = ""
    bare: bool = False
    """There is no process namespace: a first process has to stay behind for the others."""


class Box:
    """A started box: `ready()`, then at most one `run()`, then `close()`."""

    def __init__(self, started: Started, meter: Meter) -> None:
        """Take over what the launcher started, and what is to count for it."""
        self._started = started
        self._process = started.process
        self._link = started.link
        self._link.setblocking(False)  # noqa: FBT003
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._first = -1
        self._shim = -1
        self._chunks: deque[Output] = deque()
        self._streams: dict[int, str] = {}
        self._paused: list[int] = []
        self._pidfds: dict[int, int] = {}
        self._watch: Watch | None = None
        self._meter = meter
        self._timer: asyncio.TimerHandle | None = None
        self._limits = Limits()
        self._begun = self._over = time.monotonic()
        self._stdin = b""
        self._written = 0
        self._tail = b""
        self.stop: Stop | None = None
        self.reason = ""
        self._watch_process(self._process.pid)

    @property
    def scratch(self) -> str:
        """The task's folder on the host where there are no namespaces, else empty."""
        return self._started.scratch

    @property
    def alive(self) -> bool:
        """Tell whether the box still waits or runs."""
        return self._first in self._pidfds

    # -- handshake -----------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until the box waits for its order; raise `Unavailable` with what went wrong."""
        try:
            async with asyncio.timeout(_START_S):
                word, _, pid = await self._hear()
                if word != b"ready":
                    raise Unavailable(f"The box did not start: {self._complaint()}")
            self._shim = pid
            self._first = pid if self.scratch else parent(pid)
            if self._first not in self._pidfds:
                self._watch_process(self._first)
            # Ahead of the order: the kernel may take 10 ms to move a process (an RCU grace period).
            self._meter.add(self._first, self._shim)
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box did not start: {error or 'no answer'}") from error

    async def begin(self, order: Order, limits: Limits, stdin: bytes) -> bool:
        """Hand the order over and start the clock; False if refused calls go unreported."""
        self._limits, self._stdin = limits, stdin
        try:
            self._meter.limit(limits)
            body = msgspec.json.encode(order)
            async with asyncio.timeout(_START_S):
                head = len(body).to_bytes(8, "big")
                await self._loop.sock_sendall(self._link, head + body)
                word, fds, _ = await self._hear()
                if word not in {b"go", b"blind"}:
                    text = word.decode(errors="replace") or self._complaint()
                    raise Unavailable(f"The box could not be closed: {text}")
                if fds:
                    self._watch = Watch(fds[0], platform.machine(), self._meter.may_fork)
                self._read_streams()
                await self._loop.sock_sendall(self._link, b"start")
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box could not be closed: {error or 'no answer'}") from error
        self._link.close()
        self._begun = time.monotonic()
        self._write_stdin()
        self._tick()
        return word == b"go"

    async def _hear(self) -> tuple[bytes, list[int], int]:
        """Return one message of the box with its descriptors and the sender's process id."""
        readable = asyncio.Event()
        self._loop.add_reader(self._link, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(self._link)
        space = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, _, _ = self._link.recvmsg(_TAIL, space)
        fds: list[int] = []
        pid = -1
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds += [fd for (fd,) in struct.iter_unpack("i", content[: len(content) & ~3])]
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid = _CREDENTIALS.unpack(content)[0]
        return data, fds, pid

    def _complaint(self) -> str:
        """Return what bubblewrap wrote before it gave up."""
        assert self._process.stderr is not None  # noqa: S101 - a pipe, see launch.py
        os.set_blocking(self._process.stderr.fileno(), False)
        text = self._process.stderr.read(_TAIL) or b""
        return text.decode(errors="replace").strip() or "it ended without a word"

    # -- run -----------------------------------------------------------------------------

    async def output(self) -> AsyncIterator[Output]:
        """Yield output as it comes until the whole box is gone."""
        while self._chunks or self._streams or self._pidfds:
            if self._chunks:
                yield self._chunks.popleft()
                self._resume()
            elif self._pidfds:
                self._wake.clear()
                await self._wake.wait()
            else:
                self._drain()

    def ending(self, tier: Tier, inside: tuple[str, ...]) -> Ending:
        """Return how it went, once `output` is at its end."""
        return Ending(
            exit_code=self._process.wait() if self.stop is None else None,
            duration_s=self._over - self._begun,
            tier=tier,
            usage=self._meter.read(),
            stop=self.stop,
            reason=self.reason,
            refusals=self._watch.refusals() if self._watch else (),
            output_bytes=self._written,
            stderr_tail=self._tail.decode(errors="replace"),
            inside=inside,
        )

    def kill(self, stop: Stop, reason: str = "") -> None:
        """End all processes of the box now; the first reason counts, if it still ran."""
        outer = self._pidfds.get(self._process.pid)
        if outer is not None and self.stop is None:
            self.stop, self.reason = stop, reason
        if outer is not None and (self._first < 0 or self.scratch):
            # Still starting: bubblewrap killed alone would leave its child waiting for it.
            # Without a process namespace there is nobody else to end the descendants.
            end_descendants(self._process.pid)
        for pidfd in (self._pidfds.get(self._first), outer):
            if pidfd is not None:
                _signal(pidfd, signal.SIGKILL)

    async def close(self) -> tuple[str, ...]:
        """End what is left, wait until it is gone, free everything; return the mounts to free."""
        if self._pidfds:
            self.kill(Status.killed)
        try:
            while self._pidfds:
                self._wake.clear()
                await self._wake.wait()
            while not self._meter.close():  # noqa: ASYNC110
                await asyncio.sleep(0.002)  # the kernel is still taking the last process apart
        finally:
            self._release()
        return self._started.staged

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.close()
        for fd in (*self._streams, *self._pidfds.values()):
            self._loop.remove_reader(fd)
        self._streams.clear()
        self._link.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                self._loop.remove_writer(pipe.fileno())
                pipe.close()

    # -- callbacks -----------------------------------------------------------------------

    def _watch_process(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._pidfds[pid] = pidfd
        self._loop.add_reader(pidfd, self._process_gone, pid)

    def _process_gone(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if pid == self._process.pid:
            self._process.wait()
            self._over = time.monotonic()
        self._wake.set()

    def _tick(self) -> None:
        """Look at the meter and the clock, while there is something to stop."""
        if self._process.pid not in self._pidfds:
            return  # what is left is to hand its output over, however long the reader takes
        began = time.monotonic()
        try:
            usage = self._meter.read()
        except (OSError, ValueError) as error:  # what cannot be measured cannot be limited
            self.kill(Status.killed, f"what it uses could not be measured: {error}")
            return
        now = time.monotonic()
        elapsed = now - self._begun
        stop = must_stop(usage, self._limits, elapsed, self._watch.total if self._watch else 0)
        if stop is not None:
            self.kill(stop)
            return
        every = _KERNEL_TICK_S if usage.source == "kernel" else _SAMPLER_TICK_S
        every = max(every, _PATIENCE * (now - began))  # many processes take long to look at
        left = max(self._limits.wall_s - elapsed, 0.0)
        self._timer = self._loop.call_later(min(every, left), self._tick)

    def _read_streams(self) -> None:
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert pipe is not None  # noqa: S101 - a pipe, see launch.py
            os.set_blocking(pipe.fileno(), False)
            self._streams[pipe.fileno()] = name
            self._loop.add_reader(pipe.fileno(), self._readable, pipe.fileno())

    def _readable(self, fd: int) -> bool:
        """Read once; False if there was nothing to read."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
            del self._streams[fd]
        else:
            self._take(fd, data)
        self._wake.set()
        return True

    def _drain(self) -> None:
        """Read what is left, once all processes are gone; nobody of the box can add to it."""
        for fd in [*self._streams]:
            if not self._readable(fd):  # something that got away holds it open
                self._loop.remove_reader(fd)
                del self._streams[fd]

    def _take(self, fd: int, data: bytes) -> None:
        kept = data[: max(self._limits.output_bytes - self._written, 0)]
        self._written += len(data)
        if kept:
            stream = "stdout" if self._streams[fd] == "stdout" else "stderr"
            self._chunks.append(Output(stream, kept))
            if stream == "stderr":
                self._tail = (self._tail + kept)[-_TAIL:]
        if self._written > self._limits.output_bytes:
            self.kill(Status.output)
            self.stop = self.stop or Status.output  # it may have ended before it was read
        if len(self._chunks) >= _AHEAD:
            self._loop.remove_reader(fd)
            self._paused.append(fd)

    def _resume(self) -> None:
        if self._paused and len(self._chunks) < _AHEAD:
            for fd in self._paused:
                self._loop.add_reader(fd, self._readable, fd)
            self._paused.clear()

    def _write_stdin(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - a pipe, see launch.py
        os.set_blocking(pipe.fileno(), False)
        if self._feed():
            self._loop.add_writer(pipe.fileno(), self._feed)

    def _feed(self) -> bool:
        """Write what the pipe takes; True while there is more."""
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - a pipe, see launch.py
        try:
            self._stdin = self._stdin[os.write(pipe.fileno(), self._stdin) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self._stdin = b""
        if self._stdin:
            return True
        self._loop.remove_writer(pipe.fileno())
        pipe.close()
        return False


def _signal(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
