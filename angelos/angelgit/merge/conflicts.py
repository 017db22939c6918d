r"""Do two changes of one base touch the same lines? Pure line-range overlap.

Two insertions at one place both survive in a CRDT and are no conflict, unless they insert the
same text, which would then stand there twice.

    >>> text_conflicts("a.txt", "1\n2\n3\n", "1\ntwo\n3\n", "1\nzwei\n3\n")[0].theirs
    'two\n'
    >>> text_conflicts("a.txt", "1\n2\n3\n", "one\n2\n3\n", "1\n2\ndrei\n")
    []
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from angelos.angelgit.documents.edits import Hunk, line_hunks, lines
from angelos.angelgit.documents.notebook import moved_cells, same

_MAX_TEXT = 4_000


class MergeConflict(msgspec.Struct, frozen=True, kw_only=True):
    """Lines (from 1) of the base that were changed on both sides, with the three texts."""

    path: str
    start: int
    end: int
    """Last line; smaller than `start` where nothing stood before."""
    base: str
    theirs: str
    """As it is in `dev` now."""
    yours: str
    cell: str = ""
    """Id of the notebook cell that the lines are counted in."""
    what: str = "text"


def evidence(conflicts: list[MergeConflict]) -> list[dict[str, Any]]:
    """Return conflicts as plain data for an error's `extra`, texts bounded."""
    rows = [msgspec.structs.asdict(conflict) for conflict in conflicts[:20]]
    for row in rows:
        for side in ("base", "theirs", "yours"):
            if len(row[side]) > _MAX_TEXT:
                row[side] = row[side][:_MAX_TEXT] + "..."
    return rows


def file_conflict(path: str, base: str, theirs: str, yours: str, what: str) -> MergeConflict:
    """Return a conflict that concerns a file as a whole, such as one deleted on one side."""
    return MergeConflict(
        path=path, start=1, end=len(lines(base)), base=base, theirs=theirs, yours=yours, what=what
    )


def text_conflicts(
    path: str, base: str, theirs: str, yours: str, cell: str = ""
) -> list[MergeConflict]:
    """Return where `base` -> `theirs` and `base` -> `yours` overlap."""
    ours, others = line_hunks(base, yours), line_hunks(base, theirs)
    b, t, y = lines(base), lines(theirs), lines(yours)
    found: list[MergeConflict] = []
    for low, high, mine, their in clusters(ours, others, y, t):
        t_low, t_high = changed_range(others, their, low, high)
        y_low, y_high = changed_range(ours, mine, low, high)
        found.append(
            MergeConflict(
                path=path,
                start=low + 1,
                end=high,
                base="".join(b[low:high]),
                theirs="".join(t[t_low:t_high]),
                yours="".join(y[y_low:y_high]),
                cell=cell,
            )
        )
    return found


def _overlap(a: Hunk, b: Hunk, a_lines: list[str], b_lines: list[str]) -> bool:
    if a.start == a.end and b.start == b.end:
        same = a_lines[a.new_start : a.new_end] == b_lines[b.new_start : b.new_end]
        return a.start == b.start and (same or (_open(a, a_lines) and _open(b, b_lines)))
    # Nothing can come behind a last line that has no end.
    if a.start == a.end:
        return b.start < a.start < b.end or (a.start == b.end and _open(b, b_lines))
    if b.start == b.end:
        return a.start < b.start < a.end or (b.start == a.end and _open(a, a_lines))
    return a.start < b.end and b.start < a.end


def _open(hunk: Hunk, text: list[str]) -> bool:
    """Tell whether what a hunk puts in ends without a line feed."""
    return hunk.new_start < hunk.new_end and not text[hunk.new_end - 1].endswith("\n")


def clusters(
    ours: list[Hunk], others: list[Hunk], y: list[str], t: list[str]
) -> list[tuple[int, int, list[Hunk], list[Hunk]]]:
    """Group hunks that overlap each other, directly or through others, into ranges."""
    groups: list[tuple[int, int, list[Hunk], list[Hunk]]] = []
    for mine in ours:
        hits = [other for other in others if _overlap(mine, other, y, t)]
        if not hits:
            continue
        low = min(mine.start, *(h.start for h in hits))
        high = max(mine.end, *(h.end for h in hits))
        if groups and any(h in groups[-1][3] for h in hits):
            last = groups.pop()
            low, high = min(low, last[0]), max(high, last[1])
            theirs = last[3] + [h for h in hits if h not in last[3]]
            groups.append((low, high, [*last[2], mine], theirs))
        else:
            groups.append((low, high, [mine], hits))
    return groups


