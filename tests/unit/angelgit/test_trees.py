"""Trees: manifests, paths that exclude each other, and the plan of a rollback."""

from __future__ import annotations

from angelos.angelgit.storage.models import FileState, sha256
from angelos.angelgit.storage.trees import (
    dev_changes,
    differing,
    file_below_file,
    path_clash,
    plan_rollback,
    with_files,
)


def file(path, document, content="x"):
    sha = sha256(content.encode())
    return FileState(path=path, mode=0o644, sha256=sha, size=1, document=document, state=sha)


def test_manifests_stay_sorted_and_lose_documents():
    tree = with_files((), [file("b", "2"), file("a", "1")])
    assert [f.path for f in tree] == ["a", "b"]
    assert [f.path for f in with_files(tree, [file("c", "3")], {"1"})] == ["b", "c"]
    assert [path for path, _, _ in differing(tree, with_files(tree, [file("b", "2", "y")]))] == [
        "b"
    ]


def test_files_and_folders_cannot_share_a_name():
    assert path_clash(["a"], "a/b/c") == "a"
    assert path_clash(["a/b/c"], "a") == "a/b/c"
    assert path_clash(["a/b", "ab"], "a/c") is None
    assert file_below_file(["a/b/c", "b", "a/b"]) == ("a/b", "a/b/c")
    assert file_below_file(["a/b", "ab", "a/c", "a.b"]) is None


def test_a_rollback_deletes_before_it_revives():
    main = (file("p", "new"), file("q", "2", "later"))
    target = (file("p", "old"), file("q", "2"))
    plan = plan_rollback(main, target, {"old": file("p", "old")})
    assert [(s.path, s.document, s.target is None) for s in plan] == [
        ("p", "new", True), ("p", "old", False), ("q", "2", False),
    ]  # fmt: skip
    changes = dev_changes(plan, {"2": b"u"}, {"new", "2"})
    assert [(m.document, m.op) for m in changes] == [
        ("new", "delete"),
        ("old", "revive"),
        ("2", "edit"),
    ]
    # What dev alone has deleted stays deleted there, but takes the edit.
    assert [m.op for m in dev_changes(plan[2:], {"2": b"u"}, set())] == ["edit"]
