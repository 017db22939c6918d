r"""What a merge must give: the three-way line merge of texts, to hold a CRDT's result against.

A CRDT merges characters by who they are, not by what they say: after a rollback equal texts may
hold other items, and one update gives another text on them. So whatever is to be written is
compared with the merge of the texts first (`fit.py`).

Two insertions at one place may come in either order. Where both sides changed the same lines
there is a clash, and `text` keeps "theirs".

    >>> merged = merge("a.txt", "1\n2\n3\n", "one\n2\n3\n", "1\n2\ndrei\n")
    >>> (merged.text, merged.clashes, merged.accepts("one\n2\ndrei\n"))
    ('one\n2\ndrei\n', False, True)
    >>> merge("a.txt", "1\n", "2\n", "3\n").clashes
    True
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.edits import line_hunks, lines, text_edits
from angelos.angelgit.merge import conflicts
from angelos.core.errors import InvalidInput

_MISSING: Any = object()


class Chunk(NamedTuple):
    """Text of the result: `text`, in either order with `other`, or a clash."""

    text: str
    other: str = ""
    base: str = ""
    clash: bool = False
    """`text` is theirs, `other` yours, `base` what was there."""

    @property
    def orders(self) -> tuple[str, str]:
        """Both texts, one behind the other, in either order."""
        return self.text + self.other, self.other + self.text


class TextMerge(NamedTuple):
    """The merge of three texts."""

    pieces: tuple[Chunk, ...]

    @property
    def text(self) -> str:
        """The merged text; theirs comes first and wins clashes."""
        return "".join(p.text if p.clash else p.text + p.other for p in self.pieces)

    @property
    def clashes(self) -> bool:
        """Whether both sides changed the same lines."""
        return any(p.clash for p in self.pieces)

    def accepts(self, result: str) -> bool:
        """Tell whether a result is this merge; in a clash it must hold both authors' work."""
        ends = {0}
        for index in range(len(self.pieces)):
            ends = {end for at in ends for end in self._ends(result, at, index)}
        return len(result) in ends

    def _ends(self, result: str, at: int, index: int) -> Iterator[int]:
        """Yield where the text that stands for a piece may end, if it begins at `at`."""
        piece = self.pieces[index]
        if not piece.clash:
            if result.startswith(piece.orders, at):
                yield at + len(piece.orders[0])
            return
        if index + 1 == len(self.pieces):
            if _both(piece, result[at:]):
                yield len(result)
            return
        # Two clashes never touch, so a fixed piece follows; where it may stand is bounded.
        follows = self.pieces[index + 1].orders
        for end in range(at, min(at + len(piece.orders[0]), len(result)) + 1):
            if result.startswith(follows, end) and _both(piece, result[at:end]):
                yield end


class NotebookMerge(NamedTuple):
    """The merge of three notebooks: cells by id, their sources by line, the rest by key."""

    path: str
    cells: Mapping[str, Mapping[str, Any]]
    """Without their sources."""
    sources: Mapping[str, TextMerge]
    gaps: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    """(Cell that stays in its place or "", theirs behind it, yours behind it)."""
    rest: Mapping[str, Any]
    clashes: bool

    @property
    def text(self) -> str:
        """The merged notebook; theirs comes first and wins clashes."""
        order = [c for stays, theirs, yours in self.gaps for c in (stays, *theirs, *yours) if c]
        cells = [{**self.cells[c], "source": self.sources[c].text} for c in order]
        return notebook.dump({**self.rest, "cells": cells})

    def accepts(self, result: str) -> bool:
        """Tell whether a result is this merge."""
        try:
            made = notebook.parse(result, self.path)
        except InvalidInput:  # a cell that stands there twice, for instance
            return False
        cells = {c["id"]: c for c in made["cells"]}
        if cells.keys() != self.cells.keys() or any(
            not notebook.same(made[key], value) for key, value in self.rest.items()
        ):
            return False
        for cell_id, cell in cells.items():
            plain = {k: v for k, v in cell.items() if k != "source"}
            if not notebook.same(plain, self.cells[cell_id]) or not self.sources[cell_id].accepts(
                cell["source"]
            ):
                return False
        return self._ordered(list(cells))

    def _ordered(self, order: list[str]) -> bool:
        at = 0
        for stays, theirs, yours in self.gaps:
            here = order[at : at + bool(stays) + len(theirs) + len(yours)]
            at += len(here)
            if here[: bool(stays)] != [stays][: bool(stays)]:
                return False
            for side in (theirs, yours):
                if [c for c in here if c in side] != list(side):
                    return False
        return at == len(order)


