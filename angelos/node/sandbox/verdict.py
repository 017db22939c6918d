r"""Decides, from the evidence, which status a run has earned. Pure.

    stop or counter                      status     source
    wall clock                           timeout    node
    CPU time, all processes together     cpu        kernel | sampler
    memory.oom_control / memory.events   oom        kernel
    what /proc and the box's own file
      systems hold, until the very end   oom        sampler
    pids.events                          pids       kernel | sampler
    bytes of output                      output     node
    refused system calls + failure       denied     kernel
    killed by SIGSYS (foreign ABI)       denied     kernel
    exit code                            ok, error  exit

The counters are read before the exit code, because the exit code 137 alone proves nothing. A
system call that was refused does not end a run, because innocent libraries probe for sockets: a
program that fails right after a call that no innocent program makes is `denied`, one that copes is
`ok`, one that fails for whatever else is `error`, and the evidence names the calls each time. What
a program prints is never read: a missing or hidden file is its own `error`.

    >>> from angelos.core.messages import Limits
    >>> ending = Ending(exit_code=137, duration_s=0.3,
    ...     usage=Usage(source=EvidenceSource.kernel, oom_kills=1))
    >>> judge(ending, Limits())[0]
    <Status.oom: 'oom'>
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from angelos.core.messages import Limits, Status
from angelos.core.runs import EvidenceSource
from angelos.core.system_calls import weighs
from angelos.node.sandbox.models import Ending, Refusal, Stop, Usage

MIB = 1024 * 1024
_BY_SIGNAL = 128
SIGXCPU_EXIT = _BY_SIGNAL + signal.SIGXCPU
MAX_REFUSALS = 1000
"""With so many refused system calls a program only wastes the node's time: the run is ended."""
MAX_PROBES = 5_000
"""The same for calls with which runtimes look around, and which weigh nothing otherwise."""
_SOON_CPU_S = 0.25


def must_stop(
    usage: Usage, limits: Limits, elapsed_s: float, refused: int, probes: int = 0
) -> Stop | None:
    """Return why a running program has to be ended now, or None."""
    if usage.oom_kills or _above_memory(usage, limits):
        return Status.oom
    if usage.pids_refused or usage.tasks > limits.pids:
        return Status.pids
    if usage.cpu_s >= limits.cpu_s:
        return Status.cpu
    if refused >= MAX_REFUSALS or probes >= MAX_PROBES:
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
                "reason": f"more than {MAX_REFUSALS} refused system calls, or {MAX_PROBES} of"
                " those with which runtimes look around",
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
    if stop is None and _above_memory(usage, limits):
        return Status.oom  # it ended by itself before the sampler's next look
    # The signal of RLIMIT_CPU, unless the program has sent it to itself long before.
    if ending.exit_code == SIGXCPU_EXIT and usage.cpu_s >= limits.cpu_s * 0.9:
        return Status.cpu
    return stop


def _own_exit(ending: Ending) -> tuple[Status, dict[str, Any]]:
    """Judge a program that ended by itself."""
    if ending.exit_code == 0:
        return Status.ok, {"source": EvidenceSource.exit}
    if ending.signal == signal.SIGSYS:
        reason = "a system call of a foreign ABI (32 bit, x32), for which the kernel killed it"
        return Status.denied, {"source": EvidenceSource.kernel, "reason": reason}
    ending_calls = [refusal for refusal in ending.refusals if ended_by(refusal, ending.usage)]
    if ending_calls:
        reason = f"the box refused {_listed(ending_calls)}: there is no privilege inside"
        return Status.denied, {"source": EvidenceSource.kernel, "reason": reason}
    death = _death(ending)
    sockets = [refusal for refusal in ending.refusals if refusal.call == "socket"]
    if sockets:
        death.setdefault("hint", f"the box refused {_listed(sockets)}: there is no network inside")
    return Status.error, {"source": EvidenceSource.exit, **death}


def ended_by(refusal: Refusal, usage: Usage) -> bool:
    """Return whether a failed program is taken to have failed by a refused call.

    It made a call that no innocent program makes and failed right after it. A library that looked
    for a network or for what the machine can do is no evidence: the program may have failed for
    whatever else, so it is an error with the refused calls beside it.
    """
    soon = usage.cpu_s - refusal.cpu_s <= _SOON_CPU_S
    return soon and weighs(refusal.call, refusal.argument)


def _listed(refusals: Sequence[Refusal]) -> str:
    return ", ".join(f"{refusal.call}({refusal.argument})" for refusal in refusals)


def _death(ending: Ending) -> dict[str, Any]:
    """Return the words for an end by a signal: the kernel's, or what the exit code says."""
    code = ending.exit_code or 0
    number = ending.signal if ending.signal is not None else code - _BY_SIGNAL
    try:
        name = signal.Signals(number).name
    except ValueError:  # 0, or the exit code of no signal
        return {}
    words = signal.strsignal(number) or "a signal"
    if ending.signal is None:
        return {"reason": f"exit code {code}, with which a shell reports {name} ({words})"}
    return {"signal": name, "reason": f"the program was ended by {name} ({words})"}


def _above_memory(usage: Usage, limits: Limits) -> bool:
    return usage.source is EvidenceSource.sampler and usage.memory_bytes > limits.memory_mb * MIB


def _refusal_evidence(refusal: Refusal) -> dict[str, Any]:
    argument = {"argument": refusal.argument} if refusal.argument else {}
    return {"call": refusal.call, **argument, "count": refusal.count}
