"""What a kernel is given: a folder to work in, sockets, limits. Pure data."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from angelos.core.ids import PrincipalId
from angelos.core.messages import Limits
from angelos.core.network import NetworkRule
from angelos.node.broker.proxy import Report

UNLIMITED = 2**62
RULES = "angelos.toml"
RESERVED_FOLDERS = (".angelos", ".git")
PROTECTED = (RULES, *RESERVED_FOLDERS)
"""Names in a writable folder that stay read-only: rules of the repository, hooks of git."""


class KernelLimits(Limits, frozen=True, kw_only=True):
    """The limits of a kernel: memory and processes as for a task, time and output without end."""

    wall_s: float = float(UNLIMITED)
    cpu_s: float = float(sys.maxsize)
    memory_mb: int = 4096
    pids: int = 512
    output_bytes: int = UNLIMITED
    disk_mb: int = 1024

    def __post_init__(self) -> None:
        """Accept what has no end; the operator sets these limits, not a caller."""


@dataclass(frozen=True, slots=True)
class KernelNetwork:
    """What a kernel may reach of the network."""

    rules: tuple[NetworkRule, ...]
    by: PrincipalId
    name: str
    report: Report
    index: str = ""
    """The URL of the package index, if it may install packages for itself."""


@dataclass(frozen=True, slots=True)
class KernelOrder:
    """One kernel to be started."""

    argv: tuple[str, ...]
    folder: Path | None
    """The one folder that it may write in, at its own path; None: an empty one in memory."""
    sockets: Path
    """A folder of the host where it makes its sockets."""
    dialed: Path
    """A folder of the server alone, into which its sockets are linked."""
    names: tuple[str, ...]
    """Its sockets."""
    private: Path
    """A folder of the host with what this kernel alone may read: connection, token, API socket."""
    chdir: str = ""
    """Its working directory in the folder; the folder itself if empty."""
    env: dict[str, str] = field(default_factory=dict)
    read_only: tuple[Path, ...] = ()
    limits: KernelLimits = field(default_factory=KernelLimits)
    network: KernelNetwork | None = None
    """None: nothing."""


class KernelExit(msgspec.Struct, frozen=True, kw_only=True):
    """How a kernel ended."""

    code: int
    """As a shell reports it; -9 if it was ended from outside."""
    status: str
    words: str
    """For people."""
