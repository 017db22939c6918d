"""Refuses the system calls that a box's filter reports, and counts them (seccomp_unotify(2)).

The answer is EPERM, so that a library which only probes for a network goes on; the count is the
kernel's own evidence that the attempt was made.

The listener never lets a refused call continue after looking at memory of the box: another thread
could change that memory in between. The only calls that it lets continue are forks, of which it
counts the number and reads nothing.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import struct
from collections import Counter
from collections.abc import Callable, Sequence

from angelos.core.system_calls import PROBED_CALLS
from angelos.node.sandbox.models import Refusal
from angelos.node.sandbox.seccomp import (
    argument_class,
    name_of,
    refusal_errno,
    starts_process,
)

_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp


class SeccompListener:
    """The listener of one box, served by the event loop."""

    def __init__(
        self, fd: int, machine: str, may_fork: Callable[[], bool], cpu_s: Callable[[], float]
    ) -> None:
        """Serve the listener with descriptor `fd`.

        Args:
            fd: The listener, owned from now on.
            machine: Whose system call table the numbers are of.
            may_fork: Asked for each new process.
            cpu_s: The processor time that the run has used until now.
        """
        self._cpu_s = cpu_s
        self._last_cpu_s: dict[tuple[str, str], float] = {}
        self._may_fork = may_fork
        self._fd = fd
        self._machine = machine
        self._refused: Counter[tuple[str, str]] = Counter()
        self.total = 0
        """Refused calls, without those with which runtimes look around."""
        self.probes = 0
        """Refused calls with which runtimes look around."""
        asyncio.get_running_loop().add_reader(fd, self._serve)

    def refusals(self) -> tuple[Refusal, ...]:
        """Return the calls that were refused until now."""
        return tuple(
            Refusal(*key, count, self._last_cpu_s[key])
            for key, count in sorted(self._refused.items())
        )

    def close(self) -> None:
        """Stop serving; further calls fail with ENOSYS, which the kernel answers itself."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _serve(self) -> None:
        """Answer one call: one for each turn of the loop, so that no box can keep it busy."""
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)
        events = ready.poll(0)
        if not events or not events[0][1] & select.POLLIN:
            if events:  # POLLHUP: the last process of the box has ended
                self.close()
            return
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._fd, _RECEIVE, notification)
        except OSError:  # ENOENT: the caller was killed meanwhile
            return
        identity, _, _, number, _, _, *args = _NOTIFICATION.unpack(notification)
        answer = bytearray(_ANSWER.pack(identity, 0, *self._decide(number, args)))
        try:
            fcntl.ioctl(self._fd, _SEND, answer)
        except OSError:
            return

    def _decide(self, number: int, arguments: Sequence[int]) -> tuple[int, int]:
        """Return the error and the flags of the answer to one call."""
        if starts_process(self._machine, number, arguments[0]):
            return (0, _CONTINUE) if self._may_fork() else (-errno.EAGAIN, 0)
        call = name_of(self._machine, number)
        key = call, argument_class(call, arguments)
        self._refused[key] += 1
        self._last_cpu_s[key] = self._cpu_s()
        if call in PROBED_CALLS:
            self.probes += 1
        else:
            self.total += 1
        return -refusal_errno(call, arguments[0] & 0xFFFFFFFF), 0
