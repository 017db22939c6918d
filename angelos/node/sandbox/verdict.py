r"""Decides, from the evidence, which status a run has earned. Pure.

    stop or counter                      status     source
    wall clock                           timeout    node
    CPU time, all processes together     cpu        kernel | sampler
    memory.oom_control / memory.events   oom        kernel | sampler
    pids.events                          pids       kernel | sampler
    bytes of output                      output     node
    refused system calls + failure       denied     kernel
    an absolute path that is not there   denied     exit
    killed by SIGSYS (foreign ABI)       denied     exit
    exit code                            ok, error  exit

The counters are read before the exit code, because the exit code 137 alone proves nothing. A
system call that was refused does not end a run, because innocent libraries probe for sockets: a
program that then fails for it is `denied`, one that copes is `ok`, and the evidence names the
calls either way.

    >>> from angelos.core.messages import Limits, Tier
    >>> ending = Ending(exit_code=137, duration_s=0.3, tier=Tier.full,
    ...     usage=Usage(source=EvidenceSource.kernel, oom_kills=1))
    >>> judge(ending, Limits())[0]
    <Status.oom: 'oom'>
"""

from __future__ import annotations

import errno
from typing import Any

from angelos.core.messages import Limits, Status
from angelos.core.runs import EvidenceSource
from angelos.node.sandbox.models import Ending, Refusal, Stop, Usage
from angelos.node.sandbox.tracebacks import OsError, os_error

_TMP = "/tmp"  # noqa: S108 - inside the box
MIB = 1024 * 1024
SIGSYS_EXIT = 128 + 31
SIGXCPU_EXIT = 128 + 24
MAX_REFUSALS = 1000
"""With so many refused system calls a program only wastes the node's time: the run is ended."""

_DENIALS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})
"""With these a box refuses a system call (`seccomp.refusal_errno`, Landlock)."""


def must_stop(usage: Usage, limits: Limits, elapsed_s: float, refused: int) -> Stop | None:
    """Return why a running program has to be ended now, or None."""
    if usage.oom_kills or _above_memory(usage, limits):
        return Status.oom
    if usage.pids_refused or usage.tasks > limits.pids:
        return Status.pids
    if usage.cpu_s >= limits.cpu_s:
        return Status.cpu
    if refused >= MAX_REFUSALS:
        return Status.denied
    if elapsed_s >= limits.wall_s:
        return Status.timeout
    return None


def judge(ending: Ending, limits: Limits) -> tuple[Status, dict[str, Any]]:
    """Return the status and the evidence for it; `evidence["source"]` names the witness."""
    status, cause = _status(ending, limits)
    usage = ending.usage
    evidence: dict[str, Any] = {
        **cause,
        "cpu_s": round(usage.cpu_s, 4),
        "memory_bytes": usage.memory_bytes,
        "output_bytes": ending.output_bytes,
    }
    if ending.refusals:
        evidence["refused"] = [_refusal_evidence(refusal) for refusal in ending.refusals]
    return status, evidence


def _status(ending: Ending, limits: Limits) -> tuple[Status, dict[str, Any]]:
    usage, stop = ending.usage, _stopped_by(ending, limits)
    kernel = usage.source is EvidenceSource.kernel
    cause: dict[str, Any] = {"source": usage.source}
    match stop:
        case None:
            return _own_exit(ending)
        case Status.killed:
            cause = {"source": EvidenceSource.node, "reason": ending.reason or "ended from outside"}
        case Status.output:
            cause = {"source": EvidenceSource.node, "limit_bytes": limits.output_bytes}
        case Status.timeout:
            cause = {"source": EvidenceSource.node, "limit_s": limits.wall_s}
        case Status.cpu:
            cause |= {"limit_s": limits.cpu_s}
        case Status.oom:
            cause |= {"limit_mb": limits.memory_mb}
            cause |= {"oom_kills": usage.oom_kills} if kernel else {}
        case Status.pids:
            cause |= {"limit": limits.pids}
            cause |= {"refused_forks": usage.pids_refused} if usage.pids_refused else {}
            cause |= {} if kernel else {"tasks": usage.tasks}
        case Status.denied:
            cause = {
                "source": EvidenceSource.kernel,
                "reason": f"more than {MAX_REFUSALS} refused system calls",
            }
    return stop, cause


def _stopped_by(ending: Ending, limits: Limits) -> Stop | None:
    """Return what ended the run: the kernel's counters come before the node's reaction to them."""
    usage, stop = ending.usage, ending.stop
    if stop in {Status.killed, Status.output}:
        return stop
    if usage.oom_kills:
        return Status.oom
    if usage.pids_refused:
        return Status.pids
    # The signal of RLIMIT_CPU, unless the program has sent it to itself long before.
    if ending.exit_code == SIGXCPU_EXIT and usage.cpu_s >= limits.cpu_s * 0.9:
        return Status.cpu
    return stop


def _own_exit(ending: Ending) -> tuple[Status, dict[str, Any]]:
    """Judge a program that ended by itself."""
    if ending.exit_code == 0:
        return Status.ok, {"source": EvidenceSource.exit}
    if ending.exit_code == SIGSYS_EXIT:
        # A program can end with that code as well: the kernel is no witness of it.
        reason = "a system call of a foreign ABI (SIGSYS), or the exit code 159"
        return Status.denied, {"source": EvidenceSource.exit, "reason": reason}
    stated = os_error(ending.stderr_tail)
    failed_for_it = stated is not None and stated.errno in _REFUSED
    attack = any(refusal.call != "socket" for refusal in ending.refusals)
    if ending.refusals and (failed_for_it or attack):
        calls = ", ".join(f"{r.call}({r.family})" for r in ending.refusals)
        reason = f"the box refused {calls}: there is no network and no privilege inside"
        return Status.denied, {"source": EvidenceSource.kernel, "reason": reason}
    path = outside_path(stated, ending.visible)
    if path:
        work = "/work and " if any(_below(i, "/work") for i in ending.visible) else ""
        reason = f"{path} is outside the box: the task has {work}{_TMP} to itself"
        return Status.denied, {"source": EvidenceSource.exit, "reason": reason, "path": path}
    return Status.error, {"source": EvidenceSource.exit}


def outside_path(stated: OsError | None, visible: tuple[str, ...]) -> str:
    """Return the path outside the box for which a Python program ended, or an empty string.

    That is an absolute path that does not exist and lies in no folder of the box, or one that the
    box does not let the program write or open.
    """
    if stated is None or not stated.path:
        return ""
    path = stated.path
    if stated.errno in _DENIALS:
        own = any(_below(path, folder) for folder in (_TMP, "/dev/shm"))  # noqa: S108
        return "" if own else path
    inside = any(_below(path, folder) for folder in visible)
    return path if stated.errno == errno.ENOENT and not inside else ""


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _above_memory(usage: Usage, limits: Limits) -> bool:
    return usage.source is EvidenceSource.sampler and usage.memory_bytes > limits.memory_mb * MIB


def _refusal_evidence(refusal: Refusal) -> dict[str, Any]:
    family = {"family": refusal.family} if refusal.family else {}
    return {"call": refusal.call, **family, "count": refusal.count}
