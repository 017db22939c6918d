"""System calls that a box refused: which of them say something about a program. Pure.

Every refused call is in the evidence of a run, as `{"call", "argument", "count"}`, whatever its
end. Most weigh: no innocent program mounts, traces or loads a module. Some do not, because
libraries try them to see what a machine can do and go on without.

    >>> weighing_calls({"refused": [{"call": "mbind", "count": 9}, {"call": "mount", "count": 1}]})
    ('mount',)
"""

from __future__ import annotations

from collections.abc import Mapping

PROBED_CALLS = frozenset(
    """get_mempolicy io_uring_enter io_uring_register io_uring_setup kcmp mbind memfd_secret
    migrate_pages move_pages mseal perf_event_open personality process_madvise set_mempolicy
    set_mempolicy_home_node setfsgid setfsuid setgid setgroups setregid setresgid setresuid
    setreuid setuid ustat""".split()  # noqa: SIM905
)
"""Calls with which programs look for what a machine can do, or give up rights, and go on."""
_PROBED_FAMILIES = frozenset({"AF_INET", "AF_INET6", "AF_NETLINK"})


def weighs(call: str, argument: str) -> bool:
    """Return whether a refused call says something about the program that made it.

    A socket of the internet does not: libraries look for a network, also while they are imported.
    """
    if call in PROBED_CALLS:
        return False
    return call != "socket" or argument not in _PROBED_FAMILIES


def weighing_calls(evidence: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the refused calls in a run's evidence that weigh."""
    rows = evidence.get("refused")
    calls = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = {
        str(row.get("call"))
        for row in calls
        if weighs(str(row.get("call")), str(row.get("argument", "")))
    }
    return tuple(sorted(names))
