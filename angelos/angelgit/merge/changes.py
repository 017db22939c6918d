"""The merge of several files: what a proposal, a rollback or an advance makes of a branch. Pure.

change = FileMove("a.txt", "", base_file, proposed_file)
merged = merge_changes([change], {"a.txt": current_file}, Resolve.refuse)
merged.files["a.txt"]  # None: the file is deleted
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from angelos.angelgit.merge.conflicts import (
    ConflictKind,
    MergeConflict,
    describe,
    evidence,
    file_conflict,
)
from angelos.angelgit.merge.files import FileContent, Resolve, merge_file
from angelos.core.errors import Conflict, Stale
from angelos.core.ids import Revision


class ChangedFile(NamedTuple):
    """How one side changed a file, with its contents."""

    path: str
    to: str
    """Where it moves, "" if it stays."""
    before: FileContent | None
    after: FileContent | None


class MergedFiles(NamedTuple):
    """The files of a branch after a merge."""

    files: dict[str, FileContent | None]
    """Path -> what is there afterwards, for the paths that change."""
    moves: dict[str, str]
    conflicts: list[MergeConflict]


def merge_changes(
    changes: Iterable[ChangedFile], current: Mapping[str, FileContent], resolve: Resolve
) -> MergedFiles:
    """Return what changes make of a branch.

    Args:
        changes: what the merged side changed.
        current: path -> file of the branch, of the touched paths.
        resolve: what becomes of a conflict.
    """
    merged = MergedFiles({}, {}, [])
    for change in changes:
        present = current.get(change.path)
        target = change.to or change.path
        if change.to and current.get(target) is not None:
            if present is None and current[target] == change.after:
                continue  # the branch has made the same move
            if resolve not in (Resolve.current, Resolve.remove):
                texts = ("", "", "")
                merged.conflicts.append(file_conflict(target, *texts, ConflictKind.path_taken))
            continue
        file, conflicts = merge_file(change.path, change.before, present, change.after, resolve)
        merged.conflicts.extend(conflicts)
        if file == present and not change.to:
            continue
        merged.files[target] = file
        if change.to and file is not None:
            merged.files[change.path] = None
            merged.moves[change.path] = target
    return merged


def blocked(path: str, by: str) -> MergeConflict:
    """Return the conflict of a file that cannot be where another one is in the way."""
    return file_conflict(path, "", "", "", ConflictKind.path_blocked, by)


def refuse_stale(conflicts: list[MergeConflict], branch: str, base: Revision) -> None:
    """Raise `Stale` with the evidence if there are conflicts."""
    if not conflicts:
        return
    first = conflicts[0]
    about, where = describe(first), "on main" if branch == "main" else f"in {branch}"
    more = f", and {len(conflicts) - 1} more places" if len(conflicts) > 1 else ""
    raise Stale(
        f"{_place(first)} changed {where} since {base[:12]} ({about}){more}; nothing was merged.",
        hint="Make the change again on the present dev or main.",
        conflicts=evidence(conflicts),
    )


def refuse_conflicts(conflicts: list[MergeConflict]) -> None:
    """Raise `Conflict` with the evidence if a change cannot be taken out again."""
    if not conflicts:
        return
    raise Conflict(
        f"{_place(conflicts[0])} was changed since ({describe(conflicts[0])}), so the change "
        "cannot be taken out without losing what others wrote; dev is unchanged.",
        hint="Edit these lines by hand, then try again.",
        conflicts=evidence(conflicts),
    )


def _place(conflict: MergeConflict) -> str:
    place = f"{conflict.path} line {conflict.start}"
    if conflict.end > conflict.start:
        place += f" to {conflict.end}"
    return place + (f" of cell {conflict.cell}" if conflict.cell else "")
