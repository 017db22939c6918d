"""Finds out what isolation this machine gives, by launching a real sandbox: `angelos doctor`.

report = await probe()
report.tier      # Tier.full
report.reasons   # why it is not more, in sentences
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from angelos.core.errors import AngelError, Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import cgroup, seccomp
from angelos.node.sandbox.launch import find_bwrap
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.sandbox.unsandboxed import landlock_abi

_USERNS = Path("/proc/sys/user/max_user_namespaces")
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_NETWORK = "import socket\nsocket.socket()\n"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The tier in force here, why it is not higher, and everything that was looked at."""

    tier: Tier
    reasons: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


async def probe(config: SandboxConfig | None = None) -> ProbeReport:
    """Launch a sandbox, run honest and forbidden code in it, and report."""
    checks = [_kernel(), _bwrap(), _user_namespaces(), _landlock(), _seccomp(), _cgroups()]
    async with BubblewrapSandbox(config or SandboxConfig(ready_boxes=0)) as sandbox:
        boxed = sandbox.tier in {Tier.full, Tier.reduced}
        detail = "a program ran in a box" if boxed else "; ".join(sandbox.reasons)
        checks.append(Check("sandbox", boxed, detail, "" if boxed else _hint()))
        if boxed:
            checks.append(await _forbidden(sandbox))
        return ProbeReport(sandbox.tier, list(sandbox.reasons), checks)


async def _forbidden(sandbox: BubblewrapSandbox) -> Check:
    """Check that the box really refuses, and that the refusal is seen."""
    spec = RunSpec(argv=(), code=_NETWORK, limits=Limits(wall_s=10))
    status: Status | None = None
    async for event in sandbox.run(spec):
        match event:
            case Exit():
                status = event.status
            case Output():
                continue
    ok = status is Status.denied
    return Check("refusal", ok, f"code that opens a socket ends as {status}")


def _kernel() -> Check:
    return Check("kernel", True, f"{platform.release()} {platform.machine()}")  # noqa: FBT003


def _bwrap() -> Check:
    try:
        path = find_bwrap()
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=10, env={}
        )
    except AngelError as error:
        return Check("bubblewrap", False, error.detail, error.hint)  # noqa: FBT003
    except (OSError, subprocess.SubprocessError) as error:
        return Check("bubblewrap", False, str(error))  # noqa: FBT003
    return Check("bubblewrap", True, f"{done.stdout.strip()} at {path}")  # noqa: FBT003


def _user_namespaces() -> Check:
    if not _USERNS.exists() or int(_USERNS.read_text()) == 0:
        return Check("user namespaces", ok=False, detail="switched off", hint=_hint())
    if _APPARMOR.exists() and _APPARMOR.read_text().strip() == "1":
        detail = "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns = 1)"
        return Check("user namespaces", ok=False, detail=detail, hint=_hint())
    return Check("user namespaces", ok=True, detail=f"up to {_USERNS.read_text().strip()}")


def _landlock() -> Check:
    abi = landlock_abi()
    hint = "" if abi else "Landlock needs Linux 5.13 with it switched on (lsm=landlock,...)."
    return Check("landlock", bool(abi), f"ABI {abi}" if abi else "not in this kernel", hint)


def _seccomp() -> Check:
    machine = platform.machine()
    ok = seccomp.supported(machine)
    detail = f"{len(seccomp.base_filter(machine)) // 8} instructions" if ok else f"not on {machine}"
    return Check("seccomp", ok, detail)


def _cgroups() -> Check:
    try:
        groups = cgroup.find()
    except Unavailable as error:
        return Check("control groups", ok=False, detail=error.detail, hint=error.hint)
    return Check("control groups", ok=True, detail=f"version {groups.version}, made and limited")


def _hint() -> str:
    return (
        "In a container, allow user namespaces (for Docker: --security-opt seccomp=unconfined"
        " --security-opt apparmor=unconfined); on Ubuntu 23.10 or later:"
        " sysctl kernel.apparmor_restrict_unprivileged_userns=0."
    )
