"""A run as data: what a sandbox is told, what comes out, how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from angelos.core.messages import Limits, Status, Tier


class EvidenceSource(StrEnum):
    """Which witness the status of a run rests on; `evidence["source"]` of every result."""

    kernel = "kernel"
    """Counters of a control group, or system calls that the kernel reported."""
    sampler = "sampler"
    """What the node has read in /proc, where there is no control group."""
    exit = "exit"
    """The program itself: its exit code and what it printed."""
    guard = "guard"
    """A language's guard, before anything started."""
    runner = "runner"
    """The report of a runner in a box of its own."""
    grant = "grant"
    """The grant that the command came with."""
    node = "node"
    """The node: its clock, its count of output, its own failure, or an order to stop."""
    silence = "silence"
    """Nobody: the node did not report in time, and control has given the task up."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox runs: a program, its input, read-only folders and limits."""

    argv: tuple[str, ...]
    """`python` as the first means the sandbox's own interpreter."""
    limits: Limits
    code: str | None = None
    """Python source to run in a fresh interpreter; `argv` are then its arguments."""
    stdin: bytes = b""
    env: dict[str, str] = {}
    read_only: dict[str, str] = {}
    """Path inside -> path on the host."""
    packages: str = ""
    """Path inside of a folder of Python packages, which come before the node's own."""
    chdir: str = "/tmp"  # noqa: S108 - the box's own tmpfs


class Output(msgspec.Struct, frozen=True):
    """A piece of a run's output, as it came."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    omitted: int = 0
    """Bytes of the stream that were left out right before it."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, with the evidence for the status."""

    status: Status
    exit_code: int | None
    duration_s: float
    tier: Tier
    evidence: dict[str, object] = {}
    """`source`, an `EvidenceSource`, and what that witness reports."""
