"""One box, from its start to its last trace: handshake, run, limits, pause, kill, clean-up.

The event loop's callbacks read the output, serve the seccomp listener and read the meter. The box
starts no asyncio task, so a cancelled caller cannot leave one behind. Killing is one signal to the
first process of the box's process namespace: the kernel then kills all the others, whatever
sessions they made and signals they ignore, before that process itself ends (pid_namespaces(7)).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import marshal
import os
import platform
import signal
import socket
import stat
import struct
import termios
import time
from collections.abc import AsyncIterator
from enum import StrEnum

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Limits, Status
from angelos.core.runs import EvidenceSource, Output
from angelos.core.sessions import TerminalSize
from angelos.core.task_files import DISPLAYS
from angelos.node.sandbox.deadlines import Backstop
from angelos.node.sandbox.launch import LaunchedBox
from angelos.node.sandbox.models import Ending, Meter, Stop, Usage
from angelos.node.sandbox.proc import (
    continue_all,
    death_signal,
    first_child,
    kill_descendants,
    parent,
    stop_descendants,
    waited,
)
from angelos.node.sandbox.seccomp_notify import SeccompListener
from angelos.node.sandbox.shares import Reading
from angelos.node.sandbox.shim import FAILED, READY, SEALED, UNREPORTED
from angelos.node.sandbox.streams import InputWriter, OutputReader, ReportReader
from angelos.node.sandbox.verdict import MAX_PROBES, MAX_REFUSALS, must_stop

_START_S = 10.0
_KERNEL_TICK_S, _SAMPLER_TICK_S = 0.04, 0.01
_TICK_RATIO = 9
"""A tick is followed by nine times its own duration: one box takes a tenth of the node at most."""
_MESSAGE = 4096
_MAX_FDS = 8
_HEAD = 8
_CREDENTIALS = struct.Struct("3i")
_TIOCSIG = 0x40045436
"""Send a signal to the foreground of a terminal, from its master side (ioctl_tty(2))."""


class LandlockRules(msgspec.Struct, frozen=True, kw_only=True):
    """What Landlock lets the program do."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Folders, with all below, of which it may list the names."""
    linkless: tuple[str, ...] = ()
    """Folders in which it may write, and make no symbolic link."""
    tcp: bool = False
    """TCP is left to the network namespace."""


class BoxRules(msgspec.Struct, frozen=True, kw_only=True):
    """The restrictions that `shim.py` installs before it waits for what it has to run."""

    landlock: LandlockRules | None
    notify_filter: bytes
    refuse_filter: bytes
    base_filter: bytes = b""
    unsandboxed: bool = False
    """There is no process namespace: the shim stays behind as the parent of the task's orphans."""
    terminal: tuple[int, int] | None = None
    """Rows and columns of a terminal that replaces the three standard streams."""
    writable: str = ""
    """The folder of which the node wants a descriptor."""
    links: tuple[str, str] | None = None
    """A folder, and another in which links to each of its entries are made."""
    broker: bool = False
    """The node wants a socket that listens on the box's loopback."""


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `shim.py` has to run, and the limits of each process."""

    argv: tuple[str, ...]
    code: str | None
    env: dict[str, str]
    chdir: str
    rlimits: dict[str, int]
    packages: str = ""
    """A folder of Python packages."""


class BoxInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a program is given on its standard input and by its report channel."""

    stdin: bytes = b""
    interactive: bool = False
    report: bool = False


class Reply(StrEnum):
    """What the shim reports to the node."""

    ready = READY
    """It waits for its rules."""
    sealed = SEALED
    """All restrictions are in force; refused system calls are reported to the listener."""
    unreported = UNREPORTED
    """All restrictions are in force, but the kernel gave no listener."""
    failed = FAILED
    """A restriction could not be installed, so the task does not run."""


class _Reply(msgspec.Struct, frozen=True):
    """One message of the shim."""

    code: Reply
    detail: str = ""
    fds: tuple[str, ...] = ()
    """What each descriptor that came with it is."""


