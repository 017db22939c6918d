"""Cutting patches of several files into edits."""

from __future__ import annotations

import difflib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.cli.patches import split
from angelos.core.errors import InvalidInput
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff

TWO = """diff --git a/x.txt b/x.txt
index 1..2 100644
--- a/x.txt
+++ b/x.txt
@@ -1,2 +1,2 @@
 same
--- not a header
+++ not one either
diff --git a/lib/y.txt b/lib/y.txt
--- a/lib/y.txt\t2026-01-01
+++ b/lib/y.txt\t2026-01-02
@@ -3 +3,2 @@ context
-c
+d
+e
"""


def test_a_git_diff_of_two_files_is_two_edits():
    first, second = split(TWO)
    assert isinstance(first, UnifiedDiff)
    assert isinstance(second, UnifiedDiff)
    assert (first.path, second.path) == ("x.txt", "lib/y.txt")
    assert "not a header" in first.diff
    assert second.diff.endswith("+e\n")


def test_a_new_file_is_its_text_and_a_removed_one_is_deleted():
    text = (
        "--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n\\ No newline at end of file\n"
    )
    gone = "--- a/old.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    assert split(text + gone) == (
        NewText(path="new.txt", text="one\ntwo"),
        DeleteFile(path="old.txt"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "@@ -1 +1 @@\n-a\n+b\n",
        "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n",
        "--- a/x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n*a\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n@@ -9,%s +9 @@\n-c\n" % ("9" * 5000),
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n+c\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n-c\n",
        "diff --git a/x b/x\nGIT binary patch\nliteral 1\n",
        "diff --git a/x b/y\nrename from x\nrename to y\n",
    ],
)
def test_what_is_no_patch_is_refused(text):
    with pytest.raises(InvalidInput):
        split(text)


_line = st.text(string.ascii_letters + " -+@\\", max_size=6).map(lambda s: s + "\n")
_file = st.lists(_line, min_size=1, max_size=12)


@given(st.lists(st.tuples(_file, _file), min_size=1, max_size=4))
def test_joined_diffs_come_apart_as_they_were(files):
    diffs = [
        "".join(difflib.unified_diff(old, new, f"a/f{n}", f"b/f{n}"))
        for n, (old, new) in enumerate(files)
        if old != new
    ]
    if diffs:
        assert [edit.diff for edit in split("".join(diffs))] == diffs


def test_a_mail_around_the_patch_is_left_out():
    patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
    (edit,) = split(f"From: ada\n- a list\n\n---\n{patch}-- \n2.39.2\n\n")
    assert edit == UnifiedDiff(path="x", diff=patch)
