r"""A terminal for programs that draw the whole screen, left as it was whatever happens.

    with Terminal() as terminal:
        terminal.draw([ScreenLine("hello")])
        keys = terminal.keys            # an asyncio.Queue of names: "up", "enter", "q", ...

>>> list(parsed(b"\x1b[Aq\r\x1b"))
['up', 'q', 'enter', 'escape']
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from angelos.cli.top_screen import ScreenLine, Size

_ENTER, _LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[0m\x1b[?25h\x1b[?1049l"
"""The alternate screen and the cursor (xterm's DECSET 1049 and 25)."""
_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|.", re.DOTALL)
_MOST_KEYS = 64


def parsed(data: bytes) -> Iterator[str]:
    """Yield the names of the keys that a terminal has sent; unknown sequences are left out."""
    for key in _KEY.findall(data):
        name = _NAMES.get(key)
        if name is None and len(key) == 1 and 32 <= key[0] < 127:  # noqa: PLR2004 - ASCII, printable
            name = key.decode()
        if name is not None:
            yield name


class Terminal:
    """The terminal of standard input and output; inside the `with` it is ours."""

    def __init__(self) -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue(_MOST_KEYS)
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._before: list[Any] = []

    @property
    def size(self) -> Size:
        """Its present size."""
        columns, rows = shutil.get_terminal_size()
        return Size(rows, columns)

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._take()
        loop.add_reader(self._input, self._read)
        loop.add_signal_handler(signal.SIGWINCH, self._put, "resize")
        loop.add_signal_handler(signal.SIGTSTP, self._pause)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._input)
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_signal_handler(signal.SIGTSTP)
        self._give_back()

    def draw(self, lines: Sequence[ScreenLine]) -> None:
        """Show lines from the top; the rest of the screen is empty."""
        parts = [b"\x1b[H"]
        for index, line in enumerate(lines):
            shown = line.text.encode()
            parts.append(b"\x1b[7m" + shown + b"\x1b[0m" if line.chosen else shown)
            parts.append(b"\x1b[K" + (b"\r\n" if index < len(lines) - 1 else b""))
        parts.append(b"\x1b[J")
        self._write(b"".join(parts))

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        self._write(_ENTER)

    def _give_back(self) -> None:
        termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)
        self._write(_LEAVE)

    def _pause(self) -> None:
        """Give the terminal back while we are stopped (Ctrl-Z), and take it again afterwards."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._put("resize")

    def _read(self) -> None:
        data = os.read(self._input, 1024)
        if not data:  # the terminal has gone
            self._put("q")
        for key in parsed(data):
            self._put(key)

    def _put(self, key: str) -> None:
        if not self.keys.full():  # a key held down
            self.keys.put_nowait(key)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._output, data) :]
