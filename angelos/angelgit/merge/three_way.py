r"""The three-way line merge of texts, which the result of a CRDT merge must equal.

A CRDT merges characters by their identity, not by what they say: after a rollback equal texts may
consist of other items, and one update gives a different text on them. So everything that is to be
written is compared with the merge of the texts first (`rebase.py`).

The algorithm is diff3 (Khanna, Kunal, Pierce: "A Formal Investigation of Diff3", 2007): hunks of
the two sides that touch the same lines form an unstable chunk, everything else merges. Two
insertions at one place may come in either order. Where both sides changed the same lines there is
a conflict, and `text` keeps the current side.

    >>> merged = merge("a.txt", "1\n2\n3\n", "one\n2\n3\n", "1\n2\ndrei\n")
    >>> (merged.text, merged.has_conflicts, merged.accepts("one\n2\ndrei\n"))
    ('one\n2\ndrei\n', False, True)
    >>> merge("a.txt", "1\n", "2\n", "3\n").has_conflicts
    True
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.documents.edits import Hunk, line_hunks, lines, text_edits
from angelos.angelgit.documents.notebook import Json, json_equal
from angelos.angelgit.merge import conflicts
from angelos.core.errors import InvalidInput

_MISSING = object()


class Chunk(NamedTuple):
    """A part of the merged text: stable, two insertions in either order, or a conflict."""

    text: str
    """The stable text, or that of the current side."""
    proposed: str = ""
    base: str = ""
    conflict: bool = False

    @property
    def orders(self) -> tuple[str, str]:
        """Both texts one after the other, in either order."""
        return self.text + self.proposed, self.proposed + self.text


class TextMerge(NamedTuple):
    """The merge of three texts."""

    chunks: tuple[Chunk, ...]

    @property
    def text(self) -> str:
        """The merged text; the current side comes first and wins conflicts."""
        return "".join(c.text if c.conflict else c.orders[0] for c in self.chunks)

    @property
    def has_conflicts(self) -> bool:
        """Whether both sides changed the same lines."""
        return any(c.conflict for c in self.chunks)

    def accepts(self, result: str) -> bool:
        """Return whether a text is a result of this merge; a conflict must keep both sides' work.

        Chunks may have several accepted texts, of different lengths, so this is a walk over the
        set of offsets at which a chunk can end, as in a simulation of a nondeterministic automaton.
        """
        ends = {0}
        for index in range(len(self.chunks)):
            ends = {end for start in ends for end in self._ends(result, start, index)}
        return len(result) in ends

    def _ends(self, result: str, start: int, index: int) -> Iterator[int]:
        """Yield the offsets where a chunk may end in `result` if it begins at `start`."""
        chunk = self.chunks[index]
        if not chunk.conflict:
            if result.startswith(chunk.orders, start):
                yield start + len(chunk.orders[0])
            return
        if index + 1 == len(self.chunks):
            if _resolves(chunk, result[start:]):
                yield len(result)
            return
        # Two conflicts are never adjacent, so a stable chunk follows. Only where that one can
        # begin is a resolution tried, and a resolution is never longer than both sides together.
        following = self.chunks[index + 1].orders
        for end in range(start, min(start + len(chunk.orders[0]), len(result)) + 1):
            if result.startswith(following, end) and _resolves(chunk, result[start:end]):
                yield end


class CellRun(NamedTuple):
    """A cell that keeps its position, and the cells that each side puts behind it."""

    anchor: str
    """Id of the cell, "" for the beginning of the notebook."""
    current: tuple[str, ...]
    proposed: tuple[str, ...]

    @property
    def head(self) -> list[str]:
        """The anchor as a list, empty at the beginning of the notebook."""
        return [self.anchor] if self.anchor else []


class NotebookMerge(NamedTuple):
    """The merge of three notebooks: cells by id, their sources by line, the rest by key."""

    path: str
    cells: Mapping[str, Json]
    """The cells without their sources."""
    sources: Mapping[str, TextMerge]
    runs: tuple[CellRun, ...]
    header: Json
    """Metadata and format of the notebook."""
    has_conflicts: bool

    @property
    def text(self) -> str:
        """The merged notebook; the current side comes first and wins conflicts."""
        order = [cell for run in self.runs for cell in (*run.head, *run.current, *run.proposed)]
        cells = [{**self.cells[c], "source": self.sources[c].text} for c in order]
        return notebook.dump({**self.header, "cells": cells})

    def accepts(self, result: str) -> bool:
        """Return whether a text is a result of this merge."""
        try:
            book = notebook.parse(result, self.path)
        except InvalidInput:  # two cells with one id, for instance
            return False
        cells = {c["id"]: c for c in book["cells"]}
        if cells.keys() != self.cells.keys() or any(
            not json_equal(book[key], value) for key, value in self.header.items()
        ):
            return False
        return self._accepts_order(list(cells)) and all(
            self._accepts_cell(cell_id, cell) for cell_id, cell in cells.items()
        )

    def _accepts_cell(self, cell_id: str, cell: Json) -> bool:
        values = {k: v for k, v in cell.items() if k != "source"}
        return json_equal(values, self.cells[cell_id]) and self.sources[cell_id].accepts(
            cell["source"]
        )

    def _accepts_order(self, order: list[str]) -> bool:
        """Return whether each run is in its place and each side's cells keep their order."""
        start = 0
        for run in self.runs:
            end = start + len(run.head) + len(run.current) + len(run.proposed)
            cells = order[start:end]
            start += len(cells)
            if cells[: len(run.head)] != run.head:
                return False
            for side in (run.current, run.proposed):
                if [c for c in cells if c in side] != list(side):
                    return False
        return start == len(order)


