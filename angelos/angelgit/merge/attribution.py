r"""Blame, the pure part: which lines of a file were there in an earlier version of it.

Lines are counted from 0, in a notebook within each cell by its id, so that a cell that was moved
stays the same cell.

    >>> inherited(sections("a.txt", "1\n2\n"), sections("a.txt", "0\n1\ntwo\n"))
    {('', 1): ('', 0)}
"""

from __future__ import annotations

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.documents.edits import line_hunks, lines
from angelos.core.errors import InvalidInput

Place = tuple[str, int]
"""Cell, which is empty in a text, and line."""
Sections = dict[str, str]
"""Cell -> source, in their order."""


def sections(path: str, text: str) -> Sections:
    """Return a file's text by cells; a text, and what was no notebook yet, is one section."""
    if is_notebook(path):
        try:
            return {cell["id"]: cell["source"] for cell in notebook.load(text, path)["cells"]}
        except InvalidInput:  # it was kept by git as it was
            return {"": text}
    return {"": text}


def places(file: Sections) -> list[Place]:
    """Return the places of all lines."""
    return [(cell, line) for cell, source in file.items() for line in range(len(lines(source)))]


def inherited(before: Sections, after: Sections) -> dict[Place, Place]:
    """Return place after -> place before of the lines that both versions have."""
    pairs: dict[Place, Place] = {}
    for cell, source in after.items():
        earlier = before.get(cell)
        if earlier is None:
            continue
        line, old = 0, 0
        for hunk in line_hunks(earlier, source):
            pairs |= _run(cell, line, old, hunk.new_start - line)
            line, old = hunk.new_end, hunk.end
        pairs |= _run(cell, line, old, len(lines(source)) - line)
    return pairs


def _run(cell: str, line: int, old: int, count: int) -> dict[Place, Place]:
    return {(cell, line + i): (cell, old + i) for i in range(count)}
