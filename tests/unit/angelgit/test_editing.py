"""From edits to files, and the merge of files with what a branch has."""

from __future__ import annotations

import hashlib
import json

import pytest

from angelos.angelgit.changes.editing import apply_edits, check_edits
from angelos.angelgit.documents import notebook
from angelos.angelgit.merge.changes import ChangedFile, merge_changes
from angelos.angelgit.merge.files import FileContent, Resolve, merge_file
from angelos.core.errors import InvalidInput
from angelos.core.repository import (
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
    UnifiedDiff,
)
from angelos.core.revision_v2 import EntryMode

ONE = FileContent(EntryMode.file, b"one\n")
TWO = FileContent(EntryMode.file, b"two\n")
BLOB = FileContent(EntryMode.file, b"f" * 64, live=False)


def edited(*edits, **base):
    return apply_edits({f"{name}.txt": file for name, file in base.items()}, edits, {"b": BLOB})


def test_edits_become_files():
    assert edited(NewText(path="a.txt", text="two\n"), a=ONE).files == {"a.txt": TWO}
    assert edited(DeleteFile(path="a.txt"), a=ONE).files == {"a.txt": None}
    new = UnifiedDiff(path="n", diff="--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n")
    assert edited(new).files["n"] == FileContent(EntryMode.file, b"x\n")
    creates = "--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(InvalidInput, match="in the base revision already"):
        edited(UnifiedDiff(path="a.txt", diff=creates), a=ONE)
    moved = edited(MoveFile(path="a.txt", to="b/c.txt"), a=ONE)
    assert (moved.files, moved.moves) == ({"a.txt": None, "b/c.txt": ONE}, {"a.txt": "b/c.txt"})
    program = edited(SetMode(path="a.txt", executable=True), a=ONE).files["a.txt"]
    assert program == ONE._replace(mode=EntryMode.executable)
    put = edited(PutBlob(path="p.png", sha256="b", size=1, executable=True)).files["p.png"]
    assert put == BLOB._replace(mode=EntryMode.executable)
    link = edited(PutLink(path="l", target="a.txt")).files["l"]
    assert (link.mode, link.body, link.live) == (EntryMode.symlink, b"a.txt", False)


@pytest.mark.parametrize(
    "edit",
    [
        DeleteFile(path="none"), MoveFile(path="none", to="x"), MoveFile(path="a.txt", to="b.txt"),
        MoveFile(path="a.txt", to="../x"), MoveFile(path="a.txt", to="a.ipynb"),
        PutBlob(path="x", sha256="c", size=1), PutLink(path="x", target="/etc/passwd"),
        SetMode(path="none", executable=True),
        ReplaceCell(path="a.txt", cell="1", before="", source=""),
    ],
)  # fmt: skip
def test_edits_that_do_not_fit_are_refused(edit):
    with pytest.raises(InvalidInput):
        edited(edit, a=ONE, b=TWO)


def test_one_edit_a_path_or_cell_edits():
    cells = [MoveCell(path="n.ipynb", cell="a"), MoveCell(path="n.ipynb", cell="b")]
    check_edits(cells)
    for edits in (
        [], [*cells, DeleteFile(path="n.ipynb")], [DeleteFile(path="a"), DeleteFile(path="a")],
        [NewText(path="b", text=""), MoveFile(path="a", to="b")], [DeleteFile(path="../a")],
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            check_edits(edits)


def book(*sources):
    cells = [
        {"id": c, "cell_type": "code", "source": s, "metadata": {"tags": [c]},
         "outputs": [{"output_type": "stream", "name": "stdout", "text": c}], "execution_count": 1}
        for c, s in zip("abc", sources, strict=False)
    ]  # fmt: skip
    return notebook.dump({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_cell_edits_leave_outputs_and_metadata():
    path = "n.ipynb"
    base = {path: FileContent(EntryMode.file, book("1", "2", "3").encode())}
    seen = hashlib.sha256(b"2").hexdigest()
    edits = [
        ReplaceCell(path=path, cell="b", before=seen, source="two"),
        InsertCell(path=path, cell="n", after="b", source="new"),
        MoveCell(path=path, cell="c", after=""),
        DeleteCell(path=path, cell="a", before=hashlib.sha256(b"1").hexdigest()),
    ]
    file = apply_edits(base, edits, {}).files[path]
    cells = json.loads(file.body)["cells"]
    assert [(c["id"], "".join(c["source"])) for c in cells] == [
        ("c", "3"), ("b", "two"), ("n", "new"),
    ]  # fmt: skip
    assert cells[1]["metadata"] == {"tags": ["b"]}
    assert cells[1]["outputs"]
    for wrong in (
        ReplaceCell(path=path, cell="b", before="0", source="x"),
        InsertCell(path=path, cell="b", source="x"),
        InsertCell(path=path, cell="m", after="none", source="x"),
        MoveCell(path=path, cell="a", after="a"),
        DeleteCell(path=path, cell="none", before=seen),
    ):
        with pytest.raises(InvalidInput):
            apply_edits(base, [wrong], {})


def against(base, current, proposed, resolve=Resolve.refuse):
    merged = merge_file("p", base, current, proposed, resolve)
    return merged.file, [conflict.kind for conflict in merged.conflicts]


def test_which_changes_of_a_file_conflict():
    other = FileContent(EntryMode.file, b"3\n")
    assert against(ONE, ONE, TWO) == (TWO, [])
    assert against(ONE, TWO, ONE) == against(ONE, TWO, TWO) == (TWO, [])
    assert against(ONE, None, TWO) == (None, ["file-deleted"])
    assert against(ONE, other, TWO) == (other, ["lines"])
    assert against(ONE, other, None) == (other, ["deleted-file-changed"])
    assert against(ONE, ONE, None) == against(ONE, None, None) == (None, [])
    assert against(None, other, TWO) == (other, ["path-taken"])
    assert against(None, None, TWO) == against(None, TWO, TWO) == (TWO, [])
    assert against(BLOB, BLOB, TWO) == (TWO, [])
    assert against(BLOB, other, TWO) == (other, ["file-rewritten"])
    program = ONE._replace(mode=EntryMode.executable)
    assert against(ONE, program, TWO) == (TWO._replace(mode=EntryMode.executable), [])


def test_who_wins_a_conflict_is_the_callers_choice():
    typed = FileContent(EntryMode.file, b"one typed\n")
    assert against(ONE, typed, TWO, Resolve.current) == (typed, [])
    assert against(ONE, typed, None, Resolve.weave) == (typed, ["deleted-file-changed"])
    assert against(ONE, typed, None, Resolve.remove)[0].body == b" typed\n"
    assert against(None, ONE, TWO, Resolve.remove) == (ONE, [])
    whole = FileContent(EntryMode.file, b"one\ntyped\n")
    assert against(ONE, whole, None, Resolve.weave)[0].body == b"typed\n"


def test_a_file_that_moves_takes_the_branches_text_along():
    typed = FileContent(EntryMode.file, b"0\none\n")
    move = ChangedFile("a", "b", ONE, ONE)
    merged = merge_changes([move], {"a": typed}, Resolve.refuse)
    assert (merged.files, merged.moves) == ({"a": None, "b": typed}, {"a": "b"})
    taken = merge_changes([move], {"a": ONE, "b": TWO}, Resolve.refuse)
    assert [c.kind for c in taken.conflicts] == ["path-taken"]
    again = merge_changes([move], {"b": ONE}, Resolve.refuse)
    assert (again.files, again.conflicts) == ({}, [])
