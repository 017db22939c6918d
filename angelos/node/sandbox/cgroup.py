"""Limits by control groups, version 2 or 1 (cgroups(7)): a child group for each box.

`find(...)` tries by doing: it makes a child of the node's own group, sets limits on it and removes
it again; only if all of that works does it return a `Cgroups`. The name of a group carries the
owner's process id and start time, so that a later node can remove the groups of a killed one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from angelos.core.errors import Unavailable
from angelos.core.messages import Limits
from angelos.core.runs import EvidenceSource
from angelos.node.sandbox.models import Usage
from angelos.node.sandbox.proc import start_ticks
from angelos.node.sandbox.verdict import MIB

ROOT = Path("/sys/fs/cgroup")
_PREFIX, _LEAF = "angelos", "angelos-node"
_CONTROLLERS = ("memory", "pids", "cpuacct")
_SHARES, _WEIGHT = "768", "75"
"""Less than the stores, the server and the node have; between boxes all are equal, however many
processes and sessions each has (cpu.shares of version 1, cpu.weight of version 2)."""


def own_groups(text: str, root: Path = ROOT) -> tuple[int, dict[str, Path]]:
    """Return the version and controller -> folder of this process from `/proc/self/cgroup`."""
    rows = [line.split(":", 2) for line in text.splitlines()]
    named = {name: path for _, names, path in rows for name in names.split(",") if name}
    if all(name in named for name in _CONTROLLERS):
        folders = {name: _own_folder(root, rows, named, name) for name in _CONTROLLERS}
        cpu = _own_folder(root, rows, named, "cpu")
        if cpu.is_dir() and cpu != folders["cpuacct"]:
            folders["cpu"] = cpu
        return 1, folders
    unified = next((path for number, names, path in rows if number == "0" and not names), None)
    if unified is None:
        raise Unavailable("This process is in no control group.")
    # `find` has run before, in this process or its parent, and moved it to the leaf.
    return 2, {"unified": root / unified.removesuffix(f"/{_LEAF}").lstrip("/")}


def _own_folder(root: Path, rows: list[list[str]], named: dict[str, str], name: str) -> Path:
    """Return this process's folder of a version 1 controller."""
    joined = {row[1] for row in rows if name in row[1].split(",")}
    return _mounted(root, joined, name) / named.get(name, "").lstrip("/")


def _mounted(root: Path, joined: set[str], name: str) -> Path:
    """Return where a version 1 controller is mounted: `cpuacct`, or `cpu,cpuacct`."""
    return next((root / j for j in joined if (root / j).is_dir()), root / name)


class Group:
    """One child group: a `Meter` whose limits the kernel enforces."""

    def __init__(self, version: int, folders: Mapping[str, Path]) -> None:
        """Make the folders (one for version 2, one for each controller of version 1)."""
        self.version = version
        self._at = folders
        undo: list[Path] = []
        try:
            for folder in folders.values():
                folder.mkdir()
                undo.append(folder)
        except OSError:
            for folder in undo:
                folder.rmdir()
            raise

    def limit(self, limits: Limits) -> None:
        """Set the limits of memory (without swap) and of tasks.

        In version 2, `memory.oom.group` kills the whole box when it is out of memory; otherwise it
        would go on without one of its processes.
        """
        memory = str(limits.memory_mb * MIB)
        if self.version == 1:
            # In this order: memory with swap may never be limited below memory alone.
            self._write("memory", "memory.limit_in_bytes", memory)
            if (self._at["memory"] / "memory.memsw.limit_in_bytes").exists():
                self._write("memory", "memory.memsw.limit_in_bytes", memory)
            self._write("pids", "pids.max", str(limits.pids))
            self._weigh("cpu" if "cpu" in self._at else "cpuacct", "cpu.shares", _SHARES)
            return
        self._write("unified", "memory.max", memory)
        if (self._at["unified"] / "memory.swap.max").exists():
            self._write("unified", "memory.swap.max", "0")
        self._write("unified", "memory.oom.group", "1")
        self._write("unified", "pids.max", str(limits.pids))
        self._weigh("unified", "cpu.weight", _WEIGHT)

    def add(self, first: int, task: int) -> None:
        """Move the task's process into the group; the processes that it starts are born in it."""
        del first
        for name in self._at:
            self._write(name, "cgroup.procs", str(task))

    def watch_folders(self, folders: Sequence[int]) -> None:
        """Do nothing: the kernel counts the pages of file systems in memory for the group."""

    def may_fork(self) -> bool:
        """Return True: the kernel refuses by `pids.max`."""
        return True

    def read(self) -> Usage:
        """Return the kernel's counters."""
        if self.version == 1:
            return Usage(
                source=EvidenceSource.kernel,
                cpu_s=int(self._read("cpuacct", "cpuacct.usage")) / 1e9,
                memory_bytes=int(self._read("memory", "memory.max_usage_in_bytes")),
                oom_kills=_counter(self._read("memory", "memory.oom_control"), "oom_kill"),
                pids_refused=_counter(self._read("pids", "pids.events"), "max"),
            )
        peak = self._at["unified"] / "memory.peak"
        return Usage(
            source=EvidenceSource.kernel,
            cpu_s=_counter(self._read("unified", "cpu.stat"), "usage_usec") / 1e6,
            memory_bytes=int(peak.read_text()) if peak.exists() else 0,
            oom_kills=_counter(self._read("unified", "memory.events"), "oom_kill"),
            pids_refused=_counter(self._read("unified", "pids.events"), "max"),
        )

    def close(self) -> bool:
        """Kill all members and remove the folders; return False while a member is alive."""
        removed = True
        for folder in self._at.values():
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                removed = False
                _kill_members(folder)
        return removed

    def _write(self, name: str, file: str, text: str) -> None:
        (self._at[name] / file).write_text(text)

    def _weigh(self, name: str, file: str, weight: str) -> None:
        """Give the box its share of the processor, where the node may divide it."""
        if (self._at[name] / file).exists():
            self._write(name, file, weight)

    def _read(self, name: str, file: str) -> str:
        return (self._at[name] / file).read_text()


