r"""The three-way merge of one file: its content, its mode, and whether it is there at all.

>>> file = FileContent(EntryMode.file, b"1\n2\n")
>>> merged = merge_file("a.txt", file, file._replace(body=b"one\n2\n"),
...     file._replace(body=b"1\ntwo\n"), Resolve.refuse)
>>> merged.file.body, merged.conflicts
(b'one\ntwo\n', [])
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import is_notebook, is_text
from angelos.angelgit.merge import conflicts
from angelos.angelgit.merge.conflicts import ConflictKind, MergeConflict, file_conflict
from angelos.angelgit.merge.three_way import merge
from angelos.core.revision_v2 import EntryMode

_EMPTY_NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


class FileContent(NamedTuple):
    """A file or link of one side."""

    mode: EntryMode
    body: bytes
    """Its content, or a link's target; of a blob, its hash in hex."""
    live: bool = True
    """It is a text or notebook, so it can be merged by lines."""

    @property
    def text(self) -> str:
        """The text of a live file."""
        return self.body.decode()

    @property
    def shown(self) -> str:
        """The text, or a link's target; a blob's hash."""
        return f"sha256:{self.body.decode()}" if self.is_blob else self.body.decode()

    @property
    def is_blob(self) -> bool:
        """Whether it is kept as a blob, and `body` is its hash."""
        return not self.live and self.mode is not EntryMode.symlink


class Resolve(Enum):
    """What becomes of a conflict."""

    refuse = "refuse"
    """It is reported; what is merged does not count."""
    current = "current"
    """The current side's stays."""
    weave = "weave"
    """Both sides' work stays, or it is reported."""
    remove = "remove"
    """What is taken back goes, also from lines that the current side worked on; see `woven`."""


class FileMerge(NamedTuple):
    """A merged file, None where there is none, and what stood against it."""

    file: FileContent | None
    conflicts: list[MergeConflict]


def merge_file(
    path: str,
    base: FileContent | None,
    current: FileContent | None,
    proposed: FileContent | None,
    resolve: Resolve,
) -> FileMerge:
    """Return the merge of a file that both sides come from `base` with.

    Args:
        path: the file's path.
        base: what both sides had, None for no file.
        current: what the branch has.
        proposed: what is merged.
        resolve: what becomes of a conflict.
    """
    if proposed in (base, current):
        return FileMerge(current, [])
    if current == base:
        return FileMerge(proposed, [])
    sides = (base, current, proposed)
    if current is None or proposed is None or base is None:
        return _merge_presence(path, sides, resolve)
    if not all(side is not None and side.live for side in sides):
        return _kept(path, sides, ConflictKind.file_rewritten, resolve)
    mode = proposed.mode if current.mode == base.mode else current.mode
    texts = (base.text, current.text, proposed.text)
    merged = merge(path, *texts)
    text: str | None = merged.text
    if merged.has_conflicts and resolve is not Resolve.current:
        weave = resolve in (Resolve.weave, Resolve.remove)
        text = merged.woven(force=resolve is Resolve.remove) if weave else None
    if text is None:
        return FileMerge(current, _text_conflicts(path, *texts))
    return FileMerge(FileContent(mode, text.encode()), [])


_Sides = tuple[FileContent | None, FileContent | None, FileContent | None]


def _merge_presence(path: str, sides: _Sides, resolve: Resolve) -> FileMerge:
    """Merge a file that one of the sides does not have."""
    base, current, _ = sides
    if base is None:
        return _kept(path, sides, ConflictKind.path_taken, resolve)
    if current is None:
        # What is taken back of a file that is deleted is gone already.
        if resolve is Resolve.weave:
            return FileMerge(None, [])
        return _kept(path, sides, ConflictKind.file_deleted, resolve)
    kind = ConflictKind.deleted_file_changed
    if resolve not in (Resolve.weave, Resolve.remove) or not (base.live and current.live):
        return _kept(path, sides, kind, resolve)
    empty = notebook.dump(_EMPTY_NOTEBOOK) if is_notebook(path) else ""
    woven = merge(path, base.text, current.text, empty).woven(force=resolve is Resolve.remove)
    if woven is None:
        return FileMerge(current, [_conflict(path, sides, kind)])
    blank = not notebook.load(woven, path)["cells"] if is_notebook(path) else not woven
    return FileMerge(None if blank else current._replace(body=woven.encode()), [])


def _kept(path: str, sides: _Sides, kind: ConflictKind, resolve: Resolve) -> FileMerge:
    quiet = resolve in (Resolve.current, Resolve.remove)
    return FileMerge(sides[1], [] if quiet else [_conflict(path, sides, kind)])


def _conflict(path: str, sides: _Sides, kind: ConflictKind) -> MergeConflict:
    base, current, proposed = (side.shown if side else "" for side in sides)
    return file_conflict(path, base, current, proposed, kind)


def _text_conflicts(path: str, base: str, current: str, proposed: str) -> list[MergeConflict]:
    if not is_notebook(path):
        return conflicts.text_conflicts(path, base, current, proposed)
    books = [notebook.load(text, path) for text in (base, current, proposed)]
    rows = conflicts.notebook_conflicts(path, *books)
    whole = file_conflict(path, base, current, proposed, ConflictKind.lines)
    return rows or [whole]


def content_of(mode: EntryMode, body: bytes) -> FileContent:
    """Return a file's content as it is merged; a link is no text, and merges as a whole."""
    live = mode is not EntryMode.symlink and is_text(body)
    return FileContent(mode, body, live)
