"""What goes into and out of a box: output with back pressure, input, and the report channel.

Each class owns one kind of descriptor and is served by callbacks of the event loop. Whatever
changes sets the `wake` event that the box's waiters share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import Literal

from angelos.core.errors import Conflict, TooLarge
from angelos.core.reports import MAX_REPORT_BYTES
from angelos.core.runs import Output
from angelos.core.sessions import MAX_STDIN_PIECE

StreamName = Literal["stdout", "stderr"]
_CHUNK = 65536
_MAX_CHUNKS = 16
"""Chunks of output that wait for a slow reader before the box has to wait."""
_END_OF_INPUT = b"\x04"


class OutputReader:
    """Reads the output of a box, as fast as it is taken, up to a number of bytes."""

    def __init__(self, wake: asyncio.Event, limit: int, exceeded: Callable[[], None]) -> None:
        """Call `exceeded` when more than `limit` bytes came; what is over is dropped."""
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._limit = limit
        self._exceeded = exceeded
        self._chunks: deque[Output] = deque()
        self._streams: dict[int, StreamName] = {}
        self._waiting: list[int] = []
        self.total = 0

    def open(self, fd: int, name: StreamName) -> None:
        """Read from a descriptor, which is owned from now on."""
        os.set_blocking(fd, False)
        self._streams[fd] = name
        self._loop.add_reader(fd, self._readable, fd)

    def take(self) -> Output | None:
        """Return the next piece of output, if one came."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        if self._waiting and len(self._chunks) < _MAX_CHUNKS:
            for fd in self._waiting:
                self._loop.add_reader(fd, self._readable, fd)
            self._waiting.clear()
        return chunk

    def finish(self) -> None:
        """Read what remains; the processes have ended, so a box cannot add to it any more."""
        self._waiting.clear()
        for fd in [*self._streams]:
            while fd in self._streams and self.total <= self._limit and self._readable(fd):
                continue
            if fd in self._streams:  # a process that escaped the box holds the pipe open
                self._close(fd)
        self._waiting.clear()

    def close(self) -> None:
        """Close what is still open."""
        self._waiting.clear()
        for fd in [*self._streams]:
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._streams[fd]
        os.close(fd)

    def _readable(self, fd: int) -> bool:
        """Read once; return False if there was nothing to read."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            self._append(fd, data)
        else:
            self._close(fd)
        self._wake.set()
        return True

    def _append(self, fd: int, data: bytes) -> None:
        accepted = data[: max(self._limit - self.total, 0)]
        self.total += len(data)
        if accepted:
            self._chunks.append(Output(self._streams[fd], accepted))
        if self.total > self._limit:
            self._exceeded()
        if len(self._chunks) >= _MAX_CHUNKS and fd not in self._waiting:
            self._loop.remove_reader(fd)
            self._waiting.append(fd)


class InputWriter:
    """Writes a program's input, as fast as it is read."""

    def __init__(self, fd: int, first: bytes, *, interactive: bool, terminal: bool) -> None:
        """Own a descriptor, write `first`, and close it then unless it is interactive."""
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._terminal = terminal
        self._interactive = interactive
        self._buffer = bytearray(first)
        self._closed = not interactive
        self._broken = False
        self._polled = False
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self._flush()

    async def write(self, data: bytes) -> bool:
        """Take one piece of input, when there is room; return False if nobody reads any more."""
        if not self._interactive:
            raise Conflict("The session is not interactive: its first input is all there is.")
        if len(data) > MAX_STDIN_PIECE:
            raise TooLarge(f"At most {MAX_STDIN_PIECE} bytes of input at once.")
        async with self._turn:  # asyncio's locks are given in the order in which they are asked for
            while len(self._buffer) >= MAX_STDIN_PIECE and not self._broken:
                self._room.clear()
                await self._room.wait()
            if self._broken:
                return False
            if self._closed:
                raise Conflict("The session's input was closed.")
            self._buffer += data
            self._flush()
            return not self._broken

    def end_input(self) -> None:
        """End the input after what was written; a terminal is typed Ctrl-D."""
        if not self._closed:
            self._closed = True
            if self._terminal:
                self._buffer += _END_OF_INPUT
            self._flush()

    def close(self) -> None:
        """Drop what was not read."""
        self._broken = True
        self._buffer.clear()
        self._room.set()
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        """Write what the program has room for; go on when it has more."""
        if self._broken:
            return
        try:
            while self._buffer:
                del self._buffer[: os.write(self._fd, self._buffer[:_CHUNK])]
        except BlockingIOError:
            if not self._polled:
                self._polled = True
                self._loop.add_writer(self._fd, self._flush)
        except OSError:  # EPIPE, EIO: nobody reads any more
            self.close()
            return
        if len(self._buffer) < MAX_STDIN_PIECE:
            self._room.set()
        if not self._buffer:
            if self._polled:
                self._polled = False
                self._loop.remove_writer(self._fd)
            if self._closed and not self._terminal:
                self.close()


class ReportReader:
    """Keeps what comes over a report channel; what is over a report's size is read and dropped."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor and read from it."""
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._kept = bytearray()
        self._loop.add_reader(fd, self._readable)

    @property
    def data(self) -> bytes:
        """What came; one byte over `MAX_REPORT_BYTES` where more came."""
        return bytes(self._kept)

    def finish(self) -> None:
        """Read what remains, once the box has ended, and close the channel."""
        with contextlib.suppress(BlockingIOError):
            while self._fd >= 0:
                self._read()
        self.close()

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            raise
        except OSError:  # ECONNRESET: it ended with something unread
            data = b""
        if not data:
            self.close()
        self._kept += data[: max(MAX_REPORT_BYTES + 1 - len(self._kept), 0)]
