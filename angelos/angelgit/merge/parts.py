r"""Parts of a proposal's files: some hunks of each, and what is left without these. Pure.

>>> from angelos.core.revision_v2 import EntryMode
>>> file = FileContent(EntryMode.file, b"1\n2\n3\n")
>>> change = ChangedFile("a.txt", "", file, file._replace(body=b"one\n2\nthree\n"))
>>> first, second = change_hunks(change)
>>> part_of_changes([change], {first.id})[0].after.body
b'one\n2\n3\n'
>>> left_of_changes([change], {first.id})[0].before.body
b'one\n2\n3\n'
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.merge.files import FileContent
from angelos.angelgit.merge.hunks import file_hunks, hunks_of, part_text
from angelos.core.ids import HunkId
from angelos.core.pending import ChangeKind, PendingHunk

_WHOLE = (ChangeKind.created, ChangeKind.deleted, ChangeKind.blob, ChangeKind.link)
"""Of a file without cells: it is accepted whole or not at all."""


def change_hunks(change: ChangedFile) -> tuple[PendingHunk, ...]:
    """Return the hunks of one file: by line where both sides are text, else of the whole."""
    whole = file_hunks(change.path, change.to, change.before, change.after)
    if not _is_live(change.before) or not _is_live(change.after):
        return whole
    before, after = change.before, change.after
    return (*whole, *hunks_of(change.path, before and before.text, after and after.text))


def part_of_changes(
    changes: Iterable[ChangedFile], chosen: Collection[HunkId]
) -> list[ChangedFile]:
    """Return the changes with the chosen hunks and no others; a file without any is left out."""
    parts = [_part(change, chosen) for change in changes]
    return [part for part in parts if part.to or part.before != part.after]


def left_of_changes(
    changes: Iterable[ChangedFile], accepted: Collection[HunkId], chosen: Collection[HunkId] = ()
) -> list[ChangedFile]:
    """Return what changes still change where the accepted hunks are there already.

    Args:
        changes: the whole.
        accepted: hunks that are not to be changed again.
        chosen: the hunks that the proposal holds, where these are not all.
    """
    left: list[ChangedFile] = []
    for change in changes:
        part, end = _part(change, accepted), _part(change, chosen) if chosen else change
        to = "" if part.to else end.to
        left.append(ChangedFile(part.to or change.path, to, part.after, end.after))
    return [change for change in left if change.to or change.before != change.after]


def _part(change: ChangedFile, chosen: Collection[HunkId]) -> ChangedFile:
    kinds = {h.kind for h in change_hunks(change) if h.id in chosen and not h.cell}
    before, after = change.before, change.after
    to = change.to if ChangeKind.moved in kinds else ""
    if kinds.intersection(_WHOLE):
        return ChangedFile(change.path, to, before, after)
    if before is None or after is None or not (before.live and after.live):
        return ChangedFile(change.path, to, before, before)
    mode = after.mode if ChangeKind.mode in kinds else before.mode
    text = part_text(change.path, before.text, after.text, chosen)
    return ChangedFile(change.path, to, before, FileContent(mode, text.encode()))


def _is_live(side: FileContent | None) -> bool:
    return side is None or side.live
