"""A program in a pseudo-terminal, as a person has it before them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE_S = 60.0


class OnTerminal:
    """One run of `angelos ...` whose standard streams are a terminal of 24 by 120."""

    def __init__(self, *args: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "angelos", *args],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
        )  # fmt: skip
        self.raw = b""

    def until(self, pattern: str) -> str:
        """Return all that was written, once the pattern is in what came since the last call."""
        start, end = len(self.raw), time.monotonic() + _PATIENCE_S
        while not re.search(pattern, self.raw[start:].decode(errors="replace")):
            assert time.monotonic() < end, (pattern, self.raw[start:][-3000:])
            if select.select([self.master], [], [], 0.1)[0]:
                self.raw += os.read(self.master, 65536)
        return self.raw.decode(errors="replace")

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self.master, keys.encode())

    def ended(self) -> int:
        """Return the exit code, and keep the last that was written."""
        end = time.monotonic() + _PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end
            if select.select([self.master], [], [], 0.1)[0]:
                self.raw += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.raw += os.read(self.master, 65536)
        return self.process.returncode

    @property
    def clean(self) -> bool:
        """Whether the terminal is as it was: its modes, its screen, its cursor."""
        return (
            termios.tcgetattr(self.slave) == self.before
            and self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l")
            and self.raw.count(b"\x1b[?25l") == self.raw.count(b"\x1b[?25h")
        )


@contextmanager
def on_terminal(*args: str) -> Iterator[OnTerminal]:
    """Run it, and end it whatever happens."""
    program = OnTerminal(*args)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()
        os.close(program.master)
        os.close(program.slave)
