"""How risky a change is, and which of its paths need people: pure, small, explainable.

>>> risk((Change(path="a.py", before="1", after="2", diff="+x = 1"),))
11
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.core.paths import matches
from angelos.core.repository import Change

POLICY_PATHS = ("angelos.toml", ".angelos/**")
MAX_RISK = 1000
_UNSEEN = 500
_LONG_LINE = 500
"""Encoded payloads have long lines: this alone set planted base64 and hex apart in our samples."""


def touched(paths: Sequence[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths that match `patterns`, ignoring case.

    A checkout may lie on a file system that ignores case too.
    """
    lower = tuple(pattern.lower() for pattern in patterns)
    return tuple(path for path in paths if matches(path.lower(), lower))


def risk(changes: Sequence[Change]) -> int:
    """Return 0 to 1000: 10 a file, 1 an added line, 100 a deleted file, 500 for a long line.

    500 also where `Change.diff`, which is bounded, was cut: nobody sees the rest.
    Notebooks are JSON, in which long lines are normal.
    """
    points = 0
    for change in changes:
        added = _added(change.diff)
        points += 10 + len(added) + (_UNSEEN if change.cut else 0)
        if change.after is None:
            points += 100
        if not change.path.endswith(".ipynb") and any(len(line) > _LONG_LINE for line in added):
            points += _UNSEEN
    return min(MAX_RISK, points)


def _added(diff: str) -> list[str]:
    r"""Return the added lines of a unified diff; only `\n` ends a line, as in git.

    All before the first hunk is the header, even a line that begins with a plus.
    """
    rows = diff.split("\n")
    head = next((i for i, row in enumerate(rows) if row.startswith("@@ ")), -1)
    return [row for row in rows[head + 1 :] if row.startswith("+")]