MergeResult = TextMerge | NotebookMerge


def merge(
    path: str, base: str, current: str, proposed: str, *, merge_alike: bool = False
) -> MergeResult:
    """Return the merge of two canonical texts that come from `base`.

    Args:
        path: decides whether the texts are notebooks.
        base: the common ancestor.
        current: the text of the branch that is merged into; it wins conflicts.
        proposed: the text that is merged.
        merge_alike: take a change that both sides made alike as one change, as between two
            branches that both hold it. Otherwise it is a conflict, as between two authors who do
            not know of each other.
    """
    if is_notebook(path):
        books = [notebook.parse(text, path) for text in (base, current, proposed)]
        return _merge_notebooks(path, *books, merge_alike=merge_alike)
    return merge_text(base, current, proposed, merge_alike=merge_alike)


def merge_text(base: str, current: str, proposed: str, *, merge_alike: bool = False) -> TextMerge:
    """Return the line merge of two texts that come from `base`."""
    base_lines = lines(base)
    chunks: list[Chunk] = []
    end = 0
    for low, high, chunk in _changes(base, current, proposed, merge_alike=merge_alike):
        chunks += [Chunk("".join(base_lines[end:low]))] if low > end else []
        chunks.append(chunk)
        end = max(end, high)
    if end < len(base_lines):
        chunks.append(Chunk("".join(base_lines[end:])))
    return TextMerge(tuple(chunks))


def _changes(
    base: str, current: str, proposed: str, *, merge_alike: bool
) -> list[tuple[int, int, Chunk]]:
    """Return the changed ranges of base lines (low, high) with their chunks, in order."""
    base_lines, current_lines, proposed_lines = lines(base), lines(current), lines(proposed)
    current_hunks, all_proposed = line_hunks(base, current), line_hunks(base, proposed)
    proposed_hunks = all_proposed
    if merge_alike:
        alike = {(h.start, h.end, *current_lines[h.new_start : h.new_end]) for h in current_hunks}
        proposed_hunks = [
            h
            for h in all_proposed
            if (h.start, h.end, *proposed_lines[h.new_start : h.new_end]) not in alike
        ]
    overlaps = conflicts.overlaps(current_hunks, proposed_hunks, current_lines, proposed_lines)
    changes: list[tuple[int, int, Chunk]] = []
    for low, high, inside_current, inside_proposed in overlaps:
        current_range = conflicts.changed_range(current_hunks, inside_current, low, high)
        # Hunks that both sides share shift the proposed lines too, so all of them count here.
        proposed_range = conflicts.changed_range(all_proposed, inside_proposed, low, high)
        ours = "".join(current_lines[slice(*current_range)])
        new = "".join(proposed_lines[slice(*proposed_range)])
        if merge_alike and ours == new:
            changes.append((low, high, Chunk(ours)))
        else:
            old = "".join(base_lines[low:high])
            changes.append((low, high, Chunk(ours, new, base=old, conflict=True)))
    changes += [
        _change(hunk, current_lines)
        for hunk in current_hunks
        if not any(hunk in overlap.current for overlap in overlaps)
    ]
    for hunk in proposed_hunks:
        if not any(hunk in overlap.proposed for overlap in overlaps):
            _add_change(changes, *_change(hunk, proposed_lines))
    return sorted(changes, key=lambda change: change[:2])


def _change(hunk: Hunk, text: list[str]) -> tuple[int, int, Chunk]:
    return hunk.start, hunk.end, Chunk("".join(text[hunk.new_start : hunk.new_end]))


def _add_change(changes: list[tuple[int, int, Chunk]], low: int, high: int, chunk: Chunk) -> None:
    """Add a proposed change; join it with an insertion of the current side at the same place."""
    for i, (start, end, existing) in enumerate(changes):
        if start == end == low == high and not existing.conflict:
            changes[i] = (low, high, _insertions(existing.text, chunk.text))
            return
    changes.append((low, high, chunk))


def _insertions(current: str, proposed: str) -> Chunk:
    """Return two insertions at one place; a line without a line feed can only be the last."""
    if not current.endswith("\n"):
        return Chunk(proposed + current)
    return Chunk(current, proposed) if proposed.endswith("\n") else Chunk(current + proposed)