class Box:
    """A started box: `ready()`, `seal()`, at most one `begin()` and `output()`, `close()`."""

    def __init__(
        self, launched: LaunchedBox, meter: Meter, backstop: Backstop | None = None
    ) -> None:
        """Take ownership of what the launcher started and of the meter that counts for it.

        The `backstop` ends it at its wall limit where this process is stopped.
        """
        self._backstop = backstop
        self._number = backstop.number() if backstop is not None else 0
        self._launched = launched
        self._process = launched.process
        self._link = launched.link
        self._link.setblocking(False)  # noqa: FBT003
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._first = -1
        self._shim = -1
        self._program = -1
        self._pidfds: dict[int, int] = {}
        self._stopped: set[int] | None = None
        self._held: set[int] | None = None
        self._listener: SeccompListener | None = None
        self._meter = meter
        self._usage = Usage(source=EvidenceSource.node)
        self._timer: asyncio.TimerHandle | None = None
        self._limits = Limits()
        self._started_at = self._ended_at = time.monotonic()
        self._paused_at = self._paused_s = 0.0
        self._reader: OutputReader | None = None
        self._input: InputWriter | None = None
        self._report: ReportReader | None = None
        self._terminal: tuple[int, ...] = ()
        self._folder = self._proxy = -1
        self._memory_folders: list[int] = []
        self._ending: Ending | None = None
        self.stop: Stop | None = None
        self.reason = ""
        self.reported = False
        """Refused system calls are reported; settled by `seal`."""
        self.patient = False
        """Many refused calls do not end it: after a while they are no longer reported."""
        self._watch_process(self._process.pid)

    @property
    def scratch(self) -> str:
        """The task's folder on the host where there are no namespaces, else empty."""
        return self._launched.scratch

    @property
    def task(self) -> int:
        """The process id, on the host, of the program; -1 before the box is ready."""
        return self._shim

    @property
    def alive(self) -> bool:
        """Return whether the box still waits or runs."""
        return self._first in self._pidfds

    @property
    def ended(self) -> bool:
        """Return whether the program has run and every process of the box has ended."""
        return self._ending is not None

    def duplicate_folder(self) -> int:
        """Return a descriptor of the writable folder, or else of /tmp; the caller closes it."""
        if self.scratch:
            return os.open(self.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        return os.dup(self._folder)

    def take_listener(self) -> socket.socket | None:
        """Return the socket that listens on the box's loopback, once."""
        proxy, self._proxy = self._proxy, -1
        return socket.socket(fileno=proxy) if proxy >= 0 else None

    @property
    def displayed(self) -> bool:
        """Return whether the program has left rich output."""
        with contextlib.suppress(OSError):
            folder = self._folder if not self.scratch else None
            name = DISPLAYS if folder is not None else f"{self.scratch}/{DISPLAYS}"
            return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
        return False

    @property
    def report_data(self) -> bytes:
        """What came over the report channel."""
        return self._report.data if self._report is not None else b""

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
            self._program = os.pidfd_open(pid)
            # Before the request: the kernel may take 10 ms to move a process that has been idle
            # into a version 1 control group (it waits for an RCU grace period).
            self._meter.add(self._first, self._shim)
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box did not start: {error or 'no answer'}") from error

    async def seal(self, rules: BoxRules, limits: Limits) -> None:
        """Set the limits and have the box restrict itself; raise `Unavailable` if it cannot.

        What then waits in it for its request can neither see nor do more than the program will.
        """
        try:
            self._limit(limits)
            async with asyncio.timeout(_START_S):
                await self._loop.sock_sendall(self._link, _message(rules))
                reply, fds, _ = await self._receive()
                if reply is None or reply.code not in {Reply.sealed, Reply.unreported}:
                    detail = reply.detail if reply is not None else self._bwrap_error()
                    raise Unavailable(f"The box could not be closed: {detail}")
                self._adopt(dict(zip(reply.fds, fds, strict=True)))
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box could not be closed: {error or 'no answer'}") from error
        self.reported = reply.code is Reply.sealed

    async def begin(self, request: ExecRequest, limits: Limits, given: BoxInput) -> None:
        """Set the limits, send the request to a sealed box and start the clock."""
        try:
            if limits != self._limits:
                self._limit(limits)
            self._read_streams()
            self._arm(limits.wall_s)
            async with asyncio.timeout(_START_S):
                await self._send(_message(request), report=given.report)
        except (TimeoutError, OSError) as error:
            raise Unavailable(f"The box could not be started: {error or 'no answer'}") from error
        self._link.close()
        self._started_at = time.monotonic()
        self._write_stdin(given)
        self._tick()

    def _limit(self, limits: Limits) -> None:
        self._meter.limit(limits)
        self._limits = limits

    def _arm(self, seconds: float) -> None:
        if self._backstop is not None:
            # Without a process namespace the shim kills what is below it when it is asked to end.
            number = signal.SIGTERM if self.scratch else signal.SIGKILL
            self._backstop.arm(self._number, seconds, number, [*self._pidfds.values()])

    def _disarm(self) -> None:
        if self._backstop is not None:
            self._backstop.disarm(self._number)

    def _adopt(self, fds: dict[str, int]) -> None:
        """Take over the descriptors that the shim passed."""
        if "listener" in fds:
            self._listener = SeccompListener(
                fds["listener"],
                platform.machine(),
                self._meter.may_fork,
                lambda: self._usage.cpu_s,
            )
        self._folder = fds.get("writable", fds.get("tmp", -1))
        self._proxy = fds.get("proxy", -1)
        if "terminal" in fds:
            # Our own copy of the program's side keeps the terminal open until the box has ended.
            self._terminal = (fds["terminal"], fds["program side"])
        self._memory_folders = [fds[name] for name in ("tmp", "shm", "writable") if name in fds]
        self._meter.watch_folders(self._memory_folders)

    async def _send(self, message: bytes, *, report: bool) -> None:
        """Let the program begin; the shim holds the other end of the report channel then.

        A socket and not a pipe: a pipe could be opened again through /proc/PID/fd by any process
        of the same user.
        """
        if report:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.shutdown(socket.SHUT_WR)
                self._report = ReportReader(ours.detach())
                rights = array.array("i", [theirs.fileno()])
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                message = message[self._link.sendmsg([message[:_HEAD]], passed) :]
        await self._loop.sock_sendall(self._link, message)

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
        space = socket.CMSG_SPACE(4 * _MAX_FDS) + socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, _, _ = self._link.recvmsg(_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
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
        text = self._process.stderr.read(_MESSAGE) or b""
        return text.decode(errors="replace").strip() or "it ended without a message"

    # -- run -----------------------------------------------------------------------------

    async def output(self) -> AsyncIterator[Output]:
        """Yield output as it arrives, until every process of the box has ended."""
        assert self._reader is not None  # noqa: S101 - after begin()
        while True:
            if chunk := self._reader.take():
                yield chunk
            elif self._ending is not None:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def wait(self) -> Ending:
        """Return the evidence of how the run ended, once every process of the box has."""
        while self._ending is None:
            self._wake.clear()
            await self._wake.wait()
        return self._ending

    async def write_stdin(self, data: bytes) -> bool:
        """Give the program input; return False if it does not read any more."""
        assert self._input is not None  # noqa: S101 - after begin()
        return await self._input.write(data)

    def close_stdin(self) -> None:
        """End the program's input."""
        if self._input is not None:
            self._input.end_input()

    def send_signal(self, number: int) -> None:
        """Send a signal to the program, or SIGINT to the foreground of its terminal."""
        if self._ending is not None:
            return
        if number == signal.SIGINT and self._terminal:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal[0], _TIOCSIG, number)
            return
        if not self.scratch:
            _signal(self._program, number)
        elif child := first_child(self._shim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def resize(self, size: TerminalSize) -> None:
        """Set the size of the terminal."""
        if self._terminal:
            termios.tcsetwinsize(self._terminal[0], (size.rows, size.columns))

    def hold(self) -> None:
        """Stop every process for a moment in which others run; its clock goes on."""
        if self._stopped is None and self._held is None and self._ending is None:
            self._held = stop_descendants(self._first)

    def release(self) -> None:
        """Let the processes go on that were stopped by `hold`."""
        if self._held is not None:
            held, self._held = self._held, None
            continue_all(self._first, held)

    def reading(self) -> Reading | None:
        """Return what it has used and how long it has waited; None where nothing runs."""
        if self._reader is None or self._stopped is not None or self._ending is not None:
            return None
        return Reading(self._usage.cpu_s, waited(self._first))

    def pause(self) -> None:
        """Stop every process of the box; raise `Unavailable` if that cannot be done."""
        if self._stopped is not None or self._ending is not None:
            return
        self.release()
        stopped = stop_descendants(self._first)
        if stopped is None:
            raise Unavailable("The box could not be stopped as a whole; it runs on.")
        self._stopped = stopped
        self._paused_at = time.monotonic()
        self._disarm()
        if self._timer is not None:
            self._timer.cancel()

    def resume(self) -> None:
        """Let the processes go on that were stopped by `pause`."""
        if self._stopped is None:
            return
        stopped, self._stopped = self._stopped, None
        self._paused_s += time.monotonic() - self._paused_at
        elapsed = time.monotonic() - self._started_at - self._paused_s
        self._arm(max(self._limits.wall_s - elapsed, 0.0))
        continue_all(self._first, stopped)
        self._tick()

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
        self._disarm()
        if self._timer is not None:
            self._timer.cancel()
        for stream in (self._listener, self._reader, self._input, self._report):
            if stream is not None:
                stream.close()
        for fd in self._pidfds.values():
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pidfds.clear()
        for fd in {
            self._program,
            self._folder,
            self._proxy,
            *self._memory_folders,
            *self._terminal,
        } - {-1}:
            os.close(fd)
        self._program, self._folder, self._proxy, self._terminal = -1, -1, -1, ()
        self._memory_folders.clear()
        self._link.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
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
        if not self._pidfds and self._reader is not None:
            self._end()
        self._wake.set()

    def _end(self) -> None:
        """Read what is left of every stream, and keep the evidence of how the run ended."""
        assert self._reader is not None  # noqa: S101 - after begin()
        self._reader.finish()
        if self._report is not None:
            self._report.finish()
        if self._input is not None:
            self._input.close()
        if self._stopped is not None:
            self._paused_s += self._ended_at - self._paused_at
            self._stopped = None
        try:
            self._usage = self._meter.read()
        except (OSError, ValueError) as error:
            self.stop, self.reason = (
                Status.killed,
                f"what it used could not be measured: {error}",
            )
        duration_s = max(self._ended_at - self._started_at - self._paused_s, 0.0)
        if self.stop is None and self._process.returncode == -signal.SIGKILL:
            # Nobody here has killed it: the backstop has, while this process was stopped.
            self.stop = Status.timeout if duration_s >= self._limits.wall_s else None
        self._ending = Ending(
            exit_code=self._process.returncode if self.stop is None else None,
            duration_s=duration_s,
            usage=self._usage,
            stop=self.stop,
            reason=self.reason,
            refusals=self._listener.refusals() if self._listener else (),
            output_bytes=self._reader.total,
            signal=death_signal(self._program) if not self.scratch else None,
        )

    def _over_output(self) -> None:
        self.kill(Status.output)
        self.stop = self.stop or Status.output  # it may have ended before this was read

    def _tick(self) -> None:
        """Compare the meter and the clock with the limits, while the program runs."""
        if self._process.pid not in self._pidfds or self._stopped is not None:
            return  # only its output is left to read, however long the reader takes
        begin = time.monotonic()
        try:
            usage = self._usage = self._meter.read()
        except (
            OSError,
            ValueError,
        ) as error:  # what cannot be measured cannot be limited
            self.kill(Status.killed, f"what it uses could not be measured: {error}")
            return
        now = time.monotonic()
        elapsed = now - self._started_at - self._paused_s
        refused = self._listener.total if self._listener else 0
        probes = self._listener.probes if self._listener else 0
        if self.patient and (refused >= MAX_REFUSALS or probes >= MAX_PROBES):
            refused = probes = 0
            if usage.source is EvidenceSource.kernel and self._listener is not None:
                self._listener.close()  # the kernel refuses them by itself; forks are not asked for
        stop = must_stop(usage, self._limits, elapsed, refused, probes)
        if stop is not None:
            self.kill(stop)
            return
        pause = _KERNEL_TICK_S if usage.source is EvidenceSource.kernel else _SAMPLER_TICK_S
        pause = max(pause, _TICK_RATIO * (now - begin))  # many processes take long to read
        remaining = max(self._limits.wall_s - elapsed, 0.0)
        self._timer = self._loop.call_later(min(pause, remaining), self._tick)

    def _read_streams(self) -> None:
        self._reader = OutputReader(self._wake, self._limits.output_bytes, self._over_output)
        if self._terminal:
            self._reader.open(os.dup(self._terminal[0]), "stdout")
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None  # noqa: S101 - pipes, see launch.py
        assert stderr is not None  # noqa: S101
        self._reader.open(os.dup(stdout.fileno()), "stdout")
        self._reader.open(os.dup(stderr.fileno()), "stderr")
        stdout.close()
        stderr.close()

    def _write_stdin(self, given: BoxInput) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - a pipe, see launch.py
        fd = os.dup(self._terminal[0] if self._terminal else pipe.fileno())
        pipe.close()
        self._input = InputWriter(
            fd,
            given.stdin,
            interactive=given.interactive,
            terminal=bool(self._terminal),
        )


def _message(content: BoxRules | ExecRequest) -> bytes:
    """Return a message to the shim, which is the same Python: it need not import a parser."""
    body = marshal.dumps(msgspec.to_builtins(content, builtin_types=(bytes,)))
    return len(body).to_bytes(_HEAD, "big") + body


def _signal(pidfd: int, number: int) -> None:
    if pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
