"""The settings of a node: one small frozen struct for each part of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from angelos.node.broker.models import NetworkConfig

Role = Literal["execution", "labs"]


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How boxes are made."""

    allow_unsandboxed: bool = False
    """Run trusted code where no box can be made; every result then says tier `landlock|none`."""
    ready_boxes: int = 2
    """Boxes that at least wait for plain Python code; each holds about 12 MB. 0: none ever."""
    ready_mb: int = 192
    """What boxes that wait may hold: there are more of them while many programs come."""
    boxes: int = 256
    """Boxes that may be open at once, those started ahead left out; one more is `Busy`."""
    use_cgroups: bool = True
    """If false, the sampler counts even where control groups work."""
    scratch: Path | None = None
    """Where temporary folders are recorded, so that those of a killed node can be removed."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    name: str
    role: Role
    directory: Path
    slots: int = os.cpu_count() or 1
    """Tasks that run at the same time."""
    waiting: int = 256
    """Tasks that may wait for a slot; the next ends as `killed` with the code `busy`."""
    paused_mb: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 // (1 << 20)
    """What tasks of paused principals may keep; by default a quarter of the machine's memory."""
    about: dict[str, str] = {}
    """What the node says of its machine when it connects (`core/node_profile.py`)."""
    once: bool = False
    """End when a task has ended and no other runs: for batch systems."""
    metrics: str = ""
    """Where its metrics are served, `HOST:PORT`; nowhere if empty."""
    keep_checkouts: int = 4
    """Old revisions kept beside the current one, so that a rollback is quick."""
    sandbox: SandboxConfig = SandboxConfig()
    network: NetworkConfig = NetworkConfig()
    """What boxes reach by the broker, where their grants open something."""
    runtimes: Path = Path("/usr/local/share/angelos/runtimes")
    """Where `angelos runtime install` has put compilers and interpreters."""
