r"""The three-way line merge of texts: whatever is written to a branch is what it gives.

`dev` and `main` are merged as git merges them, text by text: a CRDT merges characters by their
identity, not by what they say, and after a rollback equal texts may consist of other items.

The algorithm is diff3 (Khanna, Kunal, Pierce: "A Formal Investigation of Diff3", 2007): hunks of
the two sides that touch the same lines form an unstable chunk, everything else merges. Two
insertions at one place both survive, and a change that both sides made alike is one change. Where
both sides changed the same lines there is a conflict: `text` keeps the current side, `woven` both.
One sweep over the hunks of both sides does it, so the time grows with their number only.

    >>> merged = merge("a.txt", "1\n2\n3\n", "one\n2\n3\n", "1\n2\ndrei\n")
    >>> merged.text, merged.has_conflicts
    ('one\n2\ndrei\n', False)
    >>> merge("a.txt", "1\n", "2\n", "3\n").has_conflicts
    True
    >>> merge("a.txt", "bad\n", "bad <typed>\n", "good\n").woven()
    'good <typed>\n'
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.documents.edits import Hunk, line_hunks, lines, text_edits
from angelos.angelgit.documents.notebook import Json, json_equal

_MISSING = object()
_IGNORED = {"outputs", "execution_count"}
"""Running a cell again is no reason to keep one that the other side deletes."""


_Lines = tuple[list[str], list[str]]


class Chunk(NamedTuple):
    """A part of the merged text: stable, merged, or a conflict."""

    text: str
    """The merged text, or that of the current side."""
    proposed: str = ""
    base: str = ""
    conflict: bool = False
    start: int = 0
    """The first line of the base that it replaces (from 0)."""
    end: int = 0


class TextMerge(NamedTuple):
    """The merge of three texts."""

    chunks: tuple[Chunk, ...]

    @property
    def text(self) -> str:
        """The merged text; the current side wins conflicts."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def has_conflicts(self) -> bool:
        """Whether both sides changed the same lines differently."""
        return any(chunk.conflict for chunk in self.chunks)

    def woven(self, *, force: bool = False) -> str | None:
        """Return the text in which conflicts hold both sides' work, None if that cannot be.

        Args:
            force: where it cannot be, keep of the current side what it has changed, and nothing
                of the base. A rollback does so: it never fails, and nothing typed is lost.
        """
        parts: list[str] = []
        for chunk in self.chunks:
            part = _weave(chunk) if chunk.conflict else chunk.text
            if part is None:
                if not force:
                    return None
                part = _changed_lines(chunk)
            parts.append(part)
        return "".join(parts)


class CellRun(NamedTuple):
    """A cell that keeps its position, and the cells that each side puts behind it."""

    anchor: str
    """Id of the cell, "" for the beginning of the notebook."""
    current: tuple[str, ...]
    proposed: tuple[str, ...]

    @property
    def cells(self) -> list[str]:
        """All cells in order."""
        return [*([self.anchor] if self.anchor else []), *self.current, *self.proposed]


class NotebookMerge(NamedTuple):
    """The merge of three notebooks: cells by id, their sources by line, the rest by key."""

    cells: Mapping[str, Json]
    """The cells without their sources."""
    sources: Mapping[str, TextMerge]
    removed: Mapping[str, TextMerge]
    """Of the cells that the proposed side deletes and the current one changed: what stays."""
    runs: tuple[CellRun, ...]
    header: Json
    """Metadata and format of the notebook."""
    clash: bool
    """There is a conflict outside of the cells' sources."""

    @property
    def has_conflicts(self) -> bool:
        """Whether both sides changed the same thing differently."""
        return self.clash or any(source.has_conflicts for source in self.sources.values())

    @property
    def text(self) -> str:
        """The merged notebook; the current side comes first and wins conflicts."""
        return self._dump({cell: source.text for cell, source in self.sources.items()})

    def woven(self, *, force: bool = False) -> str | None:
        """Return the notebook in which conflicts hold both sides' work; see `TextMerge.woven`."""
        if self.clash and not force:
            return None
        sources: dict[str, str] = {}
        for cell in self.sources:
            source = self.removed.get(cell, self.sources[cell]).woven(force=force)
            if source is None:
                return None
            if source or cell not in self.removed:
                sources[cell] = source
        return self._dump(sources)

    def _dump(self, sources: Mapping[str, str]) -> str:
        order = [cell for run in self.runs for cell in run.cells if cell in sources]
        cells = [{**self.cells[cell], "source": sources[cell]} for cell in order]
        return notebook.dump({**self.header, "cells": cells})


