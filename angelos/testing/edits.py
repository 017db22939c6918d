r"""Edits and hunks over plain dictionaries of files: the slow and simple way.

`MemoryRepository` decides with these. They share no code with AngelGit's merge, so that a test
which passes with both has compared two ways to the same answer.

>>> base = {"a.txt": Content(b"1\n2\n3\n")}
>>> proposed = apply_edits(base, [NewText(path="a.txt", text="one\n2\n3\n")], {})
>>> hunks = hunks_between(base, proposed, {})
>>> placed = place(hunks, base, proposed, {"a.txt": Content(b"0\n1\n2\ndrei\n")})
>>> placed.files["a.txt"].body, placed.at[hunks[0].id]
(b'0\none\n2\ndrei\n', 2)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple, TypeAlias

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.ids import HunkId
from angelos.core.paths import safe_link, safe_path
from angelos.core.pending import ChangeKind, EditConflict, PendingHunk, hunk_id
from angelos.core.repository import (
    DeleteCell,
    DeleteFile,
    EntryKind,
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

_HUNK_HEAD = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")
Notebook: TypeAlias = dict[str, Any]


class Content(NamedTuple):
    """A file or link."""

    body: bytes
    mode: EntryMode = EntryMode.file


Files: TypeAlias = dict[str, Content]


class Placed(NamedTuple):
    """What hunks make of the present files."""

    files: Files
    conflicts: tuple[EditConflict, ...]
    at: dict[HunkId, int]


def kind_of(path: str, content: Content) -> EntryKind:
    """Return how a repository keeps this."""
    if content.mode is EntryMode.symlink:
        return EntryKind.link
    try:
        text = content.body.decode()
    except UnicodeDecodeError:
        return EntryKind.blob
    if "\0" in text:
        return EntryKind.blob
    return EntryKind.notebook if path.endswith(".ipynb") else EntryKind.text


# -- edits -----------------------------------------------------------------------------------


def apply_edits(base: Files, edits: Sequence[TreeEdit], blobs: Mapping[str, bytes]) -> Files:
    """Return the files after the edits; raise `InvalidInput` for one that does not fit them."""
    cell_edits = (InsertCell, ReplaceCell, DeleteCell, MoveCell)
    once = [e.path for e in edits if not isinstance(e, cell_edits)]
    once += {e.path for e in edits if isinstance(e, cell_edits)}
    once += [e.to for e in edits if isinstance(e, MoveFile)]
    if len(set(once)) != len(once):
        raise InvalidInput("A path has one edit, or cell edits only.")
    files = dict(base)
    for edit in edits:
        safe_path(edit.path)
        _EDITS[type(edit)](files, edit, blobs)
    for path in files:
        above = path.rpartition("/")[0]
        while above:
            if above in files:
                raise InvalidInput(f"{path} cannot be below the file {above}.")
            above = above.rpartition("/")[0]
    return files


def _file(files: Files, path: str) -> Content:
    if path not in files:
        raise InvalidInput(f"The base has no {path}.")
    return files[path]


def _new_text(files: Files, edit: NewText, _: object) -> None:
    try:
        body = edit.text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The text of {edit.path} is not Unicode.") from error
    if edit.path.endswith(".ipynb"):
        notebook_of(body)
    mode = files[edit.path].mode if edit.path in files else EntryMode.file
    files[edit.path] = Content(body, EntryMode.file if mode is EntryMode.symlink else mode)


def _unified_diff(files: Files, edit: UnifiedDiff, _: object) -> None:
    old = lines_of(_file(files, edit.path).body)
    new: list[str] = []
    upto = 0
    rows = lines_of(edit.diff.encode())
    first = next((at for at, line in enumerate(rows) if _HUNK_HEAD.match(line)), len(rows))
    for line in rows[first:]:
        if head := _HUNK_HEAD.match(line):
            start = int(head[1]) - (head[2] != "0")
            new += old[upto:start]
            upto = start
        elif line.startswith((" ", "-")):
            if old[upto : upto + 1] != [line[1:]]:
                raise InvalidInput(f"The diff of {edit.path} does not fit its base.")
            new += [line[1:]] if line.startswith(" ") else []
            upto += 1
        elif line.startswith("+"):
            new.append(line[1:])
    body = "".join(new + old[upto:]).encode()
    files[edit.path] = files[edit.path]._replace(body=body)


def _delete_file(files: Files, edit: DeleteFile, _: object) -> None:
    _file(files, edit.path)
    del files[edit.path]


def _put_blob(files: Files, edit: PutBlob, blobs: Mapping[str, bytes]) -> None:
    body = blobs.get(edit.sha256)
    if body is None or len(body) != edit.size:
        raise InvalidInput(f"The blob for {edit.path} is not stored.")
    files[edit.path] = Content(body, EntryMode.executable if edit.executable else EntryMode.file)


def _put_link(files: Files, edit: PutLink, _: object) -> None:
    target = safe_link(edit.path, edit.target)
    files[edit.path] = Content(target.encode(), EntryMode.symlink)


def _move_file(files: Files, edit: MoveFile, _: object) -> None:
    content = _file(files, edit.path)
    if safe_path(edit.to) in files:
        raise InvalidInput(f"The base has a file at {edit.to}.")
    if content.mode is EntryMode.symlink:
        safe_link(edit.to, content.body.decode())
    del files[edit.path]
    files[edit.to] = content


def _set_mode(files: Files, edit: SetMode, _: object) -> None:
    content = _file(files, edit.path)
    if content.mode is EntryMode.symlink:
        raise InvalidInput(f"{edit.path} is a link.")
    mode = EntryMode.executable if edit.executable else EntryMode.file
    files[edit.path] = content._replace(mode=mode)


def _cells_edit(change: Callable[[Notebook, Any], None]) -> Callable[[Files, Any, object], None]:
    def apply(files: Files, edit: Any, _: object) -> None:
        notebook = notebook_of(_file(files, edit.path).body)
        change(notebook, edit)
        files[edit.path] = files[edit.path]._replace(body=notebook_body(notebook))

    return apply


def _insert_cell(notebook: Notebook, edit: InsertCell) -> None:
    if not edit.cell or find_cell(notebook, edit.cell) is not None:
        raise InvalidInput(f"{edit.path} has a cell {edit.cell!r} already.")
    cell: dict[str, Any] = {
        "cell_type": edit.cell_type, "id": edit.cell, "metadata": {}, "source": edit.source,
    }  # fmt: skip
    if edit.cell_type == "code":
        cell |= {"execution_count": None, "outputs": []}
    notebook["cells"].insert(_place_after(notebook, edit.path, edit.after), cell)


def _replace_cell(notebook: Notebook, edit: ReplaceCell) -> None:
    _shown_cell(notebook, edit)["source"] = edit.source


def _delete_cell(notebook: Notebook, edit: DeleteCell) -> None:
    notebook["cells"].remove(_shown_cell(notebook, edit))


def _move_cell(notebook: Notebook, edit: MoveCell) -> None:
    cell = find_cell(notebook, edit.cell)
    if cell is None or edit.cell == edit.after:
        raise InvalidInput(f"{edit.path} has no cell {edit.cell!r} to move there.")
    notebook["cells"].remove(cell)
    notebook["cells"].insert(_place_after(notebook, edit.path, edit.after), cell)


def _shown_cell(notebook: Notebook, edit: ReplaceCell | DeleteCell) -> dict[str, Any]:
    cell = find_cell(notebook, edit.cell)
    if cell is None or hashlib.sha256(cell["source"].encode()).hexdigest() != edit.before:
        raise InvalidInput(f"Cell {edit.cell!r} of {edit.path} is not as its author saw it.")
    return cell


def _place_after(notebook: Notebook, path: str, after: str) -> int:
    ids = [cell["id"] for cell in notebook["cells"]]
    if after and after not in ids:
        raise InvalidInput(f"{path} has no cell {after!r}.")
    return ids.index(after) + 1 if after else 0


_EDITS: dict[type, Callable[[Files, Any, Any], None]] = {
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


# -- notebooks and lines ---------------------------------------------------------------------


def notebook_of(body: bytes) -> Notebook:
    """Return a notebook with ids in all its cells; raise `InvalidInput` for anything else."""
    try:
        notebook = json.loads(body)
        ids = [str(cell["id"]) for cell in notebook["cells"]]
        sources = [cell["source"].encode() for cell in notebook["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("Not a notebook.") from error
    if len(set(ids)) != len(sources):
        raise InvalidInput("Two cells have one id.")
    return notebook


def notebook_body(notebook: Notebook) -> bytes:
    """Return the bytes of a notebook."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def find_cell(notebook: Notebook, cell_id: str) -> dict[str, Any] | None:
    """Return a cell by its id."""
    return next((cell for cell in notebook["cells"] if cell["id"] == cell_id), None)


