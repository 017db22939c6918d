"""From exact edits to a prepared proposal: new texts, an update for each path, and conflicts.

Pure and sometimes expensive: the callers use `in_thread`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from angelos.angelgit.documents import crdt, notebook
from angelos.angelgit.documents.canonical import canonical, check_text, is_notebook
from angelos.angelgit.documents.edits import apply_diff, unified_diff
from angelos.angelgit.merge.conflicts import (
    ConflictKind,
    MergeConflict,
    describe,
    evidence,
    file_conflict,
    notebook_conflicts,
    text_conflicts,
)
from angelos.angelgit.merge.three_way import merge
from angelos.angelgit.storage.models import FileState, PathChange, PathOp
from angelos.angelgit.storage.trees import path_clash
from angelos.core.errors import InvalidInput, Stale
from angelos.core.ids import Revision, uuid7
from angelos.core.repository import DeleteFile, Edit, NewText


class BaseFile(NamedTuple):
    """A file of the base revision."""

    file: FileState
    text: str
    state: bytes


class PreparedEdit(NamedTuple):
    """The change that an edit is against the base revision."""

    change: PathChange
    before: str | None
    after: str | None
    diff: str


def prepare_edit(edit: Edit, base: BaseFile | None) -> PreparedEdit | None:
    """Return the change that an edit makes to a file of the base; None if it changes nothing.

    Raises:
        InvalidInput: the edit does not fit the file.
    """
    path = edit.path
    before = base.text if base else None
    after = _new_text(edit, before)
    if after == before:
        return None
    diff = unified_diff(before, after, path)
    if base is None:
        update = crdt.build(path, after or "")
        change = PathChange(path=path, document=uuid7(), op=PathOp.create, update=update)
        return PreparedEdit(change, None, after, diff)
    document, mode = base.file.document, base.file.mode
    if after is None:
        change = PathChange(path=path, document=document, op=PathOp.delete, mode=mode)
    else:
        update = crdt.change(path, base.state, after)
        change = PathChange(path=path, document=document, op=PathOp.edit, update=update, mode=mode)
    return PreparedEdit(change, before, after, diff)


def _new_text(edit: Edit, before: str | None) -> str | None:
    """Return the canonical text after an edit; None if it deletes the file."""
    path = edit.path
    if isinstance(edit, NewText):
        text = edit.text
    else:
        text = None if isinstance(edit, DeleteFile) else _patched(path, edit.diff, before)
        if text is None:
            if before is None:
                raise InvalidInput(f"There is no {path} in the base revision to delete.")
            return None
    text = check_text(path, text)
    return check_text(path, canonical(path, text, before))


def _patched(path: str, diff: str, before: str | None) -> str | None:
    """Return the text with a diff applied; None if the diff removes the file."""
    creates = any(row.startswith("--- /dev/null") for row in diff.split("\n", 4))
    if creates and before is not None:
        raise InvalidInput(
            f"The diff creates {path}, which is in the base revision already.",
            hint="Make the diff against the content of the base revision.",
        )
    if before is None and not creates:
        raise InvalidInput(
            f"There is no {path} in the base revision for the diff to change.",
            hint="A diff that creates a file has the line `--- /dev/null`.",
        )
    return apply_diff(before or "", diff, path)


def find_conflicts(
    changes: tuple[PathChange, ...],
    dev: Mapping[str, str],
    base: Mapping[str, str],
    current: Mapping[str, str],
    proposed: Mapping[str, str],
) -> list[MergeConflict]:
    """Return the conflicts of a proposal with `dev`.

    Args:
        changes: what the proposal changes.
        dev: path -> document of the files in `dev`.
        base: path -> text in the base revision.
        current: path -> text in `dev`.
        proposed: path -> text as proposed.
    """
    conflicts: list[MergeConflict] = []
    for change in changes:
        path = change.path
        texts = (base.get(path, ""), current.get(path, ""), proposed.get(path, ""))
        if change.op is PathOp.create:
            blocker = path_clash(dev, path)
            if path in dev:
                conflicts.append(file_conflict(path, *texts, ConflictKind.path_taken))
            elif blocker is not None:
                kind = ConflictKind.path_blocked
                conflicts.append(file_conflict(path, *texts, kind, blocker))
        elif dev.get(path) != change.document:
            conflicts.append(file_conflict(path, *texts, ConflictKind.file_deleted))
        elif change.op is PathOp.delete:
            if texts[0] != texts[1]:
                kind = ConflictKind.deleted_file_changed
                conflicts.append(file_conflict(path, *texts, kind))
        elif not merge(path, *texts, merge_alike=True).has_conflicts:
            continue
        elif is_notebook(path):
            books = [notebook.parse(text, path) for text in texts]
            conflicts += notebook_conflicts(path, *books)
        else:
            conflicts += text_conflicts(path, *texts)
    return conflicts


def refuse_conflicts(conflicts: list[MergeConflict], base: Revision) -> None:
    """Raise `Stale` with the evidence if there are conflicts."""
    if not conflicts:
        return
    first = conflicts[0]
    place = f"{first.path} line {first.start}"
    if first.end > first.start:
        place += f" to {first.end}"
    if first.cell:
        place += f" of cell {first.cell}"
    about = describe(first)
    more = f", and {len(conflicts) - 1} more places" if len(conflicts) > 1 else ""
    raise Stale(
        f"{place} changed in dev since {base[:12]} ({about}){more}; nothing was merged.",
        hint="Make the change again on the present dev or main.",
        conflicts=evidence(conflicts),
    )
