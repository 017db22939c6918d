"""One box, from its start to its last trace: handshake, run, limits, kill, clean-up.

The event loop's callbacks read the output, serve the seccomp listener and read the meter. The box
starts no asyncio task, so a cancelled caller cannot leave one behind. Killing is one signal to the
first process of the box's process namespace: the kernel then kills all the others, whatever
sessions they made and signals they ignore, before that process itself ends (pid_namespaces(7)).
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
from angelos.core.runs import EvidenceSource, Output
from angelos.node.sandbox.launch import LaunchedBox
from angelos.node.sandbox.models import Ending, Meter, Stop
from angelos.node.sandbox.proc import kill_descendants, parent
from angelos.node.sandbox.seccomp_notify import SeccompListener
from angelos.node.sandbox.shim import START, Reply
from angelos.node.sandbox.verdict import must_stop

_START_S = 10.0
_KERNEL_TICK_S, _SAMPLER_TICK_S = 0.04, 0.01
_TICK_RATIO = 9
"""A tick is followed by nine times its own duration: one box takes a tenth of the node at most."""
_CHUNK = 65536
_MAX_CHUNKS = 16
"""Chunks of output that wait for a slow reader before the box has to wait."""
_TAIL = 4096
_CREDENTIALS = struct.Struct("3i")


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `shim.py` has to run, and the restrictions that it installs before."""

    argv: tuple[str, ...]
    code: str | None
    env: dict[str, str]
    chdir: str
    rlimits: dict[str, int]
    landlock: dict[str, tuple[str, ...]] | None
    notify_filter: str
    refuse_filter: str
    base_filter: str = ""
    unsandboxed: bool = False
    """There is no process namespace: the shim stays behind as the parent of the task's orphans."""


class _Reply(msgspec.Struct, frozen=True):
    """One message of the shim."""

    code: Reply
    detail: str = ""