def changed_range(hunks: list[Hunk], inside: list[Hunk], low: int, high: int) -> tuple[int, int]:
    """Return the lines of the changed text that stand for base lines `low:high`."""
    shift = sum(_grow(h) for h in hunks if h not in inside and h.end <= low)
    return low + shift, high + shift + sum(_grow(h) for h in inside)


def _grow(hunk: Hunk) -> int:
    return (hunk.new_end - hunk.new_start) - (hunk.end - hunk.start)


# -- notebooks -------------------------------------------------------------------------------


def notebook_conflicts(
    path: str, base: dict[str, Any], theirs: dict[str, Any], yours: dict[str, Any]
) -> list[MergeConflict]:
    """Return the cells (and metadata) that both sides changed; lines count within a cell."""
    cells = [{c["id"]: c for c in nb["cells"]} for nb in (base, theirs, yours)]
    order = [[c["id"] for c in nb["cells"]] for nb in (base, theirs, yours)]
    moved = [moved_cells(order[0], order[1]), moved_cells(order[0], order[2])]
    found: list[MergeConflict] = []
    for cell_id, before in cells[0].items():
        found += _cell_conflicts(path, before, cells[1].get(cell_id), cells[2].get(cell_id))
        # A cell moves by being deleted and made anew, so whatever else happens to it is lost.
        if (
            cell_id in moved[0] and (cell_id in moved[1] or not same(cells[2].get(cell_id), before))
        ) or (cell_id in moved[1] and not same(cells[1].get(cell_id), before)):
            found.append(
                _cell(path, before, cells[1].get(cell_id), cells[2].get(cell_id), "moved cell")
            )
    for cell_id in (cells[1].keys() & cells[2].keys()) - cells[0].keys():
        found.append(_cell(path, None, cells[1][cell_id], cells[2][cell_id], "new cell"))
    meta = [
        {**nb["metadata"], "nbformat_minor": nb["nbformat_minor"]} for nb in (base, theirs, yours)
    ]
    if keys := _both(*meta):
        found += [_plain(path, "", f"metadata.{k}", *(m.get(k) for m in meta)) for k in keys]
    return found


def _cell_conflicts(
    path: str,
    base: dict[str, Any],
    theirs: dict[str, Any] | None,
    yours: dict[str, Any] | None,
) -> list[MergeConflict]:
    if theirs is None or yours is None:
        rest = theirs or yours
        ran = ("outputs", "execution_count")
        if rest is None or all(same(rest.get(k), base.get(k)) for k in {*rest, *base} - {*ran}):
            return []
        return [_cell(path, base, theirs, yours, "deleted cell")]
    found = text_conflicts(path, base["source"], theirs["source"], yours["source"], base["id"])
    flat = [
        {k: v for k, v in c.items() if k not in ("source", "metadata")}
        for c in (base, theirs, yours)
    ]
    meta = [{f"metadata.{k}": v for k, v in c["metadata"].items()} for c in (base, theirs, yours)]
    both = [{**f, **m} for f, m in zip(flat, meta, strict=True)]
    for key in _both(*both):
        found.append(_plain(path, base["id"], key, *(side.get(key) for side in both)))
    return found


def _both(base: dict[str, Any], theirs: dict[str, Any], yours: dict[str, Any]) -> list[str]:
    """Return the keys that both sides changed; outputs count even when changed alike."""
    return sorted(
        key
        for key in {*base, *theirs, *yours}
        if not same(theirs.get(key), base.get(key))
        and not same(yours.get(key), base.get(key))
        and (key == "outputs" or not same(theirs.get(key), yours.get(key)))
    )


def _cell(
    path: str,
    base: dict[str, Any] | None,
    theirs: dict[str, Any] | None,
    yours: dict[str, Any] | None,
    what: str,
) -> MergeConflict:
    texts = [c["source"] if c else "" for c in (base, theirs, yours)]
    cell = next(c["id"] for c in (base, theirs, yours) if c)
    return MergeConflict(
        path=path,
        start=1,
        end=len(lines(texts[0])),
        base=texts[0],
        theirs=texts[1],
        yours=texts[2],
        cell=cell,
        what=what,
    )


def _plain(path: str, cell: str, key: str, base: Any, theirs: Any, yours: Any) -> MergeConflict:
    texts = [json.dumps(v, ensure_ascii=False, sort_keys=True) for v in (base, theirs, yours)]
    return MergeConflict(
        path=path,
        start=1,
        end=1,
        base=texts[0],
        theirs=texts[1],
        yours=texts[2],
        cell=cell,
        what=key,
    )
