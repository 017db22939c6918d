"""Reads /proc: who descends from whom, and what they use; ends what descends from a process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from angelos.core.messages import Limits
from angelos.node.sandbox.models import Usage
from angelos.node.sandbox.verdict import MIB

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none."""
    try:
        return int(_fields(pid)[19])
    except (OSError, IndexError):
        return 0


def parent(pid: int) -> int:
    """Return the parent's process id; raise `OSError` if there is no such process."""
    return int(_fields(pid)[1])


def tree(root: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        try:
            for task in (_PROC / str(pid) / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue


def end_descendants(root: int) -> None:
    """Kill everything below a process of ours, which is left stopped.

    A process with SIGKILL pending cannot fork, and the orphans of the killed are seen in the next
    look: when one shows nobody new, there is nobody left.
    """
    os.kill(root, signal.SIGSTOP)
    known = {root}
    while new := {*tree(root)} - known:
        known |= new
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


class Sampler:
    """A `Meter` for machines without control groups: looks at the tree every few milliseconds.

    In a process namespace every orphan becomes a child of its first process, so nothing leaves
    the tree. What a process used before it was reaped is in its parent's sums, unless that parent
    ignores SIGCHLD: for this, what was seen of each process is kept.
    """

    def __init__(self) -> None:
        """Start with no process."""
        self._first = 0
        self._own = 0
        self._limits = Limits()
        self._forks = self._refused = 0
        self._memory = self._tasks = 0
        self._cpu = 0.0
        self._seen: dict[tuple[int, str], int] = {}
        self._gone = 0

    def limit(self, limits: Limits) -> None:
        """Remember the limits; `state.must_stop` says when they are passed."""
        self._limits = limits

    def add(self, first: int, task: int) -> None:
        """Count everything below the box's first process, and that too if it is the task."""
        self._first = first
        self._own = int(first != task)

    def may_fork(self) -> bool:
        """Tell whether there is room; counts only once there might be none."""
        self._forks += 1
        if self._forks < self._limits.pids or self._count(self._look()) < self._limits.pids:
            return True
        self._refused += 1
        return False

    def read(self) -> Usage:
        """Look once, and return the highest values seen."""
        rows = self._look()
        memory = sum(_resident(pid) for pid in rows)
        if memory > self._limits.memory_mb * MIB:  # what children share was counted for each
            memory = sum(_proportional(pid) for pid in rows)
        self._memory = max(self._memory, memory)
        self._tasks = max(self._tasks, self._count(rows))
        self._cpu = max(self._cpu, self._ticks(rows) / _TICKS)
        return Usage(
            source="sampler",
            cpu_s=self._cpu,
            memory_bytes=self._memory,
            tasks=self._tasks,
            pids_refused=self._refused,
        )

    def _ticks(self, rows: dict[int, list[str]]) -> int:
        """Return the processor time of what lives and of what has lived, in clock ticks."""
        now: dict[tuple[int, str], int] = {}
        reaped = 0
        for pid, fields in rows.items():
            now[pid, fields[19]] = int(fields[11]) + int(fields[12])
            reaped += int(fields[13]) + int(fields[14])
        self._gone += sum(ticks for process, ticks in self._seen.items() if process not in now)
        self._seen = now
        return sum(now.values()) + max(reaped, self._gone)

    def close(self) -> bool:
        """There is nothing to take away; whoever started the processes waits for their end."""
        return True

    def _look(self) -> dict[int, list[str]]:
        """Return the fields of everything that lives in the box now."""
        return {pid: fields for pid in tree(self._first) if (fields := _row(pid))}

    def _count(self, rows: dict[int, list[str]]) -> int:
        """Return how many processes and threads there are, bubblewrap's own left out."""
        return sum(int(fields[17]) for fields in rows.values()) - self._own


def _row(pid: int) -> list[str]:
    """Return the fields of a process; none for one that has ended meanwhile."""
    try:
        return _fields(pid)
    except OSError:
        return []


def _resident(pid: int) -> int:
    """Return the bytes of memory that are not a file's; 0 for a process that has ended."""
    return _sum_kib(pid, "status", ("RssAnon:", "RssShmem:"))


def _proportional(pid: int) -> int:
    """Return the same with shared pages divided among their users."""
    exact = _sum_kib(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
    return exact or _resident(pid)


def _sum_kib(pid: int, file: str, names: tuple[str, ...]) -> int:
    try:
        text = (_PROC / str(pid) / file).read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(names))
