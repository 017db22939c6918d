r"""The difference of two notebooks for people: a unified diff of each cell's source.

Outputs are named by digest and metadata only by name, so that a re-run does not hide a change.
"""

from __future__ import annotations

from angelos.angelgit.documents.edits import bounded_diff, unified_diff
from angelos.angelgit.merge.hunks import hunks_of
from angelos.core.pending import ChangeKind, PendingHunk

_DIGEST = len("sha256:") + 12


def cell_diff(path: str, before: str | None, after: str | None) -> str:
    """Return the difference, bounded as `unified_diff` is; "" if nothing differs."""
    if before is None or after is None:
        return unified_diff(before, after, path)
    rows = [f"--- a/{path}", f"+++ b/{path}"]
    cell = None
    for hunk in hunks_of(path, before, after):
        if hunk.cell != cell:
            cell = hunk.cell
            rows.append(f"cell {cell}" if cell else "notebook")
        rows += _shown(hunk)
    return bounded_diff("\n".join(rows) + "\n") if cell is not None else ""


def _shown(hunk: PendingHunk) -> list[str]:
    if hunk.kind in (ChangeKind.outputs, ChangeKind.metadata):
        if hunk.kind is ChangeKind.metadata:
            return ["~ metadata"]
        return [f"~ outputs {hunk.before[:_DIGEST]} -> {hunk.after[:_DIGEST]}"]
    if hunk.kind is ChangeKind.moved:
        return ["~ moved"]
    old, new = (text.splitlines() for text in (hunk.before, hunk.after))
    start = hunk.start or 1
    head = f"@@ line {start}: {len(old)} -> {len(new)} @@"
    if hunk.kind is not ChangeKind.text:
        head = f"~ {hunk.kind}"
    return [head, *(f"-{row}" for row in old), *(f"+{row}" for row in new)]
