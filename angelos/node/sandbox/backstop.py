"""Ends boxes at their wall limit although their node is stopped: a process beside the node.

The node's own timer ends a box in time as long as the node runs. A node that is stopped (SIGSTOP, a
debugger) or hangs keeps no time, so it starts this program once, and gives it a descriptor of each
box's first process with the seconds that the box has left. It kills what is still there some
seconds after that, and everything when the node is gone. It is in a session of its own, so that a
signal to the node's process group does not reach it, and knows nothing but process descriptors:

    node                                     backstop
     | {"box": 7, "seconds": 30, "signal": 9} |   SCM_RIGHTS: pidfds of the box
     | {"box": 7, "seconds": null, ...} ----> |   it has ended, or is paused

It uses only the standard library and runs as `python -I -S backstop.py FD`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time

GRACE_S = 2.0
"""How long after its limit a box is left to its node."""
_MESSAGE = 256
_MAX_FDS = 4


class Deadlines:
    """The boxes that run, by their number: what they are killed by, and when."""

    def __init__(self) -> None:
        self._boxes: dict[int, tuple[float, int, list[int]]] = {}

    def set(self, box: int, deadline: float, number: int, pidfds: list[int]) -> None:
        """Set, or set anew, when a box has to end and by which signal."""
        self.drop(box)
        self._boxes[box] = deadline, number, pidfds

    def drop(self, box: int) -> None:
        """Forget a box."""
        for pidfd in self._boxes.pop(box, (0.0, 0, []))[2]:
            os.close(pidfd)

    def wait_s(self, now: float) -> float | None:
        """Return how long nothing is due; None if there is no box."""
        soonest = min((deadline for deadline, _, _ in self._boxes.values()), default=None)
        return None if soonest is None else max(soonest - now, 0.0)

    def end_due(self, now: float) -> None:
        """Kill the boxes whose time is over."""
        for box, (deadline, number, pidfds) in list(self._boxes.items()):
            if deadline <= now:
                for pidfd in pidfds:
                    try:
                        signal.pidfd_send_signal(pidfd, number)
                    except OSError:  # it has ended
                        continue
                self.drop(box)


def serve(link: socket.socket) -> None:
    """Take orders until the node is gone, and end every box then."""
    deadlines = Deadlines()
    while True:
        readable, _, _ = select.select([link], [], [], deadlines.wait_s(time.monotonic()))
        if readable:
            data, fds, _, _ = socket.recv_fds(link, _MESSAGE, _MAX_FDS)
            if not data:
                deadlines.end_due(float("inf"))
                return
            order = json.loads(data)
            if order["seconds"] is None:
                deadlines.drop(order["box"])
            else:
                deadline = time.monotonic() + order["seconds"] + GRACE_S
                deadlines.set(order["box"], deadline, order["signal"], list(fds))
        deadlines.end_due(time.monotonic())


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its node
    serve(socket.socket(fileno=int(sys.argv[1])))
