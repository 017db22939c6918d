"""The merge of several files: what a proposal, a rollback or an advance makes of a branch. Pure.

change = FileMove("a.txt", "", base_file, proposed_file)
merged = merge_changes([change], {"a.txt": current_file}, Resolve.refuse)
merged.files["a.txt"]  # None: the file is deleted
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from angelos.angelgit.merge.conflicts import (
    ConflictKind,
    MergeConflict,
    bounded,
    describe,
    evidence,
    file_conflict,
)
from angelos.angelgit.merge.files import FileContent, Resolve, merge_file
from angelos.angelgit.merge.hunks import hunks_of
from angelos.core.errors import Conflict, Stale
from angelos.core.ids import Revision
from angelos.core.pending import MAX_CONFLICTS, PendingHunk


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


def refuse_stale(
    conflicts: list[MergeConflict],
    branch: str,
    base: Revision,
    changes: Iterable[ChangedFile],
    current: Mapping[str, FileContent],
) -> None:
    """Raise `Stale` with the evidence if there are conflicts.

    Args:
        conflicts: what does not fit.
        branch: what the changes were tried against.
        base: what their author had read.
        changes: the changes.
        current: the touched files of the branch, which say what changed since.
    """
    if not conflicts:
        return
    first = conflicts[0]
    about, where = describe(first), "on main" if branch == "main" else f"in {branch}"
    more = f", and {len(conflicts) - 1} more places" if len(conflicts) > 1 else ""
    raise Stale(
        f"{_place(first)} changed {where} since {base[:12]} ({about}){more}; nothing was merged.",
        hint="Make the change again on the present dev or main.",
        conflicts=evidence(conflicts),
        **_changed_since({conflict.path for conflict in conflicts}, changes, current),
    )


def _changed_since(
    paths: Collection[str], changes: Iterable[ChangedFile], current: Mapping[str, FileContent]
) -> dict[str, Any]:
    """Return what changed in some files since their author's read, by cell and hunk, bounded."""
    hunks: list[PendingHunk] = []
    for change in changes:
        sides = (change.before, current.get(change.path))
        if change.path in paths and all(side is None or side.live for side in sides):
            hunks += hunks_of(change.path, *(side and side.text for side in sides))
    rows = [
        {
            "path": hunk.path,
            "kind": hunk.kind.value,
            "cell": hunk.cell,
            "start": hunk.start,
            "end": hunk.end,
            "before": bounded(hunk.before),
            "after": bounded(hunk.after),
        }
        for hunk in hunks[:MAX_CONFLICTS]
    ]
    return {"changed": rows, "changed_more": len(hunks) - len(rows)}


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