Merge = TextMerge | NotebookMerge


def merge(path: str, base: str, theirs: str, yours: str, *, same: bool = False) -> Merge:
    """Return the merge of two canonical texts that come from `base`.

    `same`: what both sides changed alike is one change, as on two branches that both hold it;
    otherwise that is a clash, as of two authors who do not know of each other.
    """
    if path.endswith(".ipynb"):
        sides = [notebook.parse(text, path) for text in (base, theirs, yours)]
        return _merge_notebooks(path, *sides, same=same)
    return merge_text(base, theirs, yours, same=same)


def merge_text(base: str, theirs: str, yours: str, *, same: bool = False) -> TextMerge:
    """Return the line merge of two texts that come from `base`."""
    b, t, y = lines(base), lines(theirs), lines(yours)
    others, every = line_hunks(base, theirs), line_hunks(base, yours)
    ours = every
    if same:
        alike = {(h.start, h.end, *t[h.new_start : h.new_end]) for h in others}
        ours = [h for h in every if (h.start, h.end, *y[h.new_start : h.new_end]) not in alike]
    changes: list[tuple[int, int, Chunk]] = []
    groups = conflicts.clusters(ours, others, y, t)
    for low, high, mine, their in groups:
        sides = [
            "".join(text[slice(*conflicts.changed_range(hunks, inside, low, high))])
            for text, hunks, inside in ((t, others, their), (y, every, mine))
        ]
        old = "".join(b[low:high])
        same_text = same and sides[0] == sides[1]
        piece = Chunk(sides[0]) if same_text else Chunk(*sides, base=old, clash=True)
        changes.append((low, high, piece))
    taken = [(mine, their) for _, _, mine, their in groups]
    free_theirs = [h for h in others if not any(h in their for _, their in taken)]
    free_ours = [h for h in ours if not any(h in mine for mine, _ in taken)]
    for hunk in free_theirs:
        text = "".join(t[hunk.new_start : hunk.new_end])
        changes.append((hunk.start, hunk.end, Chunk(text)))
    for hunk in free_ours:
        text = "".join(y[hunk.new_start : hunk.new_end])
        tied = next(
            (
                i
                for i, (low, high, piece) in enumerate(changes)
                if low == high == hunk.start == hunk.end and not piece.clash
            ),
            None,
        )
        if tied is None:
            changes.append((hunk.start, hunk.end, Chunk(text)))
        else:
            changes[tied] = (hunk.start, hunk.end, _tie(changes[tied][2].text, text))
    pieces: list[Chunk] = []
    at = 0
    for low, high, piece in sorted(changes, key=lambda change: change[:2]):
        pieces += [Chunk("".join(b[at:low]))] if low > at else []
        pieces.append(piece)
        at = max(at, high)
    return TextMerge((*pieces, Chunk("".join(b[at:]))) if at < len(b) else tuple(pieces))


def _tie(theirs: str, yours: str) -> Chunk:
    """Return two insertions at one place: a line without an end can only be the last."""
    if not theirs.endswith("\n"):
        return Chunk(yours + theirs)
    return Chunk(theirs, yours) if yours.endswith("\n") else Chunk(theirs + yours)


def _both(piece: Chunk, result: str) -> bool:
    """Tell whether a clash was resolved without losing or mixing up anything.

    What they put in must be there, piece by piece, and besides it nothing but your text: lines of
    theirs as lines, words of theirs in a line of yours. Where they took something away, or no
    line of yours is left around their words, the rest would be text that nobody wrote.
    """
    if result in (piece.text, piece.text + piece.other, piece.other + piece.text):
        return True
    edits = text_edits(piece.base, piece.text)[::-1]
    if any(edit.delete for edit in edits):
        return False
    base = piece.base.encode()
    rest, at, more = result, 0, 0
    for edit in edits:
        found = rest.find(edit.insert, at)
        if found < 0:
            return False
        starts = base[: edit.at][-1:] in (b"", b"\n")
        if starts and edit.insert.endswith("\n") and rest[:found][-1:] not in ("", "\n"):
            return False
        rest = rest[:found] + rest[found + len(edit.insert) :]
        at, more = found, more + edit.insert.count("\n")
    return rest == piece.other and len(lines(result)) == len(lines(rest)) + more


