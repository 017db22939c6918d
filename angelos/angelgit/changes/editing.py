"""From exact edits to the files that they make of a base revision. Pure.

edited = apply_edits(base, edits, blobs={})
edited.files["a.txt"]  # None: the file is deleted
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import canonical, check_text, is_notebook
from angelos.angelgit.documents.edits import apply_diff
from angelos.angelgit.documents.notebook import Json
from angelos.angelgit.merge.files import FileContent, content_of
from angelos.core.errors import InvalidInput
from angelos.core.paths import safe_link, safe_path
from angelos.core.pending import MAX_EDITS
from angelos.core.repository import (
    CellEdit,
    DeleteCell,
    DeleteFile,
    InsertCell,
    MoveCell,
    MoveFile,
    NewText,
    PutBlob,
    PutLink,
    ReplaceCell,
    SetMode,
    TreeEdit,
    UnifiedDiff,
)
from angelos.core.revision_v2 import EntryMode

Files = dict[str, FileContent | None]


class EditedFiles(NamedTuple):
    """What edits make of the files that they touch."""

    files: Files
    """Path -> the file after the edits, None: it is deleted."""
    moves: dict[str, str]
    """Old path -> new path."""


def check_edits(edits: Sequence[TreeEdit]) -> None:
    """Raise `InvalidInput` unless there are 1 to `MAX_EDITS` edits, one a path, or cell edits."""
    once = [e.path for e in edits if not isinstance(e, CellEdit)]
    once += {e.path for e in edits if isinstance(e, CellEdit)}
    once += [e.to for e in edits if isinstance(e, MoveFile)]
    if not 0 < len(edits) <= MAX_EDITS or len(set(once)) != len(once):
        raise InvalidInput(
            f"A proposal has 1 to {MAX_EDITS} edits, one for each path, or cell edits only."
        )
    for path in once:
        safe_path(path)


def touched(edits: Sequence[TreeEdit]) -> list[str]:
    """Return the paths that edits read or write, in their order, each once."""
    targets = [e.to for e in edits if isinstance(e, MoveFile)]
    return list(dict.fromkeys([*(e.path for e in edits), *targets]))


def apply_edits(
    base: Mapping[str, FileContent], edits: Sequence[TreeEdit], blobs: Mapping[str, FileContent]
) -> EditedFiles:
    """Return the files after the edits.

    Args:
        base: the touched files of the base revision, of those that are there.
        edits: as `check_edits` takes them.
        blobs: hash -> content of the stored blobs that `PutBlob`s name.

    Raises:
        InvalidInput: an edit does not fit its base.
    """
    edited = EditedFiles(dict(base), {})
    for edit in edits:
        _EDITS[type(edit)](edited, edit, blobs)
    return edited


def edits_between(
    before: Mapping[str, FileContent],
    after: Mapping[str, FileContent | None],
    moves: Mapping[str, str],
    sizes: Mapping[str, int],
) -> list[TreeEdit]:
    """Return the edits that lead from files to others, one for each path.

    Args:
        before: the files as they are.
        after: path -> file afterwards, for the paths that change.
        moves: old path -> new path.
        sizes: of the blobs among them.
    """
    plain = {old: new for old, new in moves.items() if before.get(old) == after.get(new)}
    edits: list[TreeEdit] = [MoveFile(path=old, to=new) for old, new in plain.items()]
    for path, file in after.items():
        if path in plain or path in plain.values() or file == before.get(path):
            continue
        edits.append(_edit_to(path, before.get(path), file, sizes))
    return edits


def _edit_to(
    path: str, before: FileContent | None, file: FileContent | None, sizes: Mapping[str, int]
) -> TreeEdit:
    if file is None:
        return DeleteFile(path=path)
    executable = file.mode is EntryMode.executable
    if file.mode is EntryMode.symlink:
        return PutLink(path=path, target=file.body.decode())
    if before is not None and before.body == file.body and before.live == file.live:
        return SetMode(path=path, executable=executable)
    if file.is_blob:
        digest = file.body.decode()
        return PutBlob(path=path, sha256=digest, size=sizes[digest], executable=executable)
    return NewText(path=path, text=file.text)


def _file(edited: EditedFiles, path: str) -> FileContent:
    file = edited.files.get(path)
    if file is None:
        raise InvalidInput(f"There is no {path} in the base revision.")
    return file


def _put_text(edited: EditedFiles, path: str, text: str) -> None:
    before = edited.files.get(path)
    live = before is not None and before.live
    text = check_text(path, text)
    text = check_text(path, canonical(path, text, before.text if before and live else None))
    mode = before.mode if before and before.mode is not EntryMode.symlink else EntryMode.file
    edited.files[path] = FileContent(mode, text.encode())


def _new_text(edited: EditedFiles, edit: NewText, _: object) -> None:
    _put_text(edited, edit.path, edit.text)


def _unified_diff(edited: EditedFiles, edit: UnifiedDiff, _: object) -> None:
    path, before = edit.path, edited.files.get(edit.path)
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
    if before is not None and not before.live:
        raise InvalidInput(f"{path} is no text, so no diff fits it.")
    text = apply_diff(before.text if before else "", edit.diff, path)
    if text is None:
        edited.files[path] = None
    else:
        _put_text(edited, path, text)


def _delete_file(edited: EditedFiles, edit: DeleteFile, _: object) -> None:
    if edited.files.get(edit.path) is None:
        raise InvalidInput(f"There is no {edit.path} in the base revision to delete.")
    edited.files[edit.path] = None


def _put_blob(edited: EditedFiles, edit: PutBlob, blobs: Mapping[str, FileContent]) -> None:
    content = blobs.get(edit.sha256)
    if content is None:
        raise InvalidInput(f"The blob for {edit.path} is not stored, or has another size.")
    mode = EntryMode.executable if edit.executable else EntryMode.file
    if content.live and is_notebook(edit.path):
        text = canonical(edit.path, content.text)
        content = content._replace(body=text.encode())
    edited.files[edit.path] = content._replace(mode=mode)


def _put_link(edited: EditedFiles, edit: PutLink, _: object) -> None:
    target = safe_link(edit.path, edit.target)
    edited.files[edit.path] = content_of(EntryMode.symlink, target.encode())


def _move_file(edited: EditedFiles, edit: MoveFile, _: object) -> None:
    file = _file(edited, edit.path)
    if edited.files.get(safe_path(edit.to)) is not None:
        raise InvalidInput(f"The base has a file at {edit.to}.")
    if file.mode is EntryMode.symlink:
        safe_link(edit.to, file.body.decode())
    if is_notebook(edit.to) and not is_notebook(edit.path):
        raise InvalidInput(f"{edit.path} is no notebook, so it cannot be named {edit.to}.")
    edited.files[edit.path] = None
    edited.files[edit.to] = file
    edited.moves[edit.path] = edit.to


def _set_mode(edited: EditedFiles, edit: SetMode, _: object) -> None:
    file = _file(edited, edit.path)
    if file.mode is EntryMode.symlink:
        raise InvalidInput(f"{edit.path} is a link.")
    mode = EntryMode.executable if edit.executable else EntryMode.file
    edited.files[edit.path] = file._replace(mode=mode)


# -- cells -----------------------------------------------------------------------------------


def _cells_edit(change: Callable[[Json, Any], None]) -> Callable[[EditedFiles, Any, object], None]:
    def apply(edited: EditedFiles, edit: Any, _: object) -> None:
        file = _file(edited, edit.path)
        if not (file.live and is_notebook(edit.path)):
            raise InvalidInput(f"{edit.path} is no notebook.")
        book = copy.deepcopy(notebook.load(file.text, edit.path))
        change(book, edit)
        _put_text(edited, edit.path, notebook.dump(book))

    return apply


def _insert_cell(book: Json, edit: InsertCell) -> None:
    if not edit.cell or any(cell["id"] == edit.cell for cell in book["cells"]):
        raise InvalidInput(f"{edit.path} has a cell {edit.cell!r} already.")
    cell: Json = {
        "cell_type": edit.cell_type, "id": edit.cell, "metadata": {}, "source": edit.source,
    }  # fmt: skip
    if edit.cell_type == "code":
        cell |= {"execution_count": None, "outputs": []}
    book["cells"].insert(_place_after(book, edit.path, edit.after), cell)


def _replace_cell(book: Json, edit: ReplaceCell) -> None:
    _seen_cell(book, edit)["source"] = edit.source


def _delete_cell(book: Json, edit: DeleteCell) -> None:
    book["cells"].remove(_seen_cell(book, edit))


def _move_cell(book: Json, edit: MoveCell) -> None:
    cell = next((cell for cell in book["cells"] if cell["id"] == edit.cell), None)
    if cell is None or edit.cell == edit.after:
        raise InvalidInput(f"{edit.path} has no cell {edit.cell!r} to move there.")
    book["cells"].remove(cell)
    book["cells"].insert(_place_after(book, edit.path, edit.after), cell)


def _seen_cell(book: Json, edit: ReplaceCell | DeleteCell) -> Json:
    """Return the cell of an edit if it is as its author saw it."""
    cell = next((cell for cell in book["cells"] if cell["id"] == edit.cell), None)
    if cell is None or hashlib.sha256(cell["source"].encode()).hexdigest() != edit.before:
        raise InvalidInput(
            f"Cell {edit.cell!r} of {edit.path} is not as its author saw it.",
            hint="`before` is the SHA-256 of the cell's source in the base revision.",
        )
    return cell


def _place_after(book: Json, path: str, after: str) -> int:
    ids = [cell["id"] for cell in book["cells"]]
    if after and after not in ids:
        raise InvalidInput(f"{path} has no cell {after!r}.")
    return ids.index(after) + 1 if after else 0


_EDITS: dict[type, Callable[[EditedFiles, Any, Mapping[str, FileContent]], None]] = {
    NewText: _new_text,
    UnifiedDiff: _unified_diff,
    DeleteFile: _delete_file,
    PutBlob: _put_blob,
    PutLink: _put_link,
    MoveFile: _move_file,
    SetMode: _set_mode,
    InsertCell: _cells_edit(_insert_cell),
    ReplaceCell: _cells_edit(_replace_cell),
    DeleteCell: _cells_edit(_delete_cell),
    MoveCell: _cells_edit(_move_cell),
}
