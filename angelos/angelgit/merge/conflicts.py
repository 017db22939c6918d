r"""What two changes of one base disagree about: the evidence beside a merge with conflicts.

Two insertions at one place both survive, and equal changes are one change, so neither conflicts.

    >>> text_conflicts("a.txt", "1\n2\n3\n", "1\ntwo\n3\n", "1\nzwei\n3\n")[0].theirs
    'two\n'
    >>> text_conflicts("a.txt", "1\n2\n3\n", "one\n2\n3\n", "1\n2\ndrei\n")
    []
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from angelos.angelgit.documents.edits import lines
from angelos.angelgit.documents.notebook import Json, json_equal, moved_cells
from angelos.angelgit.merge.three_way import merge_text

_MAX_TEXT = 4_000
_MAX_CONFLICTS = 20


class ConflictKind(StrEnum):
    """What two changes disagree about; the values are stored and sent."""

    lines = "lines"
    cell_added = "cell-added"
    cell_deleted = "cell-deleted"
    cell_moved = "cell-moved"
    key = "key"
    file_deleted = "file-deleted"
    file_recreated = "file-recreated"
    file_rewritten = "file-rewritten"
    deleted_file_changed = "deleted-file-changed"
    path_taken = "path-taken"
    path_blocked = "path-blocked"


class MergeConflict(msgspec.Struct, frozen=True, kw_only=True):
    """Lines (from 1) of the base that both sides changed, with the three texts."""

    path: str
    start: int
    end: int
    """The last line; smaller than `start` where the base has no line."""
    base: str
    theirs: str
    """The current text of the branch."""
    yours: str
    """The proposed text."""
    cell: str = ""
    """Id of the notebook cell that the lines are counted in."""
    kind: ConflictKind = ConflictKind.lines
    detail: str = ""
    """Of `key`: the key that both sides set. Of `path_blocked`: the path in the way."""


def evidence(conflicts: list[MergeConflict]) -> list[dict[str, str | int]]:
    """Return conflicts as plain data for an error's `extra`, with the texts cut to a bound."""
    return [
        msgspec.to_builtins(
            msgspec.structs.replace(
                conflict,
                base=bounded(conflict.base),
                theirs=bounded(conflict.theirs),
                yours=bounded(conflict.yours),
            )
        )
        for conflict in conflicts[:_MAX_CONFLICTS]
    ]