def _merge_notebooks(
    path: str, base: dict[str, Any], theirs: dict[str, Any], yours: dict[str, Any], *, same: bool
) -> NotebookMerge:
    old, their, your = ({c["id"]: c for c in nb["cells"]} for nb in (base, theirs, yours))
    moved = [notebook.moved_cells(list(old), list(side)) for side in (their, your)]
    cells: dict[str, dict[str, Any]] = {}
    sources: dict[str, TextMerge] = {}
    clashes = False
    for cell_id in {**their, **your, **old}:
        b, t, y = old.get(cell_id), their.get(cell_id), your.get(cell_id)
        if b is not None and (t is None or y is None):
            left = t or y
            clash = left is not None and any(
                not notebook.same(left.get(k), b.get(k))
                for k in {*left, *b} - {"outputs", "execution_count"}
            )
            clashes |= clash
            if not clash or t is None:
                continue
            y = b
        elif b is None:
            clashes |= t is not None and y is not None and not (same and notebook.same(t, y))
            t = y = t or y or {}
            b = t
        found, clash = _merge_cell(b, t or {}, y or {}, same=same)
        cells[cell_id], sources[cell_id] = found
        clashes |= clash
    for cell_id in moved[0] | moved[1]:
        edited = [
            cell_id in moved[i] or not notebook.same(side.get(cell_id), old[cell_id])
            for i, side in enumerate((their, your))
        ]
        clashes |= all(edited) and not (same and list(their) == list(your))
    rest: dict[str, Any] = {}
    for key in ("nbformat", "nbformat_minor"):
        rest[key], clash = _pick(base[key], theirs[key], yours[key])
        clashes |= clash
    metadata, clash = _keys(base["metadata"], theirs["metadata"], yours["metadata"])
    rest["metadata"] = metadata
    gaps = _order(cells, (old, their, your), moved)
    return NotebookMerge(path, cells, sources, gaps, rest, clashes | clash)


def _merge_cell(
    base: Mapping[str, Any], theirs: Mapping[str, Any], yours: Mapping[str, Any], *, same: bool
) -> tuple[tuple[dict[str, Any], TextMerge], bool]:
    source = merge_text(base["source"], theirs["source"], yours["source"], same=same)
    flat = [
        {k: v for k, v in c.items() if k not in ("source", "metadata")}
        for c in (base, theirs, yours)
    ]
    plain, clash = _keys(*flat)
    outputs = [side.get("outputs") for side in flat]
    clash |= not same and not any(notebook.same(outputs[0], side) for side in outputs[1:])
    plain["metadata"], other = _keys(*(c.get("metadata", {}) for c in (base, theirs, yours)))
    return (plain, source), clash | other | source.clashes


def _order(
    cells: Mapping[str, Any], sides: Sequence[Mapping[str, Any]], moved: Sequence[set[str]]
) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    old, their, your = sides
    stay = [
        c for c in old if c in cells and c in their and c in your and c not in moved[0] | moved[1]
    ]
    mine = {
        c
        for c in cells
        if c not in stay and (c in their and (c not in old or c in moved[0] or c not in your))
    }
    behind: list[dict[str, list[str]]] = []
    for side, own in ((their, mine), (your, cells.keys() - mine - set(stay))):
        gap: dict[str, list[str]] = {"": []}
        last = ""
        for cell_id in side:
            if cell_id in stay:
                last = cell_id
            elif cell_id in own:
                gap.setdefault(last, []).append(cell_id)
        behind.append(gap)
    return tuple(
        (cell, tuple(behind[0].get(cell, ())), tuple(behind[1].get(cell, ())))
        for cell in ("", *stay)
    )


def _keys(
    base: Mapping[str, Any], theirs: Mapping[str, Any], yours: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Return the merge of two mappings by key, and whether both changed one differently."""
    made: dict[str, Any] = {}
    clashes = False
    for key in {**theirs, **yours}:
        value, clash = _pick(*(side.get(key, _MISSING) for side in (base, theirs, yours)))
        clashes |= clash
        if value is not _MISSING:
            made[key] = value
    return made, clashes


def _pick(base: Any, theirs: Any, yours: Any) -> tuple[Any, bool]:
    if notebook.same(yours, base):
        return theirs, False
    if notebook.same(theirs, base):
        return yours, False
    return theirs, not notebook.same(theirs, yours)
