"""Reads /proc (proc(5)): the descendants of a process and what they use; kills descendants."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from angelos.core.messages import Limits
from angelos.core.runs import EvidenceSource
from angelos.node.sandbox.models import Usage
from angelos.node.sandbox.verdict import MIB

_PROC = Path("/proc")
_INODE_BYTES = 1024
"""About what an inode of tmpfs with its name takes of the kernel's memory."""
_PIDFD_INFO_BYTES, _PIDFD_INFO_EXIT = 64, 1 << 3
_PIDFD_GET_INFO = 0xC000FF0B | _PIDFD_INFO_BYTES << 16
_SOCKET_BYTES = 212_992
"""The send buffer of a Unix socket (net.core.wmem_default)."""
_PIPE_BYTES, _SMALL_PIPE_BYTES, _LARGE_PIPES = 65_536, 8_192, 1024
"""A user's first thousand pipes have 16 pages, further ones two (pipe(7), pipe-user-pages-soft)."""
_FREE_BYTES = 16 * MIB
_FEW_DESCRIPTORS = 512
_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat, counted from 0 after the name (proc(5) counts from 1 before it).
_STATE, _PPID, _UTIME, _STIME, _CUTIME, _CSTIME, _NUM_THREADS, _STARTTIME = (
    0, 1, 11, 12, 13, 14, 17, 19
)  # fmt: skip


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none."""
    try:
        return int(_fields(pid)[_STARTTIME])
    except (OSError, IndexError):
        return 0


def parent(pid: int) -> int:
    """Return the parent's process id; raise `OSError` if there is no such process."""
    return int(_fields(pid)[_PPID])


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


def kill_descendants(root: int) -> None:
    """Kill all descendants of a process and leave that process stopped.

    A process with SIGKILL pending cannot fork, and the orphans of killed processes show in the
    next walk of the tree: a walk that shows no new process proves that none is left. The root is
    stopped first, because it could fork between two walks.
    """
    os.kill(root, signal.SIGSTOP)
    visited = {root}
    while new := {*tree(root)} - visited:
        visited |= new
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def first_child(pid: int) -> int:
    """Return the first child of a process, 0 if there is none."""
    try:
        children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def death_signal(pidfd: int) -> int | None:
    """Return the signal that ended a process, 0 if it ended by itself, None if unknown.

    The kernel keeps the status of a process that was reaped, for whoever holds a pidfd of it
    (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). An exit code of 137 proves nothing.
    """
    info = bytearray(_PIDFD_INFO_BYTES)
    struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = struct.unpack_from("Q", info)[0], struct.unpack_from("i", info, 60)[0]
    return os.WTERMSIG(status) if mask & _PIDFD_INFO_EXIT else None


def stop_descendants(root: int, rounds: int = 100) -> set[int] | None:
    """Stop all descendants of a process; return those that ran before, None if that failed.

    A process with a pending SIGSTOP cannot fork, so a walk that shows no new process proves that
    none is left, as in `kill_descendants`. Processes that were stopped already stay so.
    """
    running: set[int] = set()
    visited = {root}
    for _ in range(rounds):
        new = {*tree(root)} - visited
        if not new:
            return running
        visited |= new
        for pid in new:
            row = _row(pid)
            if row and row[_STATE] not in "TtZX":
                running.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
    continue_all(root, running)
    return None


def waited(root: int, most: int = 256) -> float:
    """Return for how many seconds a process and its descendants were ready and did not run.

    Of at most so many processes; a thread that is not its process's first does not count.
    """
    total = 0
    for pid in itertools.islice(tree(root), most):
        with contextlib.suppress(OSError, IndexError, ValueError):
            total += int((_PROC / str(pid) / "schedstat").read_text().split()[1])
    return total / 1e9


