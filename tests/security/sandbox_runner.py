"""Runs attacks in one sandbox and prints what came of them; started by the tests as some user.

python tests/security/sandbox_runner.py root|nobody auto|sampler [FOLDER]
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

MS_BIND, MS_REC, MS_PRIVATE, NEWNS = 4096, 16384, 1 << 18, 0x20000


def become_nobody() -> None:
    """Drop root, keeping this interpreter reachable even if it lies below a closed folder."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        done = libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())
        assert done == 0, (target, os.strerror(ctypes.get_errno()))

    assert libc.unshare(NEWNS) == 0
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    for prefix in {os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix)}:
        closed = [p for p in reversed(Path(prefix).parents) if not p.stat().st_mode & 0o1]
        if closed:
            held = tempfile.mkdtemp(dir="/tmp")
            Path(held).chmod(0o755)
            mount(prefix, held, "none", MS_BIND | MS_REC)
            mount("tmpfs", str(closed[0]), "tmpfs", 0, "mode=755")
            Path(prefix).mkdir(parents=True)
            mount(held, prefix, "none", MS_BIND | MS_REC)
            libc.umount2(held.encode(), 2)
            Path(held).rmdir()
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    libc.prctl(4, 1, 0, 0, 0)  # dumpable again, as after an exec


async def run_all(how: str) -> dict[str, Any]:
    from sandbox_attacks import ATTACKS, HONEST

    from angelos.core.run_session import run_session
    from angelos.core.runs import Output, RunSpec
    from angelos.node.config import SandboxConfig
    from angelos.node.sandbox.sandbox import BubblewrapSandbox

    results: dict[str, Any] = {}
    async with BubblewrapSandbox(SandboxConfig(use_cgroups=how == "auto")) as sandbox:
        results["tier"], results["reasons"] = sandbox.tier, sandbox.reasons
        for attack in (*ATTACKS, *HONEST):
            spec = RunSpec(argv=(), code=attack.code, limits=attack.limits)
            printed = b""
            async for event in run_session(sandbox, spec):
                if isinstance(event, Output):
                    printed += event.data
                else:
                    results[attack.name] = {
                        "status": event.status,
                        "exit_code": event.exit_code,
                        "evidence": event.evidence,
                        "printed": printed.decode(errors="replace")[-20_000:],
                        "bytes": len(printed),
                    }
    return results


def left_over() -> dict[str, Any]:
    """Return what this process has left on the machine."""
    from angelos.node.sandbox.proc import start_ticks, tree

    results: dict[str, Any] = {}
    results["processes left"] = [pid for pid in tree(os.getpid()) if pid != os.getpid()]
    pattern = f"angelos-{os.getpid()}-{start_ticks(os.getpid())}-*"
    results["groups left"] = [str(path) for path in Path("/sys/fs/cgroup").rglob(pattern)]
    return results


if __name__ == "__main__":
    if sys.argv[1] == "nobody" and os.geteuid() == 0:
        become_nobody()
    sys.stdout.write(json.dumps(asyncio.run(run_all(sys.argv[2])) | left_over()))