MergeResult = TextMerge | NotebookMerge


def merge(path: str, base: str, current: str, proposed: str) -> MergeResult:
    """Return the merge of two canonical texts that come from `base`.

    Args:
        path: decides whether the texts are notebooks.
        base: the common ancestor.
        current: the text of the branch that is merged into; it wins conflicts.
        proposed: the text that is merged.
    """
    if is_notebook(path) and len({base, current, proposed}) == 3:  # noqa: PLR2004 - all differ
        books = [notebook.load(text, path) for text in (base, current, proposed)]
        return _merge_notebooks(*books)
    return merge_text(base, current, proposed)


def merged_text(base: str, current: str, proposed: str) -> str | None:
    """Return the line merge of two texts that come from `base`, None if they conflict."""
    merged = merge_text(base, current, proposed)
    return None if merged.has_conflicts else merged.text


def merge_text(base: str, current: str, proposed: str) -> TextMerge:
    """Return the line merge of two texts that come from `base`."""
    if proposed in (base, current):
        return TextMerge((Chunk(current),))
    if current == base:
        return TextMerge((Chunk(proposed),))
    base_lines = lines(base)
    chunks: list[Chunk] = []
    end = 0
    for change in _changes(base, current, proposed, base_lines):
        if change.start > end:
            chunks.append(Chunk("".join(base_lines[end : change.start])))
        chunks.append(change)
        end = max(end, change.end)
    if end < len(base_lines):
        chunks.append(Chunk("".join(base_lines[end:])))
    return TextMerge(tuple(chunks))


class HunkGroup(NamedTuple):
    """Hunks of both sides that overlap each other, directly or through another hunk.

    As diff3's unstable chunks: a hunk of one side that spans two hunks of the other joins them
    into one range, because no line between the two is common to all three texts.
    """

    low: int
    high: int
    sides: tuple[list[Hunk], list[Hunk]]


def group_hunks(sides: tuple[Sequence[Hunk], Sequence[Hunk]], texts: _Lines) -> list[HunkGroup]:
    """Return the hunks of both sides in order, with those that overlap in one group."""
    ordered = sorted(
        ((hunk, side) for side in (0, 1) for hunk in sides[side]),
        key=lambda row: (row[0].start, row[0].end, row[1]),
    )
    groups: list[HunkGroup] = []
    for hunk, side in ordered:
        last = groups[-1] if groups else None
        others = last.sides[1 - side] if last else []
        if last and others and _overlap(hunk, others[-1], texts[side], texts[1 - side]):
            last.sides[side].append(hunk)
            groups[-1] = last._replace(high=max(last.high, hunk.end))
        else:
            group = HunkGroup(hunk.start, hunk.end, ([], []))
            group.sides[side].append(hunk)
            groups.append(group)
    return groups


def _changes(base: str, current: str, proposed: str, base_lines: list[str]) -> Iterable[Chunk]:
    """Yield the changed ranges of base lines in order."""
    texts = (lines(current), lines(proposed))
    hunks = (line_hunks(base, current), line_hunks(base, proposed))
    shifts = [0, 0]
    changes: list[Chunk] = []
    for low, high, sides in group_hunks(hunks, texts):
        sections = ["", ""]
        for side in (0, 1):
            growth = sum(h.new_end - h.new_start - h.end + h.start for h in sides[side])
            start, shifts[side] = low + shifts[side], shifts[side] + growth
            sections[side] = "".join(texts[side][start : high + shifts[side]])
        ours, new = sections
        if not (sides[0] and sides[1]):
            change = Chunk(ours if sides[0] else new, start=low, end=high)
            last = changes[-1] if changes else None
            # Sorted, so an insertion of the current side comes right before the proposed one.
            if last and not last.conflict and last.start == last.end == low == high:
                change = Chunk(_insertions(last.text, change.text), start=low, end=high)
                changes.pop()
            changes.append(change)
        elif ours == new:
            changes.append(Chunk(ours, start=low, end=high))
        else:
            old = "".join(base_lines[low:high])
            changes.append(Chunk(ours, new, old, conflict=True, start=low, end=high))
    return changes


