"""How risky a change is, and which of its paths need people: pure, small, explainable.

The risk, 0 to 1000, is the sum of factors, each with its reason and figure.

>>> total(change_factors((Change(path="a.py", before="1", after="2", diff="+x = 1"),)))
11
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from angelos.control.state.models import ProposalRecord
from angelos.core.facts import CandidateOutcome
from angelos.core.findings import PatchScore, RiskFactor, RiskKind
from angelos.core.ids import PrincipalId
from angelos.core.paths import matches
from angelos.core.repository import Change

POLICY_PATHS = ("angelos.toml", ".angelos/**")
MAX_RISK = 1000
_UNSEEN = 500
_LONG_LINE = 500
"""Encoded payloads have long lines: this alone set planted base64 and hex apart in our samples."""
_FILE, _LINE, _DELETED, _UNCOVERED, _OUTPUTS, _PROTECTED = 10, 1, 100, 20, 50, 400
_RECORD = 200
"""For an author all of whose last proposals failed."""
_UNLIKE = 100
"""For a patch unlike approved history: with nothing else, never enough to ask a person."""
_UNLIKE_FROM, _PIECES = 0.95, 20
"""Of at least so many approved pieces, so large a part must be less unlike."""
_REMEMBERED, _ENOUGH = 20, 3
"""Of so many last proposals of an author, at least so many must be decided."""


def touched(paths: Sequence[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths that match `patterns`, ignoring case.

    A checkout may lie on a file system that ignores case too.
    """
    lower = tuple(pattern.lower() for pattern in patterns)
    return tuple(path for path in paths if matches(path.lower(), lower))


def total(factors: Iterable[RiskFactor]) -> int:
    """Return the risk, at most `MAX_RISK`."""
    return min(MAX_RISK, sum(factor.points for factor in factors))


def change_factors(changes: Sequence[Change]) -> list[RiskFactor]:
    """Return what is risky by size: 10 a file, 1 an added line, 100 a deleted file, 500 unseen.

    Notebooks are JSON, in which long lines are normal.
    """
    added = {change.path: _added(change.diff) for change in changes}
    lines = sum(map(len, added.values()))
    files, gone = len(changes), [c.path for c in changes if c.after is None]
    size = f"it changes {files} file{'' if files == 1 else 's'} and adds {lines} lines"
    factors = [_factor(RiskKind.size, _FILE * files + _LINE * lines, lines, size)]
    if gone:
        reason = f"it removes {_named(gone)}"
        factors.append(_factor(RiskKind.deleted, _DELETED * len(gone), len(gone), reason))
    if cut := [change.path for change in changes if change.cut]:
        reason = f"a person sees only the beginning of {_named(cut)}"
        factors.append(_factor(RiskKind.unseen, _UNSEEN * len(cut), len(cut), reason))
    longest = {p: max(map(len, rows), default=0) for p, rows in added.items()}
    long = [p for p, size in longest.items() if size > _LONG_LINE and not p.endswith(".ipynb")]
    if long:
        reason = f"{_named(long)} has a line of {max(longest[p] for p in long)} characters"
        factors.append(_factor(RiskKind.long_line, _UNSEEN * len(long), len(long), reason))
    return factors


def dropped_factor(cells: int) -> list[RiskFactor]:
    """Return that cells lose the outputs that they had, if any do."""
    reason = f"{cells} cell{' loses its' if cells == 1 else 's lose their'} outputs"
    return [_factor(RiskKind.outputs, _OUTPUTS * cells, cells, reason)] if cells else []


def uncovered_factor(paths: Sequence[str]) -> list[RiskFactor]:
    """Return that no test imports some changed code, if so."""
    if not paths:
        return []
    reason = f"no test imports {_named(paths)}"
    return [_factor(RiskKind.uncovered, _UNCOVERED * len(paths), len(paths), reason)]


def protected_factor(paths: Sequence[str]) -> list[RiskFactor]:
    """Return that protected paths are changed, if so."""
    reason = f"it touches protected {_named(paths)}"
    return [_factor(RiskKind.protected, _PROTECTED, len(paths), reason)] if paths else []


def record_factor(author: PrincipalId, records: Iterable[ProposalRecord]) -> list[RiskFactor]:
    """Return how the author's last proposals ended, if enough of them are decided."""
    own = [r for r in records if r.author == author and r.state in _DECIDED]
    last = own[-_REMEMBERED:]
    bad = sum(r.outcome is CandidateOutcome.failed or r.state != "promoted" for r in last)
    if not bad or len(last) < _ENOUGH:
        return []
    reason = f"{bad} of the last {len(last)} proposals of {author} did not stay in main"
    return [_factor(RiskKind.record, round(_RECORD * bad / len(last)), bad / len(last), reason)]


def added_texts(changes: Sequence[Change]) -> dict[str, str]:
    """Return the added lines of each path that a model of source text may read.

    Notebooks are JSON with outputs in it; what is honest there looks like nothing else.
    """
    added = {c.path: _added(c.diff) for c in changes if not c.path.endswith(".ipynb")}
    return {path: "\n".join(row[1:] for row in rows) for path, rows in added.items() if rows}


def sentinel_factor(paths: Sequence[str], score: PatchScore) -> RiskFactor:
    """Return what the sentinel says of added lines, beside the measures that need no model.

    It never lowers a risk, and with nothing else it never asks a person.

    Args:
        paths: Of the texts that were scored.
        score: The score.
    """
    compared = score.pieces >= _PIECES
    points = _UNLIKE if compared and score.unlike >= _UNLIKE_FROM else 0
    share = (
        f"less like approved history than {score.unlike:.0%} of {score.pieces} pieces of it"
        if compared
        else f"too long to be compared ({score.pieces} approved pieces of that length)"
    )
    measures = (
        f"loss {score.loss:.2f}, entropy {score.entropy:.2f} bits, zlib {score.zlib_ratio:.2f},"
        f" longest line {score.longest_line}, by {score.model}"
    )
    rest = f"; {score.skipped} characters were not read" if score.skipped else ""
    reason = f"what it adds to {paths[score.text]} is {share} ({measures}{rest})"
    return _factor(RiskKind.sentinel, points, round(score.loss, 4), reason)


def unscored_factor(cause: str) -> RiskFactor:
    """Return that there is no sentinel score although there is a model."""
    return _factor(RiskKind.sentinel, 0, 0, f"there is no sentinel score: {cause}")


_DECIDED = frozenset({"promoted", "rejected", "rolled-back"})


def _factor(kind: RiskKind, points: int, figure: float, reason: str) -> RiskFactor:
    return RiskFactor(kind=kind, points=min(MAX_RISK, points), figure=figure, reason=reason)


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - 3
    return ", ".join(paths[:3]) + (f" and {more} more" if more > 0 else "")


def _added(diff: str) -> list[str]:
    r"""Return the added lines of a unified diff; only `\n` ends a line, as in git.

    All before the first hunk is the header, even a line that begins with a plus.
    """
    rows = diff.split("\n")
    head = next((i for i, row in enumerate(rows) if row.startswith("@@ ")), -1)
    return [row for row in rows[head + 1 :] if row.startswith("+")]
