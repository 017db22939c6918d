r"""Pending edits as an overlay: a proposal in hunks, placed on the live text, and parts of it.

A hunk is the smallest piece that can be accepted by itself: some lines, or for a notebook some
lines of a cell, a cell's outputs or metadata, or a cell that is new, deleted or moved.

    >>> hunks = hunks_of("a.txt", "1\n2\n3\n", "one\n2\nthree\n")
    >>> [(hunk.start, hunk.end, hunk.after) for hunk in hunks]
    [(1, 1, 'one\n'), (3, 3, 'three\n')]
    >>> part_text("a.txt", "1\n2\n3\n", "one\n2\nthree\n", {hunks[1].id})
    '1\n2\nthree\n'
    >>> [hunk.at for hunk in placed(hunks, "a.txt", "1\n2\n3\n", "new\n1\n2\n3\n")]
    [2, 4]

Pure and sometimes expensive: the callers use `in_thread`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.documents.edits import Hunk, line_hunks, lines
from angelos.angelgit.documents.notebook import Json, json_equal, moved_cells
from angelos.angelgit.merge.conflicts import ConflictKind, MergeConflict
from angelos.angelgit.merge.files import FileContent
from angelos.core.ids import HunkId
from angelos.core.pending import ChangeKind, EditConflict, PendingHunk, hunk_id
from angelos.core.revision_v2 import EntryMode

_OUTPUTS = ("outputs", "execution_count")
_KINDS = {
    ConflictKind.lines: ChangeKind.text,
    ConflictKind.cell_added: ChangeKind.created,
    ConflictKind.cell_deleted: ChangeKind.deleted,
    ConflictKind.cell_moved: ChangeKind.moved,
    ConflictKind.key: ChangeKind.metadata,
    ConflictKind.file_deleted: ChangeKind.deleted,
    ConflictKind.file_recreated: ChangeKind.deleted,
    ConflictKind.file_rewritten: ChangeKind.text,
    ConflictKind.deleted_file_changed: ChangeKind.deleted,
    ConflictKind.path_taken: ChangeKind.created,
    ConflictKind.path_blocked: ChangeKind.created,
}


def hunks_of(path: str, before: str | None, after: str | None) -> tuple[PendingHunk, ...]:
    """Return the hunks of one file's change, in order of place; None stands for no file."""
    if before == after:
        return ()
    if before is None or after is None:
        kind = ChangeKind.created if before is None else ChangeKind.deleted
        whole = _hunk(path, kind, before=before or "", after=after or "")
        return _with_ids([whole])
    if is_notebook(path):
        books = (notebook.load(before, path), notebook.load(after, path))
        return _with_ids(_notebook_hunks(path, *books))
    return _with_ids(_text_hunks(path, before, after))


def file_hunks(
    path: str, to: str, before: FileContent | None, after: FileContent | None
) -> tuple[PendingHunk, ...]:
    """Return the hunks of a file as a whole: it moves, its mode changes, or it is no text."""
    moved = _hunk(path, ChangeKind.moved, before=path, after=to)
    hunks = [msgspec.structs.replace(moved, to=to)] if to else []
    bodies = [side for side in (before, after) if side is not None]
    if before and after and before.mode is not after.mode and _by_itself(before, after):
        hunks.append(_hunk(path, ChangeKind.mode, before=before.mode.name, after=after.mode.name))
    elif before != after and not all(side.live for side in bodies):
        texts = [side.shown if side else "" for side in (before, after)]
        hunks.append(_hunk(path, _whole_kind(before, after), before=texts[0], after=texts[1]))
    return _with_ids(hunks)


def _whole_kind(before: FileContent | None, after: FileContent | None) -> ChangeKind:
    if before is None or after is None:
        return ChangeKind.created if before is None else ChangeKind.deleted
    links = EntryMode.symlink in (before.mode, after.mode)
    return ChangeKind.link if links else ChangeKind.blob


def _by_itself(before: FileContent, after: FileContent) -> bool:
    """Return whether a mode is a change of its own, beside that of the content."""
    return before.body == after.body or (before.live and after.live)


