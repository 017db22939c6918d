"""What the node measures of a run and how it ended: plain values for `verdict.py`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from angelos.core.messages import Limits, Status
from angelos.core.runs import EvidenceSource

Stop = Literal[
    Status.timeout, Status.cpu, Status.oom, Status.pids, Status.output, Status.denied, Status.killed
]
"""Why the node itself ended a run."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has used so far."""

    source: Literal[EvidenceSource.kernel, EvidenceSource.sampler, EvidenceSource.node]
    """The node, where nothing could be measured."""
    cpu_s: float = 0.0
    memory_bytes: int = 0
    """The highest value measured."""
    tasks: int = 0
    """The highest number of processes and threads; 0 where the kernel counts only refusals."""
    oom_kills: int = 0
    pids_refused: int = 0


class Meter(Protocol):
    """Counts what the processes of one box use, and limits it where the kernel can."""

    def limit(self, limits: Limits) -> None:
        """Set the limits that the kernel enforces."""
        ...

    def add(self, first: int, task: int) -> None:
        """Count the process `task` and all that it starts; orphans go to the box's `first`."""
        ...

    def watch_folders(self, folders: Sequence[int]) -> None:
        """Count also what lies in these file systems in memory; the descriptors stay the box's."""
        ...

    def may_fork(self) -> bool:
        """Return whether one more process or thread may start; asked only without a cgroup."""
        ...

    def read(self) -> Usage:
        """Return what was used until now."""
        ...

    def close(self) -> bool:
        """Forget the run; return False if a process of it is still alive (call again)."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of system call that was refused, and how often."""

    call: str
    argument: str
    """Of which kind, by its arguments, such as AF_INET for a socket; empty for most calls."""
    count: int
    cpu_s: float = 0.0
    """The processor time that the run had used when it was made for the last time."""


@dataclass(frozen=True, slots=True)
class Ending:
    """All the evidence of how a run ended."""

    exit_code: int | None
    """As a shell reports it: 128 + n for signal n. None when the node ended the run."""
    duration_s: float
    """Without the time for which it was paused."""
    usage: Usage
    stop: Stop | None = None
    reason: str = ""
    """Why it was stopped, where `stop` does not say it all."""
    refusals: tuple[Refusal, ...] = ()
    output_bytes: int = 0
    signal: int | None = None
    """The signal that ended the program, 0 for none, where the kernel tells (Linux 6.15)."""
