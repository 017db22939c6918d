"""One program in a box, as its user sees it: the real `core.ports.SandboxSession`."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from angelos.core.errors import Conflict, Unavailable
from angelos.core.messages import Status, Tier
from angelos.core.reports import RunReport, report_of
from angelos.core.runs import Exit, Output
from angelos.core.sessions import (
    Collected,
    CollectLimits,
    SessionSignal,
    SessionSpec,
    TerminalSize,
    check_patterns,
)
from angelos.node.sandbox.box import Box
from angelos.node.sandbox.collect import collect
from angelos.node.sandbox.verdict import judge

_NUMBERS = {
    SessionSignal.interrupt: signals.SIGINT,
    SessionSignal.terminate: signals.SIGTERM,
    SessionSignal.hangup: signals.SIGHUP,
}


class BoxSession:
    """A program that runs in a box; `async with` ends it and removes the box."""

    def __init__(
        self,
        box: Box,
        spec: SessionSpec,
        tier: Tier,
        leave: Callable[[Box], Awaitable[None]],
    ) -> None:
        """Take a box that has begun; `leave` closes it."""
        self.tier = tier
        self._box = box
        self._spec = spec
        self._leave = leave
        self._reading = False
        self._left = False
        self._exit: Exit | None = None

    async def __aenter__(self) -> Self:
        """Return the session, which runs already."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """End every process and remove the box."""
        self._left = True
        await self._leave(self._box)

    async def write_stdin(self, data: bytes) -> bool:
        """Give the program input; return False if it no longer reads."""
        return await self._box.write_stdin(data)

    async def close_stdin(self) -> None:
        """End the program's input."""
        self._box.close_stdin()

    async def output(self) -> AsyncIterator[Output]:
        """Yield what the program writes as it writes it."""
        if self._reading:
            raise Conflict("The session's output is being read already, or has been.")
        self._reading = True
        async for piece in self._box.output():
            yield piece

    async def signal(self, signal: SessionSignal) -> None:
        """Send a signal; after the end, nothing happens."""
        if signal is SessionSignal.kill:
            self._box.kill(Status.killed, "killed by whoever had started it")
        else:
            self._box.send_signal(_NUMBERS[signal])

    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size."""
        if self._spec.terminal is None:
            raise Conflict("The session has no terminal.")
        self._box.resize(size)

    async def pause(self) -> None:
        """Stop every process of the box until `resume`."""
        self._box.pause()

    async def resume(self) -> None:
        """Let a paused session go on."""
        self._box.resume()

    async def wait(self) -> Exit:
        """Return how the program ended."""
        ending = await self._box.wait()
        if self._exit is None:
            status, evidence = judge(ending, self._spec.run.limits)
            if not self._box.reported:
                evidence["unreported"] = (
                    "the kernel gave no listener: refused calls were not counted"
                )
            own_exit = status in {Status.ok, Status.error, Status.denied}
            self._exit = Exit(
                status=status,
                exit_code=ending.exit_code if own_exit else None,
                duration_s=ending.duration_s,
                tier=self.tier,
                evidence=evidence,
            )
        return self._exit

    async def collect(
        self,
        patterns: tuple[str, ...],
        limits: CollectLimits = CollectLimits(),  # noqa: B008 - it is frozen
    ) -> Collected:
        """Return files of the writable folder, or else of `/tmp`, after the end."""
        if self._left:
            raise Unavailable("The session was left; its folder is gone.")
        if not self._box.ended:
            raise Conflict("The program has not ended.")
        check_patterns(patterns)
        folder = self._box.duplicate_folder()
        return await asyncio.to_thread(_collect, folder, patterns, limits)

    @property
    def displayed(self) -> bool:
        """Return whether the program has left rich output below `/tmp`."""
        return not self._spec.writable and self._box.displayed

    def listener(self) -> socket.socket:
        """Return the socket that listens on the box's loopback, once; the caller closes it."""
        listener = self._box.take_listener()
        if listener is None:
            raise Conflict("The session has no listener, or it was taken.")
        return listener

    async def report(self) -> RunReport:
        """Return what came over the report channel, after the end."""
        if self._spec.report is None:
            raise Conflict("The session has no report channel.")
        await self._box.wait()
        return report_of(self._spec.report, self._box.report_data)


def _collect(folder: int, patterns: tuple[str, ...], limits: CollectLimits) -> Collected:
    try:
        return collect(folder, patterns, limits)
    finally:
        os.close(folder)