def continue_all(root: int, stopped: set[int]) -> None:
    """Let those descendants of a process go on that `stop_descendants` has stopped."""
    for pid in stopped & {*tree(root)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


class Sampler:
    """A `Meter` for machines without control groups: reads the process tree at every tick.

    In a process namespace every orphan becomes a child of the first process, so nothing leaves the
    tree. What a process used before it was reaped is in its parent's sums, unless the parent
    ignores SIGCHLD (getrusage(2)): for that case the last reading of each process is kept.
    """

    def __init__(self) -> None:
        self._first = 0
        self._own = 0
        self._limits = Limits()
        self._forks = self._refused = 0
        self._memory = self._tasks = 0
        self._cpu = 0.0
        self._alive_ticks: dict[tuple[int, str], int] = {}
        self._ended_ticks = 0
        self._folders: tuple[int, ...] = ()

    def limit(self, limits: Limits) -> None:
        """Remember the limits; `verdict.must_stop` compares the usage with them."""
        self._limits = limits

    def add(self, first: int, task: int) -> None:
        """Count all descendants of the box's first process, and itself if it is the task."""
        self._first = first
        self._own = int(first != task)

    def watch_folders(self, folders: Sequence[int]) -> None:
        """Count what lies in the box's file systems in memory, which no process maps."""
        self._folders = tuple(folders)

    def may_fork(self) -> bool:
        """Return whether the limit allows one more; the tree is read only where it might not."""
        self._forks += 1
        if self._forks < self._limits.pids or self._count(self._snapshot()) < self._limits.pids:
            return True
        self._refused += 1
        return False

    def read(self) -> Usage:
        """Read the tree once and return the highest values measured so far."""
        rows = self._snapshot()
        memory = sum(_resident(pid) for pid in rows)
        if memory > self._limits.memory_mb * MIB:  # shared pages were counted for each process
            memory = sum(_proportional(pid) for pid in rows)
        memory += sum(_used(folder) for folder in self._folders)
        memory += _page_tables(rows) + self._unmapped(rows)
        self._memory = max(self._memory, memory)
        self._tasks = max(self._tasks, self._count(rows))
        self._cpu = max(self._cpu, self._ticks(rows) / _TICKS)
        return Usage(
            source=EvidenceSource.sampler,
            cpu_s=self._cpu,
            memory_bytes=self._memory,
            tasks=self._tasks,
            pids_refused=self._refused,
        )

    def _unmapped(self, rows: dict[int, list[str]]) -> int:
        """Return the most that the box's sockets and pipes may hold, beyond a free allowance.

        No counter says what waits in them, so each counts with what it has room for; the filter
        refuses to enlarge one (`seccomp.watch_filter`).
        """
        sockets = _unix_sockets(self._first) * _SOCKET_BYTES
        pipes = min(pipe_count := _pipes(rows), _LARGE_PIPES) * _PIPE_BYTES
        pipes += max(pipe_count - _LARGE_PIPES, 0) * _SMALL_PIPE_BYTES
        return max(sockets + pipes - _FREE_BYTES, 0)

    def _ticks(self, rows: dict[int, list[str]]) -> int:
        """Return the processor time of all processes, alive and ended, in clock ticks."""
        now: dict[tuple[int, str], int] = {}
        reaped = 0
        for pid, fields in rows.items():
            now[pid, fields[_STARTTIME]] = int(fields[_UTIME]) + int(fields[_STIME])
            reaped += int(fields[_CUTIME]) + int(fields[_CSTIME])
        before = self._alive_ticks
        self._ended_ticks += sum(ticks for process, ticks in before.items() if process not in now)
        self._alive_ticks = now
        return sum(now.values()) + max(reaped, self._ended_ticks)

    def close(self) -> bool:
        """Return True: there is nothing to remove, and the launcher waits for the processes."""
        return True

    def _snapshot(self) -> dict[int, list[str]]:
        """Return the fields of every process that is alive in the box."""
        return {pid: fields for pid in tree(self._first) if (fields := _row(pid))}

    def _count(self, rows: dict[int, list[str]]) -> int:
        """Return the number of processes and threads, without bubblewrap's own."""
        return sum(int(fields[_NUM_THREADS]) for fields in rows.values()) - self._own


def _row(pid: int) -> list[str]:
    """Return the fields of a process, or an empty list if it has ended meanwhile."""
    try:
        return _fields(pid)
    except OSError:
        return []


def _resident(pid: int) -> int:
    """Return the bytes of memory that back no file; 0 for a process that has ended."""
    return _sum_kib(pid, "status", ("RssAnon:", "RssShmem:"))


def _proportional(pid: int) -> int:
    """Return the same, with shared pages divided among the processes that share them."""
    exact = _sum_kib(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
    return exact or _resident(pid)


def _page_tables(rows: dict[int, list[str]]) -> int:
    """Return the bytes of the page tables of all processes."""
    return sum(_sum_kib(pid, "status", ("VmPTE:",)) for pid in rows)


def _unix_sockets(first: int) -> int:
    """Return the number of Unix sockets in the network namespace of a box."""
    try:
        network = (_PROC / str(first) / "ns/net").stat()
        if network.st_ino == (_PROC / "self/ns/net").stat().st_ino:
            return 0  # without a namespace of its own they are the machine's
        lines = (_PROC / str(first) / "net/protocols").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[2]) for line in lines if line.startswith("UNIX"))


def _pipes(rows: dict[int, list[str]]) -> int:
    """Return the number of pipes; they are told apart only where there are many descriptors."""
    try:
        if sum((_PROC / str(pid) / "fd").stat().st_size for pid in rows) <= _FEW_DESCRIPTORS:
            return 0
    except OSError:
        pass
    pipes: set[str] = set()
    for pid in rows:
        with contextlib.suppress(OSError):
            for entry in os.scandir(_PROC / str(pid) / "fd"):
                with contextlib.suppress(OSError):
                    if (target := os.readlink(entry.path)).startswith("pipe:"):  # noqa: PTH115
                        pipes.add(target)
    return len(pipes)


def _used(folder: int) -> int:
    """Return the bytes and the inodes that a file system in memory holds, in bytes."""
    info = os.fstatvfs(folder)
    inodes = (info.f_files - info.f_ffree) * _INODE_BYTES
    return (info.f_blocks - info.f_bfree) * info.f_frsize + inodes


def _sum_kib(pid: int, file: str, names: tuple[str, ...]) -> int:
    try:
        text = (_PROC / str(pid) / file).read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(names))
