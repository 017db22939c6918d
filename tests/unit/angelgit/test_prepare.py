"""From edits to changes of paths, and their conflicts with `dev`."""

from __future__ import annotations

import pytest

from angelos.angelgit.changes.prepare import BaseFile, find_conflicts, prepare_edit
from angelos.angelgit.documents import crdt
from angelos.angelgit.storage.models import FileState, PathChange, PathOp, sha256
from angelos.core.errors import InvalidInput
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff


def file(path, document, content="x"):
    sha = sha256(content.encode())
    return FileState(path=path, mode=0o644, sha256=sha, size=1, document=document, state=sha)


def test_edits_become_changes():
    state = crdt.build("a.txt", "one\n")
    base = BaseFile(file("a.txt", "d", "one\n"), "one\n", state)
    made = prepare_edit(NewText(path="a.txt", text="two\n"), base)
    assert made is not None
    assert (made.change.op, made.change.document, made.after) == ("edit", "d", "two\n")
    assert crdt.text_of("a.txt", state, made.change.update) == "two\n"
    assert prepare_edit(NewText(path="a.txt", text="one\n"), base) is None
    gone = prepare_edit(DeleteFile(path="a.txt"), base)
    assert gone is not None
    assert (gone.change.op, gone.after) == ("delete", None)
    new = prepare_edit(
        UnifiedDiff(path="n", diff="--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n"), None
    )
    assert new is not None
    assert (new.change.op, new.after) == ("create", "x\n")
    with pytest.raises(InvalidInput):
        prepare_edit(UnifiedDiff(path="n", diff="--- /dev/null\n+++ /dev/null\n"), None)
    creates = "--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(InvalidInput, match="in the base revision already"):
        prepare_edit(UnifiedDiff(path="a.txt", diff=creates), base)


def test_which_changes_conflict_with_dev():
    def against(op, dev, base="1\n", theirs="1\n", yours="2\n"):
        change = PathChange(path="p", document="d", op=PathOp(op))
        found = find_conflicts((change,), dev, {"p": base}, {"p": theirs}, {"p": yours})
        return [c.kind for c in found]

    assert against("edit", {"p": "d"}) == []
    assert against("edit", {}) == ["file-deleted"]
    assert against("edit", {"p": "other"}) == ["file-deleted"]
    assert against("edit", {"p": "d"}, theirs="3\n") == ["lines"]
    assert against("delete", {"p": "d"}, theirs="3\n") == ["deleted-file-changed"]
    assert against("delete", {"p": "d"}) == []
    assert against("create", {"p": "other"}) == ["path-taken"]
    assert against("create", {"p/q": "other"}) == ["path-blocked"]
    assert against("create", {}) == []
