from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.angelgit.documents.edits import (
    apply_diff,
    is_cut,
    line_hunks,
    lines,
    text_edits,
    unified_diff,
)
from angelos.core.errors import InvalidInput

# Line ends of every sort, combining marks, astral characters, and what str.splitlines trips over.
PIECES = [
    "a",
    "b",
    "\n",
    "\r\n",
    "\r",
    "\x0c",
    "\u2028",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
    "\U0001f601",
    "x = 1\n",
    "\x1c",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60
)


def execute(before: str, edits) -> str:
    raw = before.encode()
    for edit in edits:
        raw = raw[: edit.at] + edit.insert.encode() + raw[edit.at + edit.delete :]
    return raw.decode()


@given(TEXT, TEXT)
@settings(deadline=None)
def test_edits_turn_one_text_into_the_other(before, after):
    assert execute(before, text_edits(before, after)) == after


@given(TEXT, TEXT)
@settings(deadline=None)
def test_hunks_cover_exactly_what_differs(before, after):
    old, new, out, at = lines(before), lines(after), [], 0
    for hunk in line_hunks(before, after):
        out += old[at : hunk.start] + new[hunk.new_start : hunk.new_end]
        at = hunk.end
    assert "".join(out + old[at:]) == after


@given(TEXT, TEXT)
@settings(deadline=None)
def test_our_own_diffs_apply(before, after):
    diff = unified_diff(before, after, "a.txt")
    if diff and "@@" in diff:
        assert apply_diff(before, diff, "a.txt") == after


@pytest.mark.parametrize("size", [10, 1_000, 5_000, 60_000])
def test_a_diff_shows_the_texts_and_nothing_of_other_memory(size):
    old, new = "b" * size, "\u00e9" * size
    for _ in range(3):
        diff = unified_diff(old + "\n", new + "\n", "a.txt")
        shown = diff.partition("@@ -1 +1 @@\n")[2]
        assert shown == f"-{old}\n+{new}\n"[: len(shown)] or is_cut(diff)
        assert set(shown) <= set("-+b\u00e9\n. characters more0123456789")


def test_a_diff_that_was_cut_says_so():
    assert is_cut(unified_diff("", "a\n" * 40_000, "a.txt"))
    assert not is_cut(unified_diff("", "... 9 characters more\n", "a.txt"))


def test_only_what_changed_inside_a_line_is_touched():
    edits = text_edits("keep\nvalue = 1\nkeep\n", "keep\nvalue = 2\nkeep\n")
    assert [(e.at, e.delete, e.insert) for e in edits] == [(13, 1, "2")]


def test_offsets_are_utf8_bytes():
    edits = text_edits("\U0001f600\u00e9 one\n", "\U0001f600\u00e9 two\n")
    assert edits[0].at >= len("\U0001f600\u00e9 ".encode())


@pytest.mark.parametrize(
    ("diff", "says"),
    [
        ("", "no hunk"),
        (
            "@@ -1 +1 @@\n-three\n+3\n",
            "Hunk 1 of the diff of a.txt does not fit its base at line 1",
        ),
        ("@@ -9 +9 @@\n-x\n+3\n", "the base has 2 lines"),
        ("@@ -1,2 +1 @@\n-one\n+1\n", "counts 2 lines before and 1 after, but holds 1 and 1"),
        ("@@ -1 +1 @@\n-one\n+1\n+2\n", "of a.txt is followed by"),
        ("--- a/b.txt\n+++ b/b.txt\n@@ -1 +1 @@\n-one\n+1\n", "The diff is of a/b.txt"),
        (f"@@ -{'1' * 5000} +1 @@\n-one\n+1\n", "unknown line"),
        (f"@@ -1 +1 @@\n-one\n+1\n@@ -2 +{'2' * 5000} @@\n-two\n+2\n", "of a.txt is followed by"),
        ("hello\n@@ -1 +1 @@\n-one\n+1\n", "unknown line"),
        ("@@ -1 +1 @@\n*one\n", "begins with '*'"),
        ("@@ -2 +2 @@\n-two\n+2\n@@ -1 +1 @@\n-one\n+1\n", "Hunk 2"),
        ("@@ -1 +1 @@\n\\ No newline\n-one\n", "Hunk 1"),
    ],
)
def test_a_diff_that_does_not_fit_is_named(diff, says):
    with pytest.raises(InvalidInput) as caught:
        apply_diff("one\ntwo\n", diff, "a.txt")
    assert says in str(caught.value)


def test_diffs_of_git_apply_with_their_headers():
    diff = (
        "diff --git a/a.txt b/a.txt\nindex 1..2 100644\n--- a/a.txt\n+++ b/a.txt\n"
        "@@ -1,2 +1,2 @@ def f():\n one\n-two\n\\ No newline at end of file\n+2\n"
    )
    assert apply_diff("one\ntwo", diff, "a.txt") == "one\n2\n"


def test_a_diff_may_create_or_remove_a_file():
    assert apply_diff("", "--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+one\n", "a.txt") == "one\n"
    assert apply_diff("one\n", "--- a/a.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", "a.txt") is None


@pytest.mark.parametrize("hunk", ["@@ -1 +0,0 @@\n-one\n", ""])
def test_a_diff_that_removes_a_file_shows_all_of_it(hunk):
    with pytest.raises(InvalidInput, match="not all of its lines"):
        apply_diff("one\ntwo\n", f"--- a/a.txt\n+++ /dev/null\n{hunk}", "a.txt")


def test_carriage_returns_are_part_of_a_line():
    assert apply_diff("a\r\nb\r\n", "@@ -2 +2 @@\n-b\r\n+c\r\n", "a.txt") == "a\r\nc\r\n"
    with pytest.raises(InvalidInput, match="does not fit"):
        apply_diff("a\r\nb\r\n", "@@ -2 +2 @@\n-b\n+c\n", "a.txt")
