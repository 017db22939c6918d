"""A sandbox without a box: programs are coroutines of the test, the promises are the real ones.

    async def echo(box: ScriptedBox) -> int:
        while line := await box.read():
            await box.write("stdout", line)
        return 0

    sandbox = ScriptedSandbox({"cat": echo})
    spec = SessionSpec(run=RunSpec(argv=("cat",), limits=Limits()))
    async with await sandbox.start(spec) as session:
        ...

A program is looked up by its source (`RunSpec.code`), else by the first word of `argv`. What it
returns is its exit code; what it leaves in `box.files` can be collected.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Literal, Self

from angelos.core.errors import Busy, Conflict, InvalidInput, TooLarge, Unavailable
from angelos.core.messages import Status, Tier
from angelos.core.paths import matches, safe_path
from angelos.core.reports import ReportEvent, RunReport, report_of, write_event
from angelos.core.runs import Exit, Output
from angelos.core.sessions import (
    MAX_STDIN_PIECE,
    Collected,
    CollectedFile,
    CollectLimits,
    NotCollected,
    NotCollectedReason,
    SessionSignal,
    SessionSpec,
    TerminalSize,
    check_patterns,
)
from angelos.core.task_files import DISPLAYS

Program = Callable[["ScriptedBox"], Awaitable[int]]
_BUFFERED = 16
_CODES = {SessionSignal.terminate: 143, SessionSignal.hangup: 129, SessionSignal.interrupt: 130}


class _Signalled(Exception):
    """The program did not catch a signal."""

    def __init__(self, signal: SessionSignal) -> None:
        self.signal = signal


class ScriptedBox:
    """What a scripted program sees of its box."""

    def __init__(self, spec: SessionSpec) -> None:
        self.spec = spec
        self.files: dict[str, bytes | NotCollectedReason] = {}
        """What lies in the writable folder; a reason stands for a link or a special file."""
        self.size = spec.terminal
        self.catches: set[SessionSignal] = set()
        """Signals that do not end it; they come by `next_signal`."""
        self.caught: deque[SessionSignal] = deque()
        self.report_bytes = b""
        self.stdin = bytearray(spec.run.stdin)
        self.stdin_open = spec.interactive
        self.buffer: deque[Output] = deque()
        self.written = 0
        self.paused = False
        self.ended = False
        self.changed = asyncio.Condition()

    async def read(self, most: int = 65_536) -> bytes:
        """Return input as it comes, empty at its end."""
        await self._until(lambda: bool(self.stdin) or not self.stdin_open)
        piece = bytes(self.stdin[:most])
        del self.stdin[:most]
        await self.notify()
        return piece

    async def write(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Write output; wait while the buffer is full."""
        await self._until(lambda: len(self.buffer) < _BUFFERED)
        room = self.spec.run.limits.output_bytes - self.written
        self.written += len(data)
        if data[: max(room, 0)]:
            stream = "stdout" if self.spec.terminal is not None else stream
            self.buffer.append(Output(stream, data[: max(room, 0)]))
        await self.notify()
        if len(data) > room:
            raise OutputLimit
        await asyncio.sleep(0)

    async def next_signal(self) -> SessionSignal:
        """Return the next signal that the program catches."""
        await self._until(lambda: bool(self.caught))
        return self.caught.popleft()

    async def report(self, event: ReportEvent | bytes) -> None:
        """Write to the report channel, if there is one."""
        if self.spec.report is None:
            raise OSError("There is no report channel.")
        self.report_bytes += event if isinstance(event, bytes) else write_event(event)

    async def forever(self) -> None:
        """Wait until something ends the program."""
        await self._until(lambda: False)

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: not self.paused and ready())

    async def notify(self) -> None:
        """Wake whoever waits for the box to change."""
        async with self.changed:
            self.changed.notify_all()


class OutputLimit(Exception):
    """The program wrote more than it may."""