def _overlap(a: Hunk, b: Hunk, a_lines: list[str], b_lines: list[str]) -> bool:
    if a.start == a.end and b.start == b.end:
        equal = a_lines[a.new_start : a.new_end] == b_lines[b.new_start : b.new_end]
        unordered = _unterminated(a, a_lines) and _unterminated(b, b_lines)
        return a.start == b.start and (equal or unordered)
    # No line can follow a last line that has no line feed, so touching it is overlapping it.
    if a.start == a.end:
        return b.start < a.start < b.end or (a.start == b.end and _unterminated(b, b_lines))
    if b.start == b.end:
        return a.start < b.start < a.end or (b.start == a.end and _unterminated(a, a_lines))
    return a.start < b.end and b.start < a.end


def _unterminated(hunk: Hunk, text: list[str]) -> bool:
    """Return whether the inserted text ends without a line feed."""
    return hunk.new_start < hunk.new_end and not text[hunk.new_end - 1].endswith("\n")


def _insertions(current: str, proposed: str) -> str:
    """Return two insertions at one place; a line without a line feed can only be the last."""
    return proposed + current if not current.endswith("\n") else current + proposed


def _weave(chunk: Chunk) -> str | None:
    """Return the proposed text with what the current side inserted, None if that is no text.

    If the current side deleted something, or no proposed line is left around its words, the
    remainder would be text that nobody wrote.
    """
    base = chunk.base.encode()
    inserted = text_edits(chunk.base, chunk.text)[::-1]
    if any(edit.delete for edit in inserted):
        return None
    whole_lines = sum(
        edit.insert.count("\n")
        for edit in inserted
        if base[: edit.at][-1:] in (b"", b"\n") and edit.insert.endswith("\n")
    )
    # Where both insert, the current side comes behind: it was typed after what it is in.
    events = [(edit.at, 0, edit) for edit in text_edits(chunk.base, chunk.proposed)]
    events += [(edit.at, 1, edit) for edit in inserted]
    parts: list[bytes] = []
    end = 0
    for at, side, edit in sorted(events, key=lambda event: event[:2]):
        parts += [base[end:at], edit.insert.encode()]
        end = max(end, at) if side else max(end, at + edit.delete)
    result = b"".join([*parts, base[end:]]).decode()
    return result if len(lines(result)) == len(lines(chunk.proposed)) + whole_lines else None


def _changed_lines(chunk: Chunk) -> str:
    """Return what the current side has changed in a conflict, and nothing of the base.

    Of a line into which it only inserted that is what was inserted, behind the proposed text; a
    line that it rewrote stays whole, in place of the proposed text.
    """
    base_lines, current_lines = lines(chunk.base), lines(chunk.text)
    changed: list[str] = []
    rewritten = False
    for hunk in line_hunks(chunk.base, chunk.text):
        old = "".join(base_lines[hunk.start : hunk.end])
        new = "".join(current_lines[hunk.new_start : hunk.new_end])
        edits = text_edits(old, new)[::-1]
        if any(edit.delete for edit in edits):
            changed.append(new)
            rewritten |= bool(new)
        else:
            inserted = "".join(edit.insert for edit in edits)
            ends = new.endswith("\n") and not inserted.endswith("\n")
            changed.append(inserted + ("\n" if ends else ""))
    proposed = "" if rewritten else chunk.proposed
    rest = "".join(changed)
    separated = not proposed or not rest or proposed.endswith("\n")
    return proposed + ("" if separated else "\n") + rest


# -- notebooks -------------------------------------------------------------------------------