class Box:
    """A started box: `ready()`, then at most one `begin()` and `output()`, then `close()`."""

    def __init__(self, launched: LaunchedBox, meter: Meter) -> None:
        """Take ownership of what the launcher started and of the meter that counts for it."""
        self._launched = launched
        self._process = launched.process
        self._link = launched.link
        self._link.setblocking(False)  # noqa: FBT003
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._first = -1
        self._shim = -1
        self._chunks: deque[Output] = deque()
        self._streams: dict[int, str] = {}
        self._paused: list[int] = []
        self._pidfds: dict[int, int] = {}
        self._listener: SeccompListener | None = None
        self._meter = meter
        self._timer: asyncio.TimerHandle | None = None
        self._limits = Limits()
        self._started_at = self._ended_at = time.monotonic()
        self._stdin = b""
        self._output_bytes = 0
        self._stderr_tail = b""
        self.stop: Stop | None = None
        self.reason = ""
        self._watch_process(self._process.pid)

    @property
    def scratch(self) -> str:
        """The task's folder on the host where there are no namespaces, else empty."""
        return self._launched.scratch

    @property
    def alive(self) -> bool:
        """Return whether the box still waits or runs."""
        return self._first in self._pidfds

    # -- handshake -----------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until the box waits for its request; raise `Unavailable` if it does not start."""
        try:
            async with asyncio.timeout(_START_S):
                reply, _, pid = await self._receive()
                if reply is None or reply.code is not Reply.ready:
                    raise Unavailable(f"The box did not start: {self._bwrap_error()}")
            # The kernel names the sender (SCM_CREDENTIALS), by its process id in our namespace:
            # nothing in the box could. Its parent is the first process of the box's namespace.
            self._shim = pid
            self._first = pid if self.scratch else parent(pid)
            if self._first not in self._pidfds:
                self._watch_process(self._first)
            # Before the request: the kernel may take 10 ms to move a process that has been idle
            # into a version 1 control group (it waits for an RCU grace period).
            self._meter.add(self._first, self._shim)
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box did not start: {error or 'no answer'}") from error

    async def begin(self, request: ExecRequest, limits: Limits, stdin: bytes) -> bool:
        """Send the request and start the clock; return whether refused calls are reported."""
        self._limits, self._stdin = limits, stdin
        try:
            self._meter.limit(limits)
            body = msgspec.json.encode(request)
            async with asyncio.timeout(_START_S):
                head = len(body).to_bytes(8, "big")
                await self._loop.sock_sendall(self._link, head + body)
                reply, fds, _ = await self._receive()
                if reply is None or reply.code not in {Reply.sealed, Reply.unreported}:
                    detail = reply.detail if reply is not None else self._bwrap_error()
                    raise Unavailable(f"The box could not be closed: {detail}")
                if fds:
                    self._listener = SeccompListener(
                        fds[0], platform.machine(), self._meter.may_fork
                    )
                self._read_streams()
                await self._loop.sock_sendall(self._link, START)
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box could not be closed: {error or 'no answer'}") from error
        self._link.close()
        self._started_at = time.monotonic()
        self._write_stdin()
        self._tick()
        return reply.code is Reply.sealed

    async def _receive(self) -> tuple[_Reply | None, list[int], int]:
        """Return one message of the shim with its descriptors and the sender's process id.

        The message is None if the box has ended. Each message fits into one read, because the
        shim waits for the node's answer before it sends the next.
        """
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
        try:
            return msgspec.json.decode(data, type=_Reply), fds, pid
        except msgspec.DecodeError:
            return None, fds, pid

    def _bwrap_error(self) -> str:
        """Return what bubblewrap wrote before it gave up, for people to read."""
        assert self._process.stderr is not None  # noqa: S101 - a pipe, see launch.py
        os.set_blocking(self._process.stderr.fileno(), False)
        text = self._process.stderr.read(_TAIL) or b""
        return text.decode(errors="replace").strip() or "it ended without a message"

    # -- run -----------------------------------------------------------------------------

    async def output(self) -> AsyncIterator[Output]:
        """Yield output as it arrives, until every process of the box has ended."""
        while self._chunks or self._streams or self._pidfds:
            if self._chunks:
                yield self._chunks.popleft()
                self._resume()
            elif self._pidfds:
                self._wake.clear()
                await self._wake.wait()
            else:
                self._drain()

    def ending(self, tier: Tier, visible: tuple[str, ...]) -> Ending:
        """Return the evidence of how the run ended; call it after `output` has finished."""
        return Ending(
            exit_code=self._process.wait() if self.stop is None else None,
            duration_s=self._ended_at - self._started_at,
            tier=tier,
            usage=self._meter.read(),
            stop=self.stop,
            reason=self.reason,
            refusals=self._listener.refusals() if self._listener else (),
            output_bytes=self._output_bytes,
            stderr_tail=self._stderr_tail.decode(errors="replace"),
            visible=visible,
        )

    def kill(self, stop: Stop, reason: str = "") -> None:
        """Kill all processes of the box now; the first reason counts, if the box still ran."""
        outer = self._pidfds.get(self._process.pid)
        if outer is not None and self.stop is None:
            self.stop, self.reason = stop, reason
        if outer is not None and (self._first < 0 or self.scratch):
            # Still starting: bubblewrap killed alone would leave its child waiting for it.
            # Without a process namespace nobody else kills the descendants.
            kill_descendants(self._process.pid)
        for pidfd in (self._pidfds.get(self._first), outer):
            if pidfd is not None:
                _signal(pidfd, signal.SIGKILL)

    async def close(self) -> tuple[str, ...]:
        """Kill what still runs, wait for its end, free everything; return the mounts to free."""
        if self._pidfds:
            self.kill(Status.killed)
        try:
            while self._pidfds:
                self._wake.clear()
                await self._wake.wait()
            while not self._meter.close():  # noqa: ASYNC110
                await asyncio.sleep(0.002)  # the kernel is still removing the last process
        finally:
            self._release()
        return self._launched.staged

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
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
        """Be called when a process ends; a pidfd, since a process id may be used again."""
        pidfd = os.pidfd_open(pid)
        self._pidfds[pid] = pidfd
        self._loop.add_reader(pidfd, self._process_ended, pid)

    def _process_ended(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if pid == self._process.pid:
            self._process.wait()
            self._ended_at = time.monotonic()
        self._wake.set()

    def _tick(self) -> None:
        """Compare the meter and the clock with the limits, while the program runs."""
        if self._process.pid not in self._pidfds:
            return  # only its output is left to read, however long the reader takes
        begin = time.monotonic()
        try:
            usage = self._meter.read()
        except (OSError, ValueError) as error:  # what cannot be measured cannot be limited
            self.kill(Status.killed, f"what it uses could not be measured: {error}")
            return
        now = time.monotonic()
        elapsed = now - self._started_at
        refused = self._listener.total if self._listener else 0
        stop = must_stop(usage, self._limits, elapsed, refused)
        if stop is not None:
            self.kill(stop)
            return
        pause = _KERNEL_TICK_S if usage.source is EvidenceSource.kernel else _SAMPLER_TICK_S
        pause = max(pause, _TICK_RATIO * (now - begin))  # many processes take long to read
        remaining = max(self._limits.wall_s - elapsed, 0.0)
        self._timer = self._loop.call_later(min(pause, remaining), self._tick)

    def _read_streams(self) -> None:
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert pipe is not None  # noqa: S101 - a pipe, see launch.py
            os.set_blocking(pipe.fileno(), False)
            self._streams[pipe.fileno()] = name
            self._loop.add_reader(pipe.fileno(), self._readable, pipe.fileno())

    def _readable(self, fd: int) -> bool:
        """Read once; return False if there was nothing to read."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
            del self._streams[fd]
        else:
            self._append(fd, data)
        self._wake.set()
        return True

    def _drain(self) -> None:
        """Read what remains after all processes have ended: the box cannot add to it any more."""
        for fd in [*self._streams]:
            if not self._readable(fd):  # a process that escaped the box holds the pipe open
                self._loop.remove_reader(fd)
                del self._streams[fd]

    def _append(self, fd: int, data: bytes) -> None:
        accepted = data[: max(self._limits.output_bytes - self._output_bytes, 0)]
        self._output_bytes += len(data)
        if accepted:
            stream = "stdout" if self._streams[fd] == "stdout" else "stderr"
            self._chunks.append(Output(stream, accepted))
            if stream == "stderr":
                self._stderr_tail = (self._stderr_tail + accepted)[-_TAIL:]
        if self._output_bytes > self._limits.output_bytes:
            self.kill(Status.output)
            self.stop = self.stop or Status.output  # it may have ended before this was read
        if len(self._chunks) >= _MAX_CHUNKS:
            self._loop.remove_reader(fd)
            self._paused.append(fd)

    def _resume(self) -> None:
        if self._paused and len(self._chunks) < _MAX_CHUNKS:
            for fd in self._paused:
                self._loop.add_reader(fd, self._readable, fd)
            self._paused.clear()

    def _write_stdin(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - a pipe, see launch.py
        os.set_blocking(pipe.fileno(), False)
        if self._write_some():
            self._loop.add_writer(pipe.fileno(), self._write_some)

    def _write_some(self) -> bool:
        """Write what the pipe accepts; return whether more remains."""
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