def bounded(text: str) -> str:
    """Return the beginning of a text, as an error carries it."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


_DESCRIPTIONS = {
    ConflictKind.lines: "text",
    ConflictKind.cell_added: "a new cell with the same id",
    ConflictKind.cell_deleted: "a deleted cell",
    ConflictKind.cell_moved: "a moved cell",
    ConflictKind.key: "{detail}",
    ConflictKind.file_deleted: "the file was deleted",
    ConflictKind.file_recreated: "the file was deleted and recreated",
    ConflictKind.file_rewritten: "the file was rewritten",
    ConflictKind.deleted_file_changed: "the deleted file was changed",
    ConflictKind.path_taken: "the file exists",
    ConflictKind.path_blocked: "{detail} is in the way",
}


def describe(conflict: MergeConflict) -> str:
    """Return what a conflict is about, for people to read."""
    return _DESCRIPTIONS[conflict.kind].format(detail=conflict.detail)


def file_conflict(
    path: str, base: str, current: str, proposed: str, kind: ConflictKind, detail: str = ""
) -> MergeConflict:
    """Return a conflict over a file as a unit, such as one that one side deleted."""
    return MergeConflict(
        path=path,
        start=1,
        end=len(lines(base)),
        base=base,
        theirs=current,
        yours=proposed,
        kind=kind,
        detail=detail,
    )


def text_conflicts(
    path: str, base: str, current: str, proposed: str, cell: str = ""
) -> list[MergeConflict]:
    """Return where `base` -> `current` and `base` -> `proposed` change the same lines."""
    return [
        MergeConflict(
            path=path,
            start=chunk.start + 1,
            end=chunk.end,
            base=chunk.base,
            theirs=chunk.text,
            yours=chunk.proposed,
            cell=cell,
        )
        for chunk in merge_text(base, current, proposed).chunks
        if chunk.conflict
    ]


# -- notebooks -------------------------------------------------------------------------------


def notebook_conflicts(path: str, base: Json, current: Json, proposed: Json) -> list[MergeConflict]:
    """Return the cells and metadata that both sides changed; lines count within a cell."""
    books = (base, current, proposed)
    old, now, new = ({c["id"]: c for c in book["cells"]} for book in books)
    moved_now, moved_new = (moved_cells(list(old), list(side)) for side in (now, new))
    moved = moved_now | moved_new
    conflicts: list[MergeConflict] = []
    for cell_id, cell in old.items():
        sides = (cell, now.get(cell_id), new.get(cell_id))
        conflicts += _cell_conflicts(path, *sides)
        placed = (
            cell_id in moved_now or sides[1] is None,
            cell_id in moved_new or sides[2] is None,
        )
        if all(placed) and cell_id in moved and list(now) != list(new):
            conflicts.append(_cell_conflict(path, *sides, ConflictKind.cell_moved))
    for cell_id in (now.keys() & new.keys()) - old.keys():
        sides = (None, now[cell_id], new[cell_id])
        if not json_equal(now[cell_id], new[cell_id]):
            conflicts.append(_cell_conflict(path, *sides, ConflictKind.cell_added))
    metadata = [{**book["metadata"], "nbformat_minor": book["nbformat_minor"]} for book in books]
    for key in _keys_changed_on_both(*metadata):
        conflicts.append(_key_conflict(path, "", f"metadata.{key}", metadata, key))
    return conflicts


def _cell_conflicts(
    path: str, base: Json, current: Json | None, proposed: Json | None
) -> list[MergeConflict]:
    if current is None or proposed is None:
        remaining = current or proposed
        # Running a cell again is no reason to keep one that the other side deletes.
        ignored = {"outputs", "execution_count"}
        if remaining is None or all(
            json_equal(remaining.get(k), base.get(k)) for k in {*remaining, *base} - ignored
        ):
            return []
        return [_cell_conflict(path, base, current, proposed, ConflictKind.cell_deleted)]
    sides = (base, current, proposed)
    conflicts = text_conflicts(
        path, base["source"], current["source"], proposed["source"], base["id"]
    )
    values = [
        {k: v for k, v in side.items() if k not in ("source", "metadata")}
        | {f"metadata.{k}": v for k, v in side["metadata"].items()}
        for side in sides
    ]
    for key in _keys_changed_on_both(*values):
        conflicts.append(_key_conflict(path, base["id"], key, values, key))
    return conflicts


def _keys_changed_on_both(base: Json, current: Json, proposed: Json) -> list[str]:
    """Return the keys that both sides changed differently."""
    return sorted(
        key
        for key in {*base, *current, *proposed}
        if not json_equal(current.get(key), base.get(key))
        and not json_equal(proposed.get(key), base.get(key))
        and not json_equal(current.get(key), proposed.get(key))
    )


def _cell_conflict(
    path: str, base: Json | None, current: Json | None, proposed: Json | None, kind: ConflictKind
) -> MergeConflict:
    sides = (base, current, proposed)
    texts = [cell["source"] if cell else "" for cell in sides]
    return MergeConflict(
        path=path,
        start=1,
        end=len(lines(texts[0])),
        base=texts[0],
        theirs=texts[1],
        yours=texts[2],
        cell=next(cell["id"] for cell in sides if cell),
        kind=kind,
    )


def _key_conflict(
    path: str, cell: str, name: str, sides: Sequence[Json], key: str
) -> MergeConflict:
    """Return the conflict over a key of (base, current, proposed); `name` is for people."""
    texts = [json.dumps(side.get(key), ensure_ascii=False, sort_keys=True) for side in sides]
    return MergeConflict(
        path=path,
        start=1,
        end=1,
        base=texts[0],
        theirs=texts[1],
        yours=texts[2],
        cell=cell,
        kind=ConflictKind.key,
        detail=name,
    )
