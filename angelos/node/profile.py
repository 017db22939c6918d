"""Finds out what a node says of its machine.

describe(folder, ("big",))     # NodeProfile(version="0.1.0", cores=16, ...)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from angelos import __version__
from angelos.core.node_profile import NodeProfile
from angelos.node.runtimes.definitions import definitions
from angelos.node.runtimes.finder import Missing, find

_NVIDIA = Path("/proc/driver/nvidia/gpus")


def describe(runtimes: Path, labels: Sequence[str] = ()) -> NodeProfile:
    """Return what this machine has.

    Args:
        runtimes: Where `angelos runtime install` puts what it brings.
        labels: By which tasks are routed.
    """
    ready = [
        language
        for language, definition in definitions().items()
        if not isinstance(find(definition, runtimes), Missing)
    ]
    return NodeProfile(
        version=__version__,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_gpus(),
        languages=("python", *sorted(ready)),
        labels=tuple(labels),
    )


def _gpus(folder: Path = _NVIDIA) -> tuple[str, ...]:
    """Return the models of the GPUs that NVIDIA's driver lists."""
    models: list[str] = []
    for file in sorted(folder.glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        models += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(models)
