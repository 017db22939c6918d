"""Writes the seccomp profile of a container that runs a node, instead of `seccomp=unconfined`.

    python -m tools.container_profile            # angelos/node/sandbox/data/container-seccomp.json

It is Docker's default list as `seccomp.json` has it, and of what is refused inside a box only the
calls by which a box is made: namespaces, mounts, and giving up privileges.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "angelos/node/sandbox/data"
FILE = DATA / "container-seccomp.json"
MAKES_BOXES = frozenset(
    """chroot mount umount2 pivot_root unshare setns sethostname setuid setgid setreuid setregid
    setresuid setresgid setgroups setfsuid setfsgid open_tree move_mount mount_setattr""".split()  # noqa: SIM905
)
ENOSYS = 38


def profile() -> dict[str, Any]:
    """Return the profile in Docker's format."""
    table = json.loads((DATA / "seccomp.json").read_text(encoding="utf-8"))
    arches = [value for value in table.values() if isinstance(value, dict)]
    allowed = {name for arch in arches for group in ("allow", "checked") for name in arch[group]}
    missing = {name for arch in arches for name in arch["missing"]}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": sorted(allowed | MAKES_BOXES), "action": "SCMP_ACT_ALLOW"},
            {"names": sorted(missing), "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        ],
    }


def rendered() -> str:
    """Return the file's text."""
    return json.dumps(profile(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
    sys.exit(0)