def lines_of(body: bytes) -> list[str]:
    r"""Return lines with their ends; only `\n` ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", body.decode())


def text_at(files: Files, path: str, cell: str = "") -> str | None:
    """Return a file's text, or a cell's source; None if it is not there."""
    content = files.get(path)
    if content is None or kind_of(path, content) not in {EntryKind.text, EntryKind.notebook}:
        return None
    if not cell:
        return content.body.decode()
    row = find_cell(notebook_of(content.body), cell)
    return row["source"] if row else None


def _with_text(files: Files, path: str, cell: str, text: str) -> None:
    content = files[path]
    if not cell:
        files[path] = content._replace(body=text.encode())
        return
    notebook = notebook_of(content.body)
    for row in notebook["cells"]:
        if row["id"] == cell:
            row["source"] = text
    files[path] = content._replace(body=notebook_body(notebook))


# -- hunks -----------------------------------------------------------------------------------


def hunks_between(base: Files, proposed: Files, moves: Mapping[str, str]) -> list[PendingHunk]:
    """Return the smallest pieces that lead from one to the other; `moves` is old -> new path."""
    bare: list[PendingHunk] = []
    for path in sorted({*base, *proposed} - {*moves.values()}):
        if path in moves:
            to = moves[path]
            bare.append(_bare(path, ChangeKind.moved, to=to, before=path, after=to))
        else:
            bare += _file_hunks(path, base.get(path), proposed.get(path))
    hunks: list[PendingHunk] = []
    for hunk in bare:
        repeated = sum(msgspec.structs.replace(h, id=HunkId("")) == hunk for h in hunks)
        hunks.append(msgspec.structs.replace(hunk, id=hunk_id(hunk, repeated)))
    return hunks


def _bare(path: str, kind: ChangeKind, **fields: Any) -> PendingHunk:
    return PendingHunk(id=HunkId(""), path=path, kind=kind, **fields)


def _file_hunks(path: str, before: Content | None, after: Content | None) -> list[PendingHunk]:
    if before == after:
        return []
    if before is None or after is None:
        kind = ChangeKind.created if before is None else ChangeKind.deleted
        return [_bare(path, kind, **_sides(_shown(path, before), _shown(path, after)))]
    kinds = (kind_of(path, before), kind_of(path, after))
    hunks: list[PendingHunk] = []
    if EntryKind.link in kinds or EntryKind.blob in kinds:
        kind = ChangeKind.link if kinds[1] is EntryKind.link else ChangeKind.blob
        return [_bare(path, kind, **_sides(_shown(path, before), _shown(path, after)))]
    if before.mode is not after.mode:
        hunks.append(_bare(path, ChangeKind.mode, **_sides(before.mode.name, after.mode.name)))
    if kinds[1] is EntryKind.notebook:
        return hunks + _cell_hunks(path, notebook_of(before.body), notebook_of(after.body))
    return hunks + _line_hunks(path, "", before.body.decode(), after.body.decode())


def _sides(before: str, after: str) -> dict[str, str]:
    return {"before": before, "after": after}


def _shown(path: str, content: Content | None) -> str:
    if content is None:
        return ""
    if kind_of(path, content) is EntryKind.blob:
        return f"sha256:{hashlib.sha256(content.body).hexdigest()}"
    return content.body.decode()


def _line_hunks(path: str, cell: str, before: str, after: str) -> list[PendingHunk]:
    old, new = lines_of(before.encode()), lines_of(after.encode())
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [
        _bare(
            path, ChangeKind.text, cell=cell, start=i1 + 1, end=i2,
            before="".join(old[i1:i2]), after="".join(new[j1:j2]),
        )
        for tag, i1, i2, j1, j2 in codes
        if tag != "equal"
    ]  # fmt: skip


def _cell_hunks(path: str, before: Notebook, after: Notebook) -> list[PendingHunk]:
    old = {cell["id"]: cell for cell in before["cells"]}
    new = {cell["id"]: cell for cell in after["cells"]}
    hunks = _moved_cells(path, [*old], [*new])
    for cell_id in [*old, *(i for i in new if i not in old)]:
        was, now = old.get(cell_id), new.get(cell_id)
        if was is None or now is None:
            kind = ChangeKind.created if was is None else ChangeKind.deleted
            texts = _sides(was["source"] if was else "", now["source"] if now else "")
            hunks.append(_bare(path, kind, cell=cell_id, **texts))
            continue
        hunks += _line_hunks(path, cell_id, was["source"], now["source"])
        for kind, keys in (
            (ChangeKind.outputs, ("outputs", "execution_count")),
            (ChangeKind.metadata, ("metadata", "cell_type")),
        ):
            sides = [json.dumps([c.get(key) for key in keys], sort_keys=True) for c in (was, now)]
            if sides[0] != sides[1]:
                hunks.append(_bare(path, kind, cell=cell_id, **_sides(*sides)))
    return hunks


def _moved_cells(path: str, old: list[str], new: list[str]) -> list[PendingHunk]:
    common_old = [cell for cell in old if cell in new]
    common_new = [cell for cell in new if cell in old]
    blocks = SequenceMatcher(None, common_old, common_new, autojunk=False).get_matching_blocks()
    fixed = {cell for block in blocks for cell in common_old[block.a : block.a + block.size]}
    return [_bare(path, ChangeKind.moved, cell=c) for c in common_new if c not in fixed]


# -- placing ---------------------------------------------------------------------------------


def place(hunks: Sequence[PendingHunk], base: Files, proposed: Files, current: Files) -> Placed:
    """Return `current` with the hunks that lead from `base` to `proposed`, around all else in it.

    Hunks that do not fit are left out and come back as conflicts.
    """
    files, conflicts = dict(current), list[EditConflict]()
    at: dict[HunkId, int] = {}
    units: dict[tuple[str, str], list[PendingHunk]] = {}
    for hunk in hunks:
        if hunk.kind is ChangeKind.text:
            units.setdefault((hunk.path, hunk.cell), []).append(hunk)
        elif (conflict := _place_one(hunk, base, proposed, files)) is not None:
            conflicts.append(conflict)
    for (path, cell), rows in units.items():
        conflicts += _place_lines(rows, text_at(base, path, cell) or "", files, at)
    order = {hunk.id: index for index, hunk in enumerate(hunks)}
    return Placed(files, tuple(sorted(conflicts, key=lambda c: order[c.hunk])), at)


def _conflict(hunk: PendingHunk, base: str, current: str) -> EditConflict:
    return EditConflict(
        path=hunk.path, kind=hunk.kind, cell=hunk.cell, start=hunk.start, end=hunk.end,
        base=base, current=current, proposed=hunk.after, hunk=hunk.id,
    )  # fmt: skip


class _Lines:
    """How the lines of a base became the present ones."""

    def __init__(self, base: str, current: str) -> None:
        self.current = lines_of(current.encode())
        matcher = SequenceMatcher(None, lines_of(base.encode()), self.current, autojunk=False)
        self.changes = [code[1:] for code in matcher.get_opcodes() if code[0] != "equal"]
        self.blocks = [(0, 0, 0), *matcher.get_matching_blocks()]

    def applied(self, low: int, high: int, after: list[str]) -> int | None:
        """Return where the base's lines were replaced by just these already."""
        for start, end, new_start, new_end in self.changes:
            if (start, end) == (low, high) and self.current[new_start:new_end] == after:
                return new_start
        return None

    def place(self, low: int, high: int) -> int | None:
        """Return where the base's lines are now, None if they were changed."""
        fits = (b[1] + low - b[0] for b in self.blocks if b[0] <= low and high <= b[0] + b[2])
        return next(fits, None)

    def now(self, low: int, high: int) -> str:
        """Return the present text of changes that touch the base's lines."""
        touched = [change for change in self.changes if change[0] <= high and change[1] >= low]
        first, last = min(change[2] for change in touched), max(change[3] for change in touched)
        return "".join(self.current[first:last])


