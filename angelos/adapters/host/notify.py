"""Signs of life over a Unix socket, as systemd's `sd_notify(3)` has them.

A process whose event loop runs sends `WATCHDOG=1` every second to the socket in `NOTIFY_SOCKET`;
`angelos up` listens there, and so does systemd (`Type=notify`, `WatchdogSec=`). The kernel names
the sender (SCM_CREDENTIALS), so nobody can vouch for another.

    async with SignsOfLife(runtime / "notify") as signs:
        signs.last(pid)                                 # monotonic seconds, None before the first
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from angelos.core.errors import Unavailable

log = logging.getLogger(__name__)
EVERY_S = 1.0
_CREDENTIALS = struct.Struct("3i")
_MOST_PROCESSES = 1024
_DATAGRAM = 4096


def notify(address: str, state: str) -> None:
    """Send one datagram; one that cannot be delivered is dropped: the next follows soon."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link,
    ):
        link.connect(target)
        link.send(state.encode())


async def give_signs(address: str) -> None:
    """Give a sign of life every second, for ever: it shows that the event loop runs."""
    notify(address, "READY=1")
    while True:
        notify(address, "WATCHDOG=1")
        await asyncio.sleep(EVERY_S)


class SignsOfLife:
    """The socket that processes give their signs to.

    Args:
        path: where it lies, in a private directory.
        clock: monotonic seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._socket: socket.socket | None = None
        self._last: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Listen; again, at a path that was removed. Raises `Unavailable`."""
        self.close()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.path.unlink(missing_ok=True)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            link.bind(str(self.path))
        except OSError as error:
            link.close()
            raise Unavailable(f"{self.path} cannot be listened at: {error}") from error
        self._socket = link
        asyncio.get_running_loop().add_reader(link, self._read, link)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        link, self._socket = self._socket, None
        if link is not None:
            asyncio.get_running_loop().remove_reader(link)
            link.close()

    def last(self, pid: int) -> float | None:
        """Return when a process gave its last sign, in monotonic seconds."""
        return self._last.get(pid)

    def forget(self, pid: int) -> None:
        """Forget a process that has ended; its id may be used again."""
        self._last.pop(pid, None)

    def _read(self, link: socket.socket) -> None:
        try:
            data, ancillary, _, _ = link.recvmsg(_DATAGRAM, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:  # nothing there after all
            return
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = _CREDENTIALS.unpack(body[: _CREDENTIALS.size])[0]
                known = pid in self._last or len(self._last) < _MOST_PROCESSES
                if known and b"WATCHDOG=1" in data.split(b"\n"):
                    self._last[pid] = self._clock()