def _resolves(chunk: Chunk, result: str) -> bool:
    """Return whether a text resolves a conflict without losing or mixing up anything.

    Everything that the current side inserted must be in it, piece by piece, and apart from that
    nothing but the proposed text: inserted lines as lines, inserted words inside a proposed line.
    If the current side deleted something, or no proposed line is left around its words, the
    remainder would be text that nobody wrote.
    """
    if result in (chunk.text, *chunk.orders):
        return True
    edits = text_edits(chunk.base, chunk.text)[::-1]
    if any(edit.delete for edit in edits):
        return False
    base = chunk.base.encode()
    remainder, start, inserted_lines = result, 0, 0
    for edit in edits:
        offset = remainder.find(edit.insert, start)
        if offset < 0:
            return False
        at_line_start = base[: edit.at][-1:] in (b"", b"\n")
        is_line = at_line_start and edit.insert.endswith("\n")
        if is_line and remainder[:offset][-1:] not in ("", "\n"):
            return False
        remainder = remainder[:offset] + remainder[offset + len(edit.insert) :]
        start, inserted_lines = offset, inserted_lines + edit.insert.count("\n")
    expected = len(lines(remainder)) + inserted_lines
    return remainder == chunk.proposed and len(lines(result)) == expected


# -- notebooks -------------------------------------------------------------------------------


def _merge_notebooks(
    path: str, base: Json, current: Json, proposed: Json, *, merge_alike: bool
) -> NotebookMerge:
    old, now, new = ({c["id"]: c for c in book["cells"]} for book in (base, current, proposed))
    moved = [notebook.moved_cells(list(old), list(side)) for side in (now, new)]
    cells: dict[str, Json] = {}
    sources: dict[str, TextMerge] = {}
    has_conflicts = False
    for cell_id in {**now, **new, **old}:
        sides = (old.get(cell_id), now.get(cell_id), new.get(cell_id))
        merged, conflict = _merge_cell_sides(*sides, merge_alike=merge_alike)
        has_conflicts |= conflict
        if merged is not None:
            cells[cell_id], sources[cell_id] = merged
    for cell_id in moved[0] | moved[1]:
        edited = [
            cell_id in moved[i] or not json_equal(side.get(cell_id), old[cell_id])
            for i, side in enumerate((now, new))
        ]
        has_conflicts |= all(edited) and not (merge_alike and list(now) == list(new))
    header: Json = {}
    for key in ("nbformat", "nbformat_minor"):
        header[key], conflict = _merge_value(base[key], current[key], proposed[key])
        has_conflicts |= conflict
    header["metadata"], conflict = _merge_mappings(
        base["metadata"], current["metadata"], proposed["metadata"]
    )
    runs = _cell_runs(cells, (old, now, new), moved)
    return NotebookMerge(path, cells, sources, runs, header, has_conflicts | conflict)


def _merge_cell_sides(
    base: Json | None, current: Json | None, proposed: Json | None, *, merge_alike: bool
) -> tuple[tuple[Json, TextMerge] | None, bool]:
    """Return a cell's merge and whether it conflicts; None for a cell that is deleted."""
    if base is None:
        added = current or proposed or {}
        conflict = current is not None and proposed is not None
        conflict &= not (merge_alike and json_equal(current, proposed))
        merged, inner = _merge_cell(added, added, added, merge_alike=merge_alike)
        return merged, conflict | inner
    if current is not None and proposed is not None:
        return _merge_cell(base, current, proposed, merge_alike=merge_alike)
    remaining = current or proposed
    # Running a cell again is no reason to keep one that the other side deletes.
    ignored = {"outputs", "execution_count"}
    conflict = remaining is not None and any(
        not json_equal(remaining.get(k), base.get(k)) for k in {*remaining, *base} - ignored
    )
    if not conflict or current is None:
        return None, conflict
    merged, _ = _merge_cell(base, current, base, merge_alike=merge_alike)
    return merged, True


def _merge_cell(
    base: Json, current: Json, proposed: Json, *, merge_alike: bool
) -> tuple[tuple[Json, TextMerge], bool]:
    sides = (base, current, proposed)
    source = merge_text(*(side["source"] for side in sides), merge_alike=merge_alike)
    values = [{k: v for k, v in c.items() if k not in ("source", "metadata")} for c in sides]
    cell, conflict = _merge_mappings(*values)
    outputs = [side.get("outputs") for side in values]
    # Outputs are replaced as a unit in the CRDT: set on both sides they would be there twice.
    conflict |= not merge_alike and not any(json_equal(outputs[0], o) for o in outputs[1:])
    metadata = (side.get("metadata", {}) for side in sides)
    cell["metadata"], metadata_conflict = _merge_mappings(*metadata)
    return (cell, source), conflict | metadata_conflict | source.has_conflicts


def _cell_runs(
    cells: Mapping[str, Json], sides: Sequence[Mapping[str, Json]], moved: Sequence[set[str]]
) -> tuple[CellRun, ...]:
    """Return the order of the merged cells: anchors in the base's order, additions behind them."""
    old, now, new = sides
    moved_anywhere = moved[0] | moved[1]
    anchors = [c for c in old if c in cells and c in now and c in new and c not in moved_anywhere]
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
