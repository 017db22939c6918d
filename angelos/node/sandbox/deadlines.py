"""The node's side of the backstop: a process that ends boxes when the node cannot."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

from angelos.core.errors import Unavailable

_PROGRAM = Path(__file__).with_name("backstop.py")
_END_S = 5.0


class Backstop:
    """One process for all boxes of a node; started with the first box."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def start(self) -> None:
        """Start the process, again if it was killed; raise `Unavailable` if that fails."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"The backstop of the boxes cannot be started: {error}") from error
        finally:
            theirs.close()
        self._link = ours

    def number(self) -> int:
        """Return a number for a box."""
        return next(self._numbers)

    def arm(self, box: int, seconds: float, number: int, pidfds: list[int]) -> None:
        """End a box by a signal after so many seconds, whatever becomes of this process.

        Raises:
            Unavailable: Nothing would end it, so it must not run.
        """
        self.start()
        try:
            self._send(box, seconds, number, pidfds)
        except OSError as error:
            raise Unavailable(f"The backstop of the boxes does not answer: {error}") from error

    def disarm(self, box: int) -> None:
        """Forget a box that has ended or is paused."""
        try:
            self._send(box, None, 0, [])
        except OSError:  # the process was killed: the next box starts another
            return

    def close(self) -> None:
        """End the process."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _send(self, box: int, seconds: float | None, number: int, pidfds: list[int]) -> None:
        if self._link is None:
            return
        order = json.dumps({"box": box, "seconds": seconds, "signal": number}).encode()
        socket.send_fds(self._link, [order], pidfds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
