r"""Measures how busy a node and its machine are, from /proc.

    meter = LoadMeter(directory)
    meter.measure(SlotUsage(slots=4, busy=1, waiting=0), BoxCount(ready=2, open=1))   # a NodeLoad

The share of the processors is that of the time since the last measurement.

>>> cpu_times("cpu  10 0 10 70 10 0 0 0 0 0")
CpuTimes(busy=20, total=100)
>>> memory_used("MemTotal:  1000 kB\nMemAvailable:  400 kB")
614400
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from angelos.core.facts import NodeLoad

REPORT_EVERY_S = 5.0
_IDLE, _IOWAIT = 3, 4
"""Columns of /proc/stat, proc_stat(5)."""
_COUNTED = 8
"""The columns after these, of guests, are in the first ones already."""
_MEMORY = re.compile(r"^(MemTotal|MemAvailable): +([0-9]+) kB$", re.MULTILINE)


class CpuTimes(NamedTuple):
    """Ticks of all processors since the machine started."""

    busy: int
    total: int


class SlotUsage(NamedTuple):
    """How many tasks run on a node and wait there for a slot."""

    slots: int
    busy: int
    waiting: int


class BoxCount(NamedTuple):
    """How many boxes were started ahead, and in how many a program is."""

    ready: int = 0
    open: int = 0


class LoadMeter:
    """Measures one node.

    Args:
        directory: Of the node, on the disk that is looked at.
        proc: Where the proc file system is.
    """

    def __init__(self, directory: Path, proc: Path = Path("/proc")) -> None:
        self._directory = directory
        self._proc = proc
        self._last = cpu_times(self._read("stat"))

    def measure(self, slot_usage: SlotUsage, boxes: BoxCount) -> NodeLoad:
        """Return the present load."""
        now = cpu_times(self._read("stat"))
        total = now.total - self._last.total
        busy = (now.busy - self._last.busy) / total if total > 0 else 0.0
        self._last = now
        return NodeLoad(
            cpu=round(min(max(busy, 0.0), 1.0), 4),
            memory_bytes=memory_used(self._read("meminfo")),
            resident_bytes=resident_bytes(self._proc),
            disk_free_bytes=self._disk_free(),
            slots=slot_usage.slots,
            slots_busy=slot_usage.busy,
            slots_waiting=slot_usage.waiting,
            boxes_ready=boxes.ready,
            boxes_open=boxes.open,
        )

    def _disk_free(self) -> int:
        try:
            return shutil.disk_usage(self._directory).free
        except OSError:
            return 0

    def _read(self, name: str) -> str:
        return _text(self._proc / name)


def resident_bytes(proc: Path = Path("/proc")) -> int:
    """Return the memory of this process; 0 if it cannot be read."""
    pages = _text(proc / "self/statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def cpu_times(stat: str) -> CpuTimes:
    """Return the processors' times in the text of /proc/stat; zeros if it has none."""
    line = stat.partition("\n")[0].split()
    if not line or line[0] != "cpu":
        return CpuTimes(0, 0)
    ticks = [int(word) for word in line[1 : _COUNTED + 1] if word.isdecimal()]
    total = sum(ticks)
    idle = sum(ticks[_IDLE : _IOWAIT + 1])
    return CpuTimes(total - idle, total)


def memory_used(meminfo: str) -> int:
    """Return the used bytes in the text of /proc/meminfo; 0 if it does not say."""
    sizes = {name: int(number) for name, number in _MEMORY.findall(meminfo)}
    if len(sizes) < 2:  # noqa: PLR2004 - both
        return 0
    return max(0, sizes["MemTotal"] - sizes["MemAvailable"]) * 1024
