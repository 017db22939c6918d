"""Refused system calls: how much they weigh, and which are rare for a role. Pure.

>>> weights({"refused": [{"call": "socket", "argument": "AF_INET", "count": 9}]})
{}
>>> weights({"refused": [{"call": "ptrace", "argument": "", "count": 1}]})
{'ptrace': 10.0}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from angelos.core.system_calls import weighs

_HIGH = frozenset(
    """bpf delete_module finit_module fsopen init_module ioperm iopl kexec_file_load kexec_load
    mount move_mount open_tree pivot_root process_vm_readv process_vm_writev ptrace reboot setns
    swapoff swapon umount umount2 userfaultfd""".split()  # noqa: SIM905
)
"""Calls that change or look into what is outside the program."""
_WEIGHT_HIGH, _WEIGHT_OTHER = 10.0, 3.0
_NETWORK_FAMILIES = frozenset({"AF_INET", "AF_INET6", "AF_PACKET"})
_MAX_ROWS, _MAX_CALLS = 200, 512
_HALVE_AT = 20_000


class CallHistory(msgspec.Struct, frozen=True, kw_only=True):
    """In how many runs of a role which calls were refused."""

    runs: int = 0
    calls: dict[str, int] = {}


def refused_calls(evidence: Mapping[str, object]) -> Iterator[tuple[str, str, int]]:
    """Yield call, argument and count of each row of a run's evidence, bounded."""
    rows = evidence.get("refused")
    for row in rows[:_MAX_ROWS] if isinstance(rows, list) else ():
        if isinstance(row, dict):
            count = row.get("count", 1)
            times = count if isinstance(count, int) and 0 < count < 2**53 else 1
            yield str(row.get("call"))[:40], str(row.get("argument", ""))[:40], times


def weights(evidence: Mapping[str, object]) -> dict[str, float]:
    """Return how much each refused call of a run weighs, however often it was made."""
    calls = {call for call, argument, _ in refused_calls(evidence) if weighs(call, argument)}
    return {call: _WEIGHT_HIGH if call in _HIGH else _WEIGHT_OTHER for call in sorted(calls)}


def network_attempts(evidence: Mapping[str, object]) -> int:
    """Return how often a run tried to reach a network."""
    return sum(
        count
        for call, argument, count in refused_calls(evidence)
        if call == "socket" and argument in _NETWORK_FAMILIES
    )


def rare_calls(
    history: CallHistory, evidence: Mapping[str, object], share: float, runs: int
) -> tuple[str, ...]:
    """Return the refused calls of a run that few runs of its role make."""
    if history.runs < runs:
        return ()
    names = _names(evidence)
    return tuple(sorted(n for n in names if history.calls.get(n, 0) < share * history.runs))


def learned(history: CallHistory, evidence: Mapping[str, object]) -> CallHistory:
    """Return the history with one run more; an old history counts less."""
    runs, calls = history.runs + 1, history.calls
    if names := _names(evidence):
        calls = dict(calls)
        for name in names:
            if name in calls or len(calls) < _MAX_CALLS:
                calls[name] = calls.get(name, 0) + 1
    if runs >= _HALVE_AT:
        calls = {name: count // 2 for name, count in calls.items() if count > 1}
        runs //= 2
    return CallHistory(runs=runs, calls=calls)


def _names(evidence: Mapping[str, object]) -> set[str]:
    return {f"{call} {argument}".strip() for call, argument, _ in refused_calls(evidence)}