def _place_lines(
    hunks: list[PendingHunk], base: str, files: Files, at: dict[HunkId, int]
) -> list[EditConflict]:
    path, cell = hunks[0].path, hunks[0].cell
    text = text_at(files, path, cell)
    if text is None:
        return [_conflict(hunk, hunk.before, "") for hunk in hunks]
    lines = _Lines(base, text)
    conflicts: list[EditConflict] = []
    inserts: list[tuple[int, int, list[str]]] = []
    for hunk in hunks:
        low, high, after = hunk.start - 1, hunk.end, lines_of(hunk.after.encode())
        if (applied := lines.applied(low, high, after)) is not None:
            at[hunk.id] = applied + 1
        elif (position := lines.place(low, high)) is not None:
            at[hunk.id] = position + 1
            inserts.append((position, position + high - low, after))
        else:
            conflicts.append(_conflict(hunk, hunk.before, lines.now(low, high)))
    changed = list(lines.current)
    for low, high, after in reversed(inserts):
        changed[low:high] = after
    _with_text(files, path, cell, "".join(changed))
    return conflicts


def _place_one(
    hunk: PendingHunk, base: Files, proposed: Files, files: Files
) -> EditConflict | None:
    path, current = hunk.path, files.get(hunk.path)
    if hunk.cell:
        return _place_cell(hunk, base, proposed, files)
    if hunk.kind is ChangeKind.moved:
        return _place_move(hunk, files)
    target = proposed.get(path)
    if hunk.kind is ChangeKind.mode and current is not None and target is not None:
        files[path] = current._replace(mode=target.mode)
    elif current not in (base.get(path), target):
        return _conflict(hunk, hunk.before, _shown(path, current))
    elif target is None:
        files.pop(path, None)
    else:
        files[path] = target
    return None