def placed(
    hunks: Sequence[PendingHunk], path: str, before: str, live: str
) -> tuple[PendingHunk, ...]:
    """Return hunks with the line at which each is in the live text, 0 where it is in none."""
    if not is_notebook(path):
        shifts = line_hunks(before, live)
        return tuple(_placed(hunk, shifts) for hunk in hunks)
    old, now = (_by_id(notebook.load(text, path)) for text in (before, live))
    shifts_of = {
        cell: line_hunks(old[cell]["source"], now[cell]["source"])
        for cell in {hunk.cell for hunk in hunks if hunk.kind is ChangeKind.text}
        if cell in old and cell in now
    }
    return tuple(
        _placed(hunk, shifts_of[hunk.cell]) if hunk.cell in shifts_of else hunk for hunk in hunks
    )


def part_text(path: str, before: str, after: str, chosen: Collection[HunkId]) -> str:
    """Return `before` with the chosen hunks of its change to `after`, and no others."""
    hunks = [hunk for hunk in hunks_of(path, before, after) if hunk.id in chosen]
    if not is_notebook(path):
        return _with_lines(before, hunks)
    old, new = notebook.load(before, path), notebook.load(after, path)
    return notebook.dump(_with_cells(old, new, hunks))


def edit_conflict(conflict: MergeConflict) -> EditConflict:
    """Return a conflict as the API shows it."""
    by_lines = conflict.kind is ConflictKind.lines
    return EditConflict(
        path=conflict.path,
        kind=_KINDS[conflict.kind],
        cell=conflict.cell,
        start=conflict.start if by_lines else 0,
        end=conflict.end if by_lines else 0,
        base=conflict.base,
        current=conflict.theirs,
        proposed=conflict.yours,
    )


# -- hunks -----------------------------------------------------------------------------------


def _hunk(
    path: str,
    kind: ChangeKind,
    cell: str = "",
    *,
    before: str = "",
    after: str = "",
    rows: Hunk | None = None,
) -> PendingHunk:
    return PendingHunk(
        id=HunkId(""),
        path=path,
        kind=kind,
        cell=cell,
        before=before,
        after=after,
        start=rows.start + 1 if rows else 0,
        end=rows.end if rows else 0,
    )


def _with_ids(hunks: list[PendingHunk]) -> tuple[PendingHunk, ...]:
    repeated: Counter[HunkId] = Counter()
    named: list[PendingHunk] = []
    for hunk in hunks:
        first = hunk_id(hunk)
        named.append(msgspec.structs.replace(hunk, id=hunk_id(hunk, repeated[first])))
        repeated[first] += 1
    return tuple(named)


def _text_hunks(path: str, before: str, after: str, cell: str = "") -> list[PendingHunk]:
    old, new = lines(before), lines(after)
    return [
        _hunk(
            path,
            ChangeKind.text,
            cell,
            before="".join(old[rows.start : rows.end]),
            after="".join(new[rows.new_start : rows.new_end]),
            rows=rows,
        )
        for rows in line_hunks(before, after)
    ]


def _notebook_hunks(path: str, before: Json, after: Json) -> list[PendingHunk]:
    old, new = _by_id(before), _by_id(after)
    moved = moved_cells(list(old), list(new))
    hunks: list[PendingHunk] = []
    for cell_id in [*old, *(cell for cell in new if cell not in old)]:
        if cell_id in moved:
            hunks.append(_hunk(path, ChangeKind.moved, cell_id))
        hunks += _cell_hunks(path, cell_id, old.get(cell_id), new.get(cell_id))
    hunks = [_with_previous(hunk, list(new)) for hunk in hunks]
    sides = [{key: book[key] for key in book if key != "cells"} for book in (before, after)]
    if not json_equal(*sides):
        texts = [_outline(ChangeKind.metadata, side) for side in sides]
        hunks.append(_hunk(path, ChangeKind.metadata, before=texts[0], after=texts[1]))
    return hunks


def _with_previous(hunk: PendingHunk, cells: list[str]) -> PendingHunk:
    """Return the hunk of a cell that gets a place with the cell before that."""
    if hunk.kind not in (ChangeKind.created, ChangeKind.moved):
        return hunk
    place = cells.index(hunk.cell)
    return msgspec.structs.replace(hunk, previous=cells[place - 1] if place else "")


def _cell_hunks(path: str, cell: str, was: Json | None, now: Json | None) -> list[PendingHunk]:
    if was is None or now is None:
        kind = ChangeKind.created if was is None else ChangeKind.deleted
        texts = [side["source"] if side else "" for side in (was, now)]
        return [_hunk(path, kind, cell, before=texts[0], after=texts[1])]
    hunks = _text_hunks(path, was["source"], now["source"], cell)
    for kind, sides in _cell_values(was, now):
        if not json_equal(*sides):
            texts = [_outline(kind, side) for side in sides]
            hunks.append(_hunk(path, kind, cell, before=texts[0], after=texts[1]))
    return hunks


