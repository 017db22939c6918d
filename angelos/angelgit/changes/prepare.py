"""From exact edits to a proposal: new texts, one CRDT update per path, and the stale check.

Pure and sometimes heavy: the service runs large ones in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from angelos.angelgit.documents import documents, notebook
from angelos.angelgit.documents.edits import apply_diff, unified_diff
from angelos.angelgit.merge import conflicts
from angelos.angelgit.merge.conflicts import MergeConflict
from angelos.angelgit.storage.models import FileState, PathChange, sha256
from angelos.angelgit.storage.trees import clash
from angelos.core.errors import InvalidInput, Stale
from angelos.core.ids import Revision, uuid7
from angelos.core.repository import DeleteFile, Edit, NewText


class BaseFile(NamedTuple):
    """A file of the base revision."""

    file: FileState
    text: str
    state: bytes


class PreparedEdit(NamedTuple):
    """What one edit becomes."""

    change: PathChange
    before: str | None
    after: str | None
    diff: str


def prepare_edit(edit: Edit, base: BaseFile | None) -> PreparedEdit | None:
    """Return what an edit does to a file of the base revision; None if it changes nothing.

    Raises `InvalidInput` when it does not fit its base.
    """
    path = edit.path
    before = base.text if base else None
    after = _new_text(edit, before)
    if after == before:
        return None
    diff = unified_diff(before, after, path)
    if base is None:
        update = documents.build(path, after or "")
        return PreparedEdit(
            PathChange(path=path, document=uuid7(), op="create", update=update), None, after, diff
        )
    document, mode = base.file.document, base.file.mode
    if after is None:
        change = PathChange(path=path, document=document, op="delete", mode=mode)
    else:
        update = documents.change(path, base.state, after)
        change = PathChange(path=path, document=document, op="edit", update=update, mode=mode)
    return PreparedEdit(change, before, after, diff)


def _new_text(edit: Edit, before: str | None) -> str | None:
    path = edit.path
    if isinstance(edit, DeleteFile):
        if before is None:
            raise InvalidInput(f"There is no {path} in the base revision to delete.")
        return None
    if isinstance(edit, NewText):
        text = edit.text
    else:
        creates = any(row.startswith("--- /dev/null") for row in edit.diff.split("\n", 4))
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
        changed = apply_diff(before or "", edit.diff, path)
        if changed is None:
            if before is None:
                raise InvalidInput(f"There is no {path} in the base revision to delete.")
            return None
        text = changed
    text = documents.check_text(path, text)
    return documents.check_text(path, documents.canonical(path, text, before))


def find_conflicts(
    changes: tuple[PathChange, ...],
    dev: Mapping[str, str],
    base: Mapping[str, str],
    theirs: Mapping[str, str],
    yours: Mapping[str, str],
) -> list[MergeConflict]:
    """Return what stands against a merge; `dev` maps path -> document, the others path -> text."""
    found: list[MergeConflict] = []
    for change in changes:
        path = change.path
        texts = (base.get(path, ""), theirs.get(path, ""), yours.get(path, ""))
        if change.op == "create":
            other = path if path in dev else clash(dev, path)
            if other is not None:
                what = "file exists" if other == path else f"{other} stands in the way"
                found.append(conflicts.file_conflict(path, *texts, what))
        elif dev.get(path) != change.document:
            found.append(conflicts.file_conflict(path, *texts, "file deleted"))
        elif change.op == "delete":
            if texts[0] != texts[1]:
                found.append(conflicts.file_conflict(path, *texts, "deleted file changed"))
        elif documents.is_notebook(path):
            books = [notebook.parse(text, path) for text in texts]
            found += conflicts.notebook_conflicts(path, *books)
        else:
            found += conflicts.text_conflicts(path, *texts)
    return found


def refuse(found: list[MergeConflict], base: Revision) -> None:
    """Raise `Stale` with the evidence if there are conflicts."""
    if not found:
        return
    first = found[0]
    place = f"{first.path} line {first.start}" + (
        f" to {first.end}" if first.end > first.start else ""
    )
    cell = f" of cell {first.cell}" if first.cell else ""
    raise Stale(
        f"{place}{cell} changed in dev since {base[:12]} ({first.what})"
        + (f", and {len(found) - 1} more places" if len(found) > 1 else "")
        + "; nothing was merged.",
        hint="Make the change again on the present dev or main.",
        conflicts=conflicts.evidence(found),
    )


def digest_of(text: str | None) -> str | None:
    """Return the hash of a text's UTF-8."""
    return None if text is None else sha256(text.encode())