class Cgroups:
    """Makes groups below the node's own."""

    def __init__(self, version: int, parents: Mapping[str, Path]) -> None:
        """Make groups below `parents`: controller -> folder, as `own_groups` returns them."""
        self.version = version
        self._parents = dict(parents)
        self._owner = f"{_PREFIX}-{os.getpid()}-{start_ticks(os.getpid())}"
        self._numbers = itertools.count()

    def new(self) -> Group:
        """Return a new, empty, unlimited group."""
        name = f"{self._owner}-{next(self._numbers)}"
        return Group(self.version, {k: path / name for k, path in self._parents.items()})

    def sweep(self) -> int:
        """Remove the groups of dead nodes and kill their members; return how many there were."""
        swept = 0
        for parent in self._parents.values():
            for folder in parent.glob(f"{_PREFIX}-*-*-*"):
                _, pid, ticks, _ = folder.name.split("-")
                if start_ticks(int(pid)) == int(ticks):
                    continue
                with contextlib.suppress(OSError):
                    _kill_members(folder)
                    folder.rmdir()
                    swept += 1
        return swept


def find(root: Path = ROOT) -> Cgroups:
    """Return control groups that work; raise `Unavailable` with the reason if there are none."""
    try:
        version, folders = own_groups(Path("/proc/self/cgroup").read_text(), root)
        if version != 1:
            folders = {"unified": _limitable(folders["unified"], root)}
        groups = Cgroups(version, folders)
        groups.sweep()
        group = groups.new()
        try:
            group.limit(Limits())
            group.read()
        finally:
            group.close()
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"No control group can be made and limited here: {error}",
            hint="Run the node as root, or with `systemd-run --user --scope -p Delegate=yes`.",
        ) from error
    return groups


def _limitable(own: Path, root: Path) -> Path:
    """Return a version 2 group whose children can be limited.

    That is the node's own group, unless it has other members (a login session, `angelos up`): a
    group with processes may not have limited children (cgroups(7), "no internal processes"). The
    root group is the one exception, so root can still use that.
    """
    try:
        _delegate(own)
    except OSError:
        if os.geteuid() != 0 or own == root:
            raise
        _delegate(root)
        return root
    return own


def _delegate(folder: Path) -> None:
    """Let children of a version 2 group be limited; this process moves to a leaf for that."""
    control = folder / "cgroup.subtree_control"
    controllers = "+memory +pids"  # cpu.stat needs no cpu controller, which few systems delegate
    offered = folder / "cgroup.controllers"
    if offered.exists() and "cpu" in offered.read_text().split():
        controllers += " +cpu"
    try:
        control.write_text(controllers)
    except OSError:
        if (folder / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            raise
        leaf = folder / _LEAF
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text(controllers)


def _kill_members(folder: Path) -> None:
    """Kill the members of a group; a member that our process namespace cannot see reads as 0."""
    with contextlib.suppress(OSError):  # the group was removed meanwhile
        for pid in map(int, (folder / "cgroup.procs").read_text().split()):
            if pid > 0:  # kill(0) would kill our own process group
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _counter(text: str, name: str) -> int:
    rows = dict(line.split(None, 1) for line in text.splitlines() if " " in line)
    return int(rows.get(name, 0))