class ScriptedSession:
    """`core.ports.SandboxSession` over a coroutine."""

    def __init__(self, sandbox: ScriptedSandbox, spec: SessionSpec, program: Program) -> None:
        self.tier = sandbox.tier
        self._sandbox = sandbox
        self._spec = spec
        self._box = ScriptedBox(spec)
        self._reading = False
        self._left = False
        self._killed: SessionSignal | None = None
        self._wall = asyncio.timeout(None)
        self._main = asyncio.create_task(self._run(program))
        self._started = asyncio.get_running_loop().time()
        self._paused_at = 0.0

    async def __aenter__(self) -> Self:
        """Return the session."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """End every process and remove the box."""
        await self.signal(SessionSignal.kill)
        await asyncio.wait({self._main})
        self._box.files.clear()
        self._left = True
        self._sandbox.open.discard(self)

    async def write_stdin(self, data: bytes) -> bool:
        """Give the program input."""
        box = self._box
        if not self._spec.interactive or not (box.stdin_open or box.ended):
            raise Conflict("The session's input is closed.")
        if len(data) > MAX_STDIN_PIECE:
            raise TooLarge(f"At most {MAX_STDIN_PIECE} bytes at once.")
        async with box.changed:
            await box.changed.wait_for(lambda: len(box.stdin) < MAX_STDIN_PIECE or box.ended)
        if box.ended:
            return False
        box.stdin += data
        await box.notify()
        return True

    async def close_stdin(self) -> None:
        """End the program's input."""
        self._box.stdin_open = False
        await self._box.notify()

    async def output(self) -> AsyncGenerator[Output, None]:
        """Yield what the program writes as it writes it."""
        if self._reading:
            raise Conflict("The session's output is being read already, or has been.")
        self._reading = True
        box = self._box
        while True:
            async with box.changed:
                await box.changed.wait_for(lambda: box.buffer or box.ended)
                if not box.buffer:
                    return
                piece = box.buffer.popleft()
                box.changed.notify_all()
            yield piece

    async def signal(self, signal: SessionSignal) -> None:
        """Send a signal; after the end, nothing happens."""
        box = self._box
        if box.ended:
            return
        if signal in box.catches:
            box.caught.append(signal)
            await box.notify()
            return
        if signal is not SessionSignal.kill:
            async with box.changed:
                await box.changed.wait_for(lambda: not box.paused or box.ended)
        self._killed = self._killed or signal
        self._main.cancel()
        await asyncio.sleep(0)

    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size."""
        if self._box.size is None:
            raise Conflict("The session has no terminal.")
        self._box.size = size
        await self._box.notify()

    async def pause(self) -> None:
        """Stop the program until `resume`."""
        if not self._box.paused:
            self._paused_at = asyncio.get_running_loop().time()
            self._box.paused = True
            self._reschedule()

    async def resume(self) -> None:
        """Let a paused session go on."""
        if self._box.paused:
            self._started += asyncio.get_running_loop().time() - self._paused_at
            self._box.paused = False
            self._reschedule()
            await self._box.notify()

    async def wait(self) -> Exit:
        """Return how the program ended."""
        return await asyncio.shield(self._main)

    async def collect(
        self,
        patterns: tuple[str, ...],
        limits: CollectLimits = CollectLimits(),  # noqa: B008 - it is frozen
    ) -> Collected:
        """Return files of the writable folder after the end."""
        if self._left:
            raise Unavailable("The session was left; its folder is gone.")
        if not self._box.ended:
            raise Conflict("The program has not ended.")
        check_patterns(patterns)
        files: list[CollectedFile] = []
        left_out: list[NotCollected] = []
        total = 0
        for path, content in sorted(self._box.files.items()):
            if not matches(path, patterns):
                continue
            reason = _not_collected(path, content, limits)
            if reason is None and isinstance(content, bytes):
                full = len(files) >= limits.files or total + len(content) > limits.total_bytes
                reason = NotCollectedReason.too_many if full else None
            if reason is not None or not isinstance(content, bytes):
                left_out.append(
                    NotCollected(path=path, reason=reason or NotCollectedReason.special)
                )
                continue
            total += len(content)
            digest = hashlib.sha256(content).hexdigest()
            files.append(CollectedFile(path=path, sha256=digest, content=content))
        return Collected(files=tuple(files), left_out=tuple(left_out))

    def listener(self) -> socket.socket:
        """Return none: no scripted program reaches the network."""
        raise Conflict("The session has no listener, or it was taken.")

    @property
    def displayed(self) -> bool:
        """Return whether the program has left rich output."""
        return any(path.startswith(f"{DISPLAYS}/") for path in self._box.files)

    async def report(self) -> RunReport:
        """Return what came over the report channel, after the end."""
        if self._spec.report is None:
            raise Conflict("The session has no report channel.")
        await self.wait()
        return report_of(self._spec.report, self._box.report_bytes)

    def _reschedule(self) -> None:
        until = self._started + self._spec.run.limits.wall_s
        if not self._box.ended and not self._wall.expired():
            self._wall.reschedule(None if self._box.paused else until)

    async def _run(self, program: Program) -> Exit:
        loop = asyncio.get_running_loop()
        status, code = Status.ok, None
        evidence: dict[str, object] = {"source": "exit"}
        try:
            async with self._wall:
                self._reschedule()
                code = await program(self._box)
                status = Status.ok if code == 0 else Status.error
        except TimeoutError:
            status, evidence["source"] = Status.timeout, "node"
        except OutputLimit:
            status, evidence["source"] = Status.output, "node"
        except asyncio.CancelledError:
            if self._killed is None:
                raise
            killed = self._killed is SessionSignal.kill
            status = Status.killed if killed else Status.error
            code = None if killed else _CODES[self._killed]
            evidence |= {"source": "node" if killed else "exit", "signal": self._killed.value}
        finally:
            self._box.ended = True
            self._box.paused = False
            await self._box.notify()
        return Exit(
            status=status,
            exit_code=code,
            duration_s=loop.time() - self._started,
            tier=self.tier,
            evidence=evidence,
        )


class ScriptedSandbox:
    """`core.ports.SessionSandbox` whose programs are coroutines."""

    def __init__(
        self, programs: Mapping[str, Program], *, tier: Tier = Tier.full, boxes: int = 8
    ) -> None:
        """Take the programs by their source or name, and how many may run at once."""
        self.tier = tier
        self.open: set[ScriptedSession] = set()
        self._programs = programs
        self._boxes = boxes

    async def start(self, spec: SessionSpec) -> ScriptedSession:
        """Start a program and return at once."""
        if spec.run.code is None and not spec.run.argv:
            raise InvalidInput("There is neither code nor a program to run.")
        if self.tier is Tier.none:
            raise Unavailable("No box can be made here.")
        if len(self.open) >= self._boxes:
            raise Busy(f"{self._boxes} boxes are open.", retry_after_s=1.0)
        name = spec.run.argv[0] if spec.run.code is None else spec.run.code
        session = ScriptedSession(self, spec, self._programs.get(name, _not_there))
        self.open.add(session)
        try:
            await asyncio.sleep(0)  # the program begins
        except asyncio.CancelledError:
            await session.__aexit__()
            raise
        return session


async def _not_there(box: ScriptedBox) -> int:
    await box.write("stderr", b"There is no such program.\n")
    return 127


def _not_collected(
    path: str, content: bytes | NotCollectedReason, limits: CollectLimits
) -> NotCollectedReason | None:
    try:
        safe_path(path)
    except InvalidInput:
        return NotCollectedReason.unsafe_name
    if isinstance(content, NotCollectedReason):
        return content
    return NotCollectedReason.too_large if len(content) > limits.file_bytes else None
