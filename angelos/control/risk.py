"""How much of a change is risky, and which of its paths need people: pure, small, explainable.

>>> risk((Change(path="a.py", before="1", after="2", diff="+x = 1"),))
11
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.core.paths import matches
from angelos.core.ports import Change

POLICY_PATHS = ("angelos.toml", ".angelos/**")
MAX_RISK = 1000
_LONG_LINE = 500
"""Encoded payloads come in long lines: this alone told planted base64 and hex from honest code."""


def touched(paths: Sequence[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths that fall under `patterns`, whatever their letters' case.

    Case is ignored because a checkout may lie on a file system that ignores it too.
    """
    lower = tuple(pattern.lower() for pattern in patterns)
    return tuple(path for path in paths if matches(path.lower(), lower))


def risk(changes: Sequence[Change]) -> int:
    """Return 0 to 1000: 10 a file, 1 an added line, 100 a deleted file, 500 for a long line.

    `Change.diff` is bounded; a change whose diff was cut counts what is left of it. Notebooks
    are JSON, in which long lines are normal.
    """
    points = 0
    for change in changes:
        added = [line for line in change.diff.splitlines() if line[:1] == "+" and line[:3] != "+++"]
        points += 10 + len(added)
        if change.after is None:
            points += 100
        if not change.path.endswith(".ipynb") and any(len(line) > _LONG_LINE for line in added):
            points += 500
    return min(MAX_RISK, points)
