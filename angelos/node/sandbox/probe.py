"""Finds out which isolation this machine gives, by launching a real sandbox: `angelos doctor`.

    report = await probe()
    report.tier      # Tier.full
    report.reasons   # why it is not higher, in sentences

It reads no error message of bubblewrap, whose words change with its versions: a box starts and
refuses what it has to refuse, or it does not.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from angelos.core.errors import AngelError, Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import cgroup, seccomp
from angelos.node.sandbox.launch import STAGES, find_bwrap
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.sandbox.unsandboxed import landlock_abi

_USERNS = Path("/proc/sys/user/max_user_namespaces")
_UID_MAP = Path("/proc/self/uid_map")
PROFILES = Path(__file__).parent / "data"
"""Where the profiles for containers and for AppArmor lie."""
_SYSCTL = "Switch them on: sysctl user.max_user_namespaces=15000."
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_NETWORK = "import socket\nsocket.socket()\n"
_REFUSED = {"call": "socket", "argument": "AF_INET", "count": 1}


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """One capability of the machine, and whether it is there."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The tier in force here, why it is not higher, and everything that was checked."""

    tier: Tier
    reasons: list[str] = field(default_factory=list)
    checks: list[ProbeCheck] = field(default_factory=list)


async def probe(config: SandboxConfig | None = None) -> ProbeReport:
    """Launch a sandbox, run allowed and forbidden code in it, and report."""
    needed = [_bwrap(), _user_namespaces(), _mapped_users(), _stage()]
    checks = [_kernel(), *needed, _landlock(), _seccomp(), _cgroups()]
    async with BubblewrapSandbox(config or SandboxConfig(ready_boxes=0)) as sandbox:
        boxed = sandbox.tier in {Tier.full, Tier.reduced}
        detail = "a program ran in a box" if boxed else "; ".join(sandbox.reasons)
        # A check that failed says what to do; if none did, somebody forbids what a box needs.
        hint = "" if boxed or not all(check.ok for check in needed) else container_hint()
        checks.append(ProbeCheck("sandbox", boxed, detail, hint))
        if boxed:
            checks.append(await _forbidden(sandbox))
        return ProbeReport(sandbox.tier, list(sandbox.reasons), checks)


async def _forbidden(sandbox: BubblewrapSandbox) -> ProbeCheck:
    """Check that the box refuses a socket, and that the refusal is reported."""
    spec = RunSpec(argv=(), code=_NETWORK, limits=Limits(wall_s=10))
    status: Status | None = None
    refused: object = None
    async for event in run_session(sandbox, spec):
        match event:
            case Exit():
                status, refused = event.status, event.evidence.get("refused")
            case Output():
                continue
    # A refused socket proves no attack, so the end is an error with the call in the evidence.
    ok = status is Status.error and refused == [_REFUSED]
    told = "reported" if ok else "not reported"
    detail = f"code that opens a socket ends as {status}, and the refused call is {told}"
    return ProbeCheck("refusal", ok, detail)


def _kernel() -> ProbeCheck:
    return ProbeCheck("kernel", ok=True, detail=f"{platform.release()} {platform.machine()}")


def _bwrap() -> ProbeCheck:
    try:
        path = find_bwrap()
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=10, env={}
        )
    except AngelError as error:
        return ProbeCheck("bubblewrap", ok=False, detail=error.detail, hint=error.hint)
    except (OSError, subprocess.SubprocessError) as error:
        return ProbeCheck("bubblewrap", ok=False, detail=str(error))
    return ProbeCheck("bubblewrap", ok=True, detail=f"{done.stdout.strip()} at {path}")


def _user_namespaces() -> ProbeCheck:
    if not _USERNS.exists() or int(_USERNS.read_text()) == 0:
        return ProbeCheck("user namespaces", ok=False, detail="switched off", hint=_SYSCTL)
    if _APPARMOR.exists() and _APPARMOR.read_text().strip() == "1":
        detail = "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns = 1)"
        hint = f"Load the AppArmor profile {PROFILES / 'angelos.apparmor'}; its head says how."
        return ProbeCheck("user namespaces", ok=False, detail=detail, hint=hint)
    return ProbeCheck("user namespaces", ok=True, detail=f"up to {_USERNS.read_text().strip()}")


def _mapped_users(path: Path = _UID_MAP, uid: int | None = None) -> ProbeCheck:
    """Check that root may become somebody else: boxes never run as the node's own user."""
    try:
        count = sum(int(line.split()[2]) for line in path.read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return ProbeCheck("mapped users", ok=True, detail="not said here")
    alone = count == 1 and (os.geteuid() if uid is None else uid) == 0
    if not alone:
        return ProbeCheck("mapped users", ok=True, detail=f"{count}")
    detail = "one alone: root here is an ordinary user outside, and no other exists"
    hint = (
        "Run it as that ordinary user outside of the namespace, or map a range of users"
        " (subuid(5); `unshare --map-auto`, `podman run --userns=auto`)."
    )
    return ProbeCheck("mapped users", ok=False, detail=detail, hint=hint)


def _stage() -> ProbeCheck:
    """Check that boxes can be prepared: a folder can be made and removed where they are."""
    try:
        with tempfile.TemporaryDirectory(dir=STAGES):
            pass
    except OSError as error:
        detail = f"{STAGES} cannot be written: {error.strerror or error}"
        hint = f"Mount {STAGES} writable: `--tmpfs {STAGES}` for Docker, PrivateTmp= for systemd."
        return ProbeCheck("temporary folder", ok=False, detail=detail, hint=hint)
    return ProbeCheck("temporary folder", ok=True, detail=STAGES)


def _landlock() -> ProbeCheck:
    abi = landlock_abi()
    hint = "" if abi else "Landlock needs Linux 5.13 with it switched on (lsm=landlock,...)."
    return ProbeCheck("landlock", bool(abi), f"ABI {abi}" if abi else "not in this kernel", hint)


def _seccomp() -> ProbeCheck:
    machine = platform.machine()
    ok = seccomp.supported(machine)
    detail = f"{len(seccomp.base_filter(machine)) // 8} instructions" if ok else f"not on {machine}"
    return ProbeCheck("seccomp", ok, detail)


def _cgroups() -> ProbeCheck:
    try:
        groups = cgroup.find()
    except Unavailable as error:
        return ProbeCheck("control groups", ok=False, detail=error.detail, hint=error.hint)
    return ProbeCheck(
        "control groups", ok=True, detail=f"version {groups.version}, made and limited"
    )


def container_hint() -> str:
    """Return how a container has to be started so that boxes can be made in it."""
    return (
        "In a container, allow what makes boxes and no more: docker run"
        f" --security-opt seccomp={PROFILES / 'container-seccomp.json'}"
        " --security-opt apparmor=angelos_container --security-opt systempaths=unconfined"
        f" (the AppArmor profile is in {PROFILES / 'angelos.apparmor'})."
    )