def _cell_values(was: Json, now: Json) -> Iterator[tuple[ChangeKind, tuple[Json, Json]]]:
    """Yield what a cell has beside its source, before and after."""
    yield ChangeKind.outputs, (_only(was, _OUTPUTS), _only(now, _OUTPUTS))
    others = [_without(cell, ("id", "source", *_OUTPUTS)) for cell in (was, now)]
    yield ChangeKind.metadata, (others[0], others[1])


def _outline(kind: ChangeKind, value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if kind is ChangeKind.outputs:
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return text


def _placed(hunk: PendingHunk, shifts: Sequence[Hunk]) -> PendingHunk:
    if hunk.kind is not ChangeKind.text:
        return hunk
    first = hunk.start - 1
    shift = 0
    for other in shifts:
        if other.start < hunk.end and first < other.end:
            return hunk  # the lines themselves have changed
        if other.end <= first:
            shift += (other.new_end - other.new_start) - (other.end - other.start)
    return msgspec.structs.replace(hunk, at=hunk.start + shift)


# -- parts -----------------------------------------------------------------------------------


def _with_lines(text: str, hunks: Sequence[PendingHunk]) -> str:
    rows = lines(text)
    for hunk in sorted(hunks, key=lambda hunk: hunk.start, reverse=True):
        rows[hunk.start - 1 : hunk.end] = [hunk.after]
    return "".join(rows)


def _with_cells(old: Json, new: Json, hunks: Sequence[PendingHunk]) -> Json:
    of_cell: dict[str, list[PendingHunk]] = {}
    for hunk in hunks:
        of_cell.setdefault(hunk.cell, []).append(hunk)
    before, after = _by_id(old), _by_id(new)
    cells: dict[str, Json] = {}
    for cell_id in {**before, **after}:
        own = of_cell.get(cell_id, ())
        kinds = {hunk.kind for hunk in own}
        if ChangeKind.created in kinds:
            cells[cell_id] = after[cell_id]
        elif cell_id in before and ChangeKind.deleted not in kinds:
            cells[cell_id] = _with_values(before[cell_id], after.get(cell_id), own)
    placing = (ChangeKind.created, ChangeKind.moved)
    floating = {hunk.cell for hunk in hunks if hunk.cell and hunk.kind in placing}
    fixed = [cell for cell in before if cell in cells and cell not in floating]
    header = new if "" in of_cell else old
    order = _order(fixed, list(after), floating)
    return {**_without(header, ("cells",)), "cells": [cells[cell] for cell in order]}


def _order(fixed: Sequence[str], after: Sequence[str], floating: Collection[str]) -> list[str]:
    """Return the cells that stay with those that float, each behind its predecessor in `after`."""
    order = list(fixed)
    previous = ""
    for cell_id in after:
        if cell_id in floating:
            order.insert(order.index(previous) + 1 if previous else 0, cell_id)
        if cell_id in order:
            previous = cell_id
    return order


def _with_values(was: Json, now: Json | None, hunks: Sequence[PendingHunk]) -> Json:
    """Return a cell with the chosen ones of its changes."""
    cell = dict(was)
    cell["source"] = _with_lines(
        was["source"], [hunk for hunk in hunks if hunk.kind is ChangeKind.text]
    )
    kinds = {hunk.kind for hunk in hunks}
    if now is not None and ChangeKind.outputs in kinds:
        cell = {**_without(cell, _OUTPUTS), **_only(now, _OUTPUTS)}
    if now is not None and ChangeKind.metadata in kinds:
        unchanged = ("id", "source", *_OUTPUTS)
        cell = {**_only(cell, unchanged), **_without(now, unchanged)}
    return cell


def _by_id(book: Json) -> dict[str, Json]:
    return {cell["id"]: cell for cell in book["cells"]}


def _only(values: Mapping[str, object], keys: Collection[str]) -> Json:
    return {key: values[key] for key in keys if key in values}


def _without(values: Mapping[str, object], keys: Collection[str]) -> Json:
    return {key: value for key, value in values.items() if key not in keys}
