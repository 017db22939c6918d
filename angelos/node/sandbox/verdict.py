r"""Decides, from the evidence, which status word a run has earned. Pure.

    stop or counter                      word       source
    wall clock                           timeout    node
    CPU time, all processes together     cpu        kernel | sampler
    memory.oom_control / memory.events   oom        kernel | sampler
    pids.events                          pids       kernel | sampler
    bytes of output                      output     node
    refused system calls + failure       denied     kernel
    an absolute path that is not there   denied     exit
    killed by SIGSYS (foreign ABI)       denied     exit
    exit code                            ok, error  exit

An exit code of 137 alone says nothing: the counters are read first. A system call that was
refused does not end a run, because innocent libraries probe for sockets; a program that then
fails for it is `denied`, one that copes is `ok`, and the evidence names the calls either way.

    >>> from angelos.core.messages import Limits, Tier
    >>> ending = Ending(exit_code=137, duration_s=0.3, tier=Tier.full,
    ...     usage=Usage(source="kernel", oom_kills=1))
    >>> judge(ending, Limits())[0]
    <Status.oom: 'oom'>
"""

from __future__ import annotations

import re
from typing import Any

from angelos.core.messages import Limits, Status
from angelos.node.sandbox.models import Ending, Refusal, Stop, Usage

_TMP = "/tmp"  # noqa: S108 - inside the box
MIB = 1024 * 1024
SIGSYS_EXIT = 128 + 31
SIGXCPU_EXIT = 128 + 24
MAX_REFUSALS = 1000
"""So many refused system calls are an attack on the node's patience: the run is ended."""

_OS_ERROR = re.compile(
    r"^(?:\w+\.)*(?:FileNotFoundError|PermissionError|NotADirectoryError|OSError): "
    r"\[Errno (\d+)\] [^:]*: b?(['\"])(/.*?)\2",
)
_ENOENT, _DENIALS = 2, frozenset({1, 13, 30})
_PERMISSION_WORDS = ("Operation not permitted", "Permission denied", "Operation not supported")


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
    """Return the status word and the evidence for it; `evidence["source"]` names the witness."""
    status, why = _verdict(ending, limits)
    usage = ending.usage
    evidence: dict[str, Any] = {
        **why,
        "cpu_s": round(usage.cpu_s, 4),
        "memory_bytes": usage.memory_bytes,
        "output_bytes": ending.output_bytes,
    }
    if ending.refusals:
        evidence["refused"] = [_told(refusal) for refusal in ending.refusals]
    return status, evidence


def _verdict(ending: Ending, limits: Limits) -> tuple[Status, dict[str, Any]]:
    usage, stop = ending.usage, _stopped_by(ending, limits)
    kernel = usage.source == "kernel"
    why: dict[str, Any] = {"source": usage.source}
    match stop:
        case None:
            return _own_exit(ending)
        case Status.killed:
            why = {"source": "node", "reason": ending.reason or "ended from outside"}
        case Status.output:
            why = {"source": "node", "limit_bytes": limits.output_bytes}
        case Status.timeout:
            why = {"source": "node", "limit_s": limits.wall_s}
        case Status.cpu:
            why |= {"limit_s": limits.cpu_s}
        case Status.oom:
            why |= {"limit_mb": limits.memory_mb}
            why |= {"oom_kills": usage.oom_kills} if kernel else {}
        case Status.pids:
            why |= {"limit": limits.pids}
            why |= {"refused_forks": usage.pids_refused} if usage.pids_refused else {}
            why |= {} if kernel else {"tasks": usage.tasks}
        case Status.denied:
            why = {"source": "kernel", "reason": f"more than {MAX_REFUSALS} refused system calls"}
    return stop, why


def _stopped_by(ending: Ending, limits: Limits) -> Stop | None:
    """Return what ended the run: the kernel's counters go before what the node did about them."""
    usage, stop = ending.usage, ending.stop
    if stop in {Status.killed, Status.output}:
        return stop
    if usage.oom_kills:
        return Status.oom
    if usage.pids_refused:
        return Status.pids
    if ending.exit_code == SIGXCPU_EXIT and usage.cpu_s >= limits.cpu_s * 0.9:
        return Status.cpu
    return stop


def _own_exit(ending: Ending) -> tuple[Status, dict[str, Any]]:
    """Judge a program that ended by itself."""
    if ending.exit_code == 0:
        return Status.ok, {"source": "exit"}
    if ending.exit_code == SIGSYS_EXIT:
        # A program can end with that code as well: the kernel is no witness of it.
        reason = "a system call of a foreign ABI (SIGSYS), or the exit code 159"
        return Status.denied, {"source": "exit", "reason": reason}
    last = _last_line(ending.stderr_tail)
    spoke = any(word in last for word in _PERMISSION_WORDS)
    attack = any(refusal.call != "socket" for refusal in ending.refusals)
    if ending.refusals and (spoke or attack):
        calls = ", ".join(f"{r.call}({r.family})" for r in ending.refusals)
        reason = f"the box refused {calls}: there is no network and no privilege inside"
        return Status.denied, {"source": "kernel", "reason": reason}
    path = outside_path(ending.stderr_tail, ending.inside)
    if path:
        work = "/work and " if any(_below(i, "/work") for i in ending.inside) else ""
        reason = f"{path} is outside the box: the task has {work}{_TMP} to itself"
        return Status.denied, {"source": "exit", "reason": reason, "path": path}
    return Status.error, {"source": "exit"}


def outside_path(stderr_tail: str, inside: tuple[str, ...]) -> str:
    """Return the path outside the box for which a Python program ended, or nothing.

    Reads the last line of a traceback: an absolute path that is missing and lies in no folder
    of the box, or one that the box does not let the program write or open.
    """
    found = _OS_ERROR.match(_last_line(stderr_tail))
    if found is None:
        return ""
    code, path = int(found[1]), found[3]
    own = any(_below(path, folder) for folder in (_TMP, "/dev/shm"))  # noqa: S108
    if code in _DENIALS and not own:
        return path
    known = any(_below(path, folder) for folder in inside)
    return path if code == _ENOENT and not known else ""


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _above_memory(usage: Usage, limits: Limits) -> bool:
    return usage.source == "sampler" and usage.memory_bytes > limits.memory_mb * MIB


def _told(refusal: Refusal) -> dict[str, Any]:
    family = {"family": refusal.family} if refusal.family else {}
    return {"call": refusal.call, **family, "count": refusal.count}
