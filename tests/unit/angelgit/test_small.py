"""Trees, replicas and records."""

from __future__ import annotations

import gc
from pathlib import Path

import pycrdt
import pytest

from angelos.angelgit.changes.importing import import_files
from angelos.angelgit.changes.prepare import BaseFile, find_conflicts, prepare_edit
from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.replica import Replica
from angelos.angelgit.storage.models import (
    FileState,
    PathChange,
    PathOp,
    check_name,
    decode,
    proposal_digest,
    sha256,
)
from angelos.angelgit.storage.trees import (
    dev_changes,
    differing,
    file_below_file,
    path_clash,
    plan_rollback,
    with_files,
)
from angelos.control.proposals.repo_config import parse
from angelos.core.errors import InvalidInput, Tampered
from angelos.core.ids import START
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff


def file(path, document, content="x"):
    sha = sha256(content.encode())
    return FileState(path=path, mode=0o644, sha256=sha, size=1, document=document, state=sha)


# -- trees -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "", "a/b": ""}, "a/b cannot be beside a"),
        ({"angelos.toml": "[pipeline]\nsteps = [\n= 1\n"}, "line 3"),
        ({"angelos.toml": f"x = {'1' * 5000}\n"}, "cannot be read"),
        ({"angelos.toml": "[pipelines]\n"}, "unknown field `pipelines`"),
        ({"angelos.toml": "[review]\nprotected = 3\n"}, "review.protected"),
    ],
)
def test_an_import_that_could_never_be_used_is_refused(files, says):
    with pytest.raises(InvalidInput, match=says):
        import_files("r", {path: text.encode() for path, text in files.items()}, parse)


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


# -- drafts ----------------------------------------------------------------------------------


def test_edits_become_moves():
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


def test_what_stands_against_a_merge():
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


# -- replicas and records --------------------------------------------------------------------


def test_a_replica_takes_an_update_once_and_logs_only_what_is_new():
    state = crdt.build("a.txt", "one\n" * 500)
    replica = Replica("a.txt", state, START)
    update = crdt.change("a.txt", state, "one\n" * 500 + "two\n")
    whole = crdt.union("a.txt", state, update)
    logged = replica.apply(whole)
    assert logged is not None
    assert len(logged) < 100 < len(whole)
    assert replica.apply(update) is None
    assert replica.apply(whole) is None
    assert crdt.text_of("a.txt", state, logged) == replica.text()


def test_a_replica_keeps_what_waits_until_the_gap_is_closed():
    state = crdt.build("a.txt", "one\n")
    first = crdt.change("a.txt", state, "one\ntwo\n")
    second = crdt.change("a.txt", crdt.union("a.txt", state, first), "one\ntwo\nthree\n")
    replica = Replica("a.txt", state, START)
    assert replica.apply(second) == second
    assert replica.apply(second) is None
    assert (replica.text(), replica.deferred) == ("one\n", [second])
    assert replica.apply(first) is not None
    assert (replica.text(), replica.deferred) == ("one\ntwo\nthree\n", [])


def test_documents_are_freed():
    """An observed pycrdt document is never freed: every observer has to go again."""
    state = crdt.build("a.txt", "x" * 200_000)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def work():
        update = crdt.change("a.txt", state, "y" + "x" * 200_000)
        crdt.inverse("a.txt", state, update)
        crdt.contains("a.txt", state, update)
        Replica("a.txt", state, START).apply(update)

    for _ in range(5):
        work()
    before = resident()
    for _ in range(60):
        work()
    assert resident() - before < 20_000_000


def test_names_digests_and_records_are_checked():
    assert check_name("study") == "study"
    for name in ("", "../x", "a/b", "a\n", "-a", "x" * 65):
        with pytest.raises(InvalidInput):
            check_name(name)
    edits = [NewText(path="a", text="x")]
    one = proposal_digest("r", "b", "agent/a", edits)
    assert one == proposal_digest("r", "b", "agent/a", edits)
    others = [
        proposal_digest("s", "b", "agent/a", edits), proposal_digest("r", "c", "agent/a", edits),
        proposal_digest("r", "b", "agent/b", edits), proposal_digest("r", "b", "agent/a", []),
    ]  # fmt: skip
    assert one not in others
    with pytest.raises(Tampered):
        decode(b"\xc1", FileState)
    with pytest.raises(Tampered):
        crdt.verify("a.txt", crdt.build("a.txt", "x"), "y")


def test_snapshots_of_pycrdt_are_not_used():
    """`Doc.from_snapshot` restores wrong text (FACTS.md); states are replayed instead."""
    for source in Path(crdt.__file__).parent.glob("*.py"):
        assert "from_snapshot(" not in source.read_text()
    assert hasattr(pycrdt.Doc, "from_snapshot")