def _place_move(hunk: PendingHunk, files: Files) -> EditConflict | None:
    if hunk.path in files and hunk.to not in files:
        files[hunk.to] = files.pop(hunk.path)
    elif hunk.path in files or hunk.to not in files:
        return _conflict(hunk, hunk.path, hunk.to if hunk.path in files else "")
    return None


def _place_cell(
    hunk: PendingHunk, base: Files, proposed: Files, files: Files
) -> EditConflict | None:
    if text_at(files, hunk.path) is None:
        return _conflict(hunk, hunk.before, "")
    notebook = notebook_of(files[hunk.path].body)
    now = find_cell(notebook, hunk.cell)
    before, after = _cell_of(base, hunk), _cell_of(proposed, hunk)
    cells, anchor = notebook["cells"], _anchor(hunk, proposed, notebook)
    if hunk.kind in {ChangeKind.created, ChangeKind.deleted}:
        fits = now in (before, after)
        if fits and after is None and now is not None:
            cells.remove(now)
        elif fits and now is None and after is not None:
            cells.insert(anchor, after)
    elif now is None or before is None or after is None:
        fits = False
    elif hunk.kind is ChangeKind.moved:
        fits = True
        cells.remove(now)
        cells.insert(_anchor(hunk, proposed, notebook), now)
    else:
        fits = _put_keys(hunk.kind, before, after, now)
    if not fits:
        return _conflict(hunk, hunk.before, now["source"] if now else "")
    files[hunk.path] = files[hunk.path]._replace(body=notebook_body(notebook))
    return None


def _cell_of(files: Files, hunk: PendingHunk) -> dict[str, Any] | None:
    content = files.get(hunk.path)
    return find_cell(notebook_of(content.body), hunk.cell) if content is not None else None


def _put_keys(
    kind: ChangeKind, before: dict[str, Any], after: dict[str, Any], now: dict[str, Any]
) -> bool:
    """Change a cell's outputs or metadata; return False if somebody else has changed them."""
    outputs = kind is ChangeKind.outputs
    keys = ("outputs", "execution_count") if outputs else ("metadata", "cell_type")
    if any(now.get(key) not in (before.get(key), after.get(key)) for key in keys):
        return False
    now.update({key: after[key] for key in keys if key in after})
    return True


def _anchor(hunk: PendingHunk, proposed: Files, notebook: Notebook) -> int:
    """Return where a cell goes: behind the nearest cell before it that is still there."""
    content = proposed.get(hunk.path)
    order = [cell["id"] for cell in notebook_of(content.body)["cells"]] if content else []
    present = [cell["id"] for cell in notebook["cells"]]
    above = order[: order.index(hunk.cell)] if hunk.cell in order else []
    near = next((cell for cell in reversed(above) if cell in present), None)
    return present.index(near) + 1 if near is not None else 0