def _merge_notebooks(base: Json, current: Json, proposed: Json) -> NotebookMerge:
    old, now, new = ({c["id"]: c for c in book["cells"]} for book in (base, current, proposed))
    moved = [notebook.moved_cells(list(old), list(side)) for side in (now, new)]
    cells: dict[str, Json] = {}
    sources: dict[str, TextMerge] = {}
    removed: dict[str, TextMerge] = {}
    clash = False
    for cell_id in {**now, **new, **old}:
        sides = (old.get(cell_id), now.get(cell_id), new.get(cell_id))
        merged, conflict = _merge_cell_sides(*sides)
        clash |= conflict
        if merged is not None:
            cells[cell_id], sources[cell_id] = merged
        if conflict and sides[0] and sides[1] and not sides[2]:
            removed[cell_id] = merge_text(sides[0]["source"], sides[1]["source"], "")
    for cell_id in moved[0] | moved[1]:
        # One may move a cell that the other edits: what they made of it is merged in its new place.
        placed = [cell_id in moved[i] or cell_id not in side for i, side in enumerate((now, new))]
        clash |= all(placed) and list(now) != list(new)
    header: Json = {}
    for key in ("nbformat", "nbformat_minor"):
        header[key], conflict = _merge_value(base[key], current[key], proposed[key])
        clash |= conflict
    header["metadata"], conflict = _merge_mappings(
        base["metadata"], current["metadata"], proposed["metadata"]
    )
    runs = _cell_runs(cells, (old, now, new), moved)
    return NotebookMerge(cells, sources, removed, runs, header, clash | conflict)


def _merge_cell_sides(
    base: Json | None, current: Json | None, proposed: Json | None
) -> tuple[tuple[Json, TextMerge] | None, bool]:
    """Return a cell's merge and whether it conflicts apart from its source; None: it is deleted."""
    if base is None:
        added = current or proposed or {}
        both = current is not None and proposed is not None
        merged, inner = _merge_cell(added, added, added)
        return merged, inner | (both and not json_equal(current, proposed))
    if current is not None and proposed is not None:
        return _merge_cell(base, current, proposed)
    remaining = current or proposed
    conflict = remaining is not None and any(
        not json_equal(remaining.get(k), base.get(k)) for k in {*remaining, *base} - _IGNORED
    )
    if not conflict or current is None:
        return None, conflict
    merged, _ = _merge_cell(base, current, base)
    return merged, True


def _merge_cell(base: Json, current: Json, proposed: Json) -> tuple[tuple[Json, TextMerge], bool]:
    sides = (base, current, proposed)
    source = merge_text(*(side["source"] for side in sides))
    values = [{k: v for k, v in c.items() if k not in ("source", "metadata")} for c in sides]
    cell, conflict = _merge_mappings(*values)
    metadata = (side.get("metadata", {}) for side in sides)
    cell["metadata"], metadata_conflict = _merge_mappings(*metadata)
    return (cell, source), conflict | metadata_conflict


def _cell_runs(
    cells: Mapping[str, Json], sides: Sequence[Mapping[str, Json]], moved: Sequence[set[str]]
) -> tuple[CellRun, ...]:
    """Return the order of the merged cells: anchors in the base's order, additions behind them."""
    old, now, new = sides
    moved_anywhere = moved[0] | moved[1]
    anchors = dict.fromkeys(
        c for c in old if c in cells and c in now and c in new and c not in moved_anywhere
    )
    floating = cells.keys() - set(anchors)
    of_current = {
        c for c in floating if c in now and (c not in old or c in moved[0] or c not in new)
    }
    current = _additions(now, anchors, of_current)
    proposed = _additions(new, anchors, floating - of_current)
    return tuple(
        CellRun(anchor, tuple(current.get(anchor, ())), tuple(proposed.get(anchor, ())))
        for anchor in ("", *anchors)
    )


def _additions(
    side: Iterable[str], anchors: Collection[str], own: Collection[str]
) -> dict[str, list[str]]:
    """Return, by anchor, the cells of `own` that a side has behind it, "" for the beginning."""
    additions: dict[str, list[str]] = {}
    anchor = ""
    for cell_id in side:
        if cell_id in anchors:
            anchor = cell_id
        elif cell_id in own:
            additions.setdefault(anchor, []).append(cell_id)
    return additions


def _merge_mappings(base: Json, current: Json, proposed: Json) -> tuple[Json, bool]:
    """Return the merge of two mappings by key, and whether both changed a key differently."""
    merged: Json = {}
    has_conflicts = False
    for key in {**current, **proposed}:
        sides = (side.get(key, _MISSING) for side in (base, current, proposed))
        value, conflict = _merge_value(*sides)
        has_conflicts |= conflict
        if value is not _MISSING:
            merged[key] = value
    return merged, has_conflicts


def _merge_value(base: object, current: object, proposed: object) -> tuple[object, bool]:
    """Return the merge of three JSON values, and whether both sides changed them differently."""
    if json_equal(proposed, base):
        return current, False
    if json_equal(current, base):
        return proposed, False
    return current, not json_equal(current, proposed)
