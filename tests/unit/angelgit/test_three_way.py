from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.merge.conflicts import notebook_conflicts, text_conflicts
from angelos.angelgit.merge.three_way import merge, merge_text

LINES = st.lists(st.sampled_from("abc"), max_size=6).map(
    lambda rows: "".join(r + "\n" for r in rows)
)
OPEN = st.tuples(LINES, st.sampled_from(["", "x", "y"])).map("".join)


@pytest.mark.parametrize(
    ("base", "current", "proposed", "result"),
    [
        ("1\n2\n3\n", "1\nx\n2\n3\n", "1\n2\n3\ny\n", "1\nx\n2\n3\ny\n"),
        ("1\n2\n", "1\nx\n2\n", "1\ny\n2\n", "1\nx\ny\n2\n"),
        ("1\n2\n3\n", "1\n2\nx\n3\n", "1\n2\nC\n", "1\n2\nx\nC\n"),
        ("1\n", "1\nopen", "1\nline\n", "1\nline\nopen"),
        ("1\n2\n", "2\n", "1\n", ""),
        ("a\n", "b\n", "b\n", "b\n"),
        ("a\n", "x\na\n1\n", "x\na\n2\n", "x\na\n1\n2\n"),
        ("1\n2\n3\n4\n", "1\n3\n4\n", "1\n3\nnew\n4\n", "1\n3\nnew\n4\n"),
    ],
)
def test_what_a_merge_gives(base, current, proposed, result):
    merged = merge_text(base, current, proposed)
    assert not merged.has_conflicts
    assert merged.text == merged.woven() == result


@pytest.mark.parametrize(
    ("base", "current", "proposed"),
    [("", "x", "y"), ("1\n", "1", "1\n2\n"), ("a\n", "", "b\n")],
)
def test_which_texts_conflict(base, current, proposed):
    for one, other in ((current, proposed), (proposed, current)):
        assert merge_text(base, one, other).has_conflicts
        assert text_conflicts("a", base, one, other)


@given(OPEN, OPEN, OPEN)
@settings(deadline=None)
def test_a_merge_has_conflicts_where_lines_overlap(base, current, proposed):
    merged = merge_text(base, current, proposed)
    assert merged.has_conflicts == bool(text_conflicts("a", base, current, proposed))
    if not merged.has_conflicts:
        assert sorted(merge_text(base, proposed, current).text) == sorted(merged.text)
        whole = {*base.split("\n"), *current.split("\n"), *proposed.split("\n"), ""}
        assert set(merged.text.split("\n")) <= whole


@given(OPEN, OPEN)
@settings(deadline=None)
def test_a_side_that_changed_nothing_gives_the_other(base, other):
    assert merge_text(base, base, other).text == merge_text(base, other, base).text == other
    assert merge_text(base, other, other).text == other


def cell(cell_id, source, ran=0):
    out = [{"output_type": "stream", "name": "stdout", "text": "x"}] if ran else []
    return {
        "id": cell_id, "cell_type": "code", "source": source, "metadata": {"n": ran} if ran else {},
        "outputs": out, "execution_count": ran or None,
    }  # fmt: skip


BOOK = st.lists(
    st.tuples(st.sampled_from("abcd"), LINES, st.integers(0, 1)), max_size=4,
    unique_by=lambda c: c[0],
).map(
    lambda cells: canonical(
        "n.ipynb",
        json.dumps({"cells": [cell(*c) for c in cells], "metadata": {}, "nbformat": 4,
                    "nbformat_minor": 5}),
    )
)  # fmt: skip


@given(BOOK, BOOK, BOOK)
@settings(deadline=None)
def test_notebooks_have_conflicts_where_cells_do(base, current, proposed):
    merged = merge("n.ipynb", base, current, proposed)
    books = [notebook.parse(text, "n.ipynb") for text in (base, current, proposed)]
    assert merged.has_conflicts == bool(notebook_conflicts("n.ipynb", *books))
    assert merged.has_conflicts or merged.woven() == merged.text
    assert merged.woven(force=True) is not None
    assert merge("n.ipynb", base, base, proposed).text == proposed
    assert merge("n.ipynb", base, current, base).text == current


def test_both_sides_work_stays_in_a_conflict_where_that_is_text():
    merged = merge("a", "1\nbad\n3\n", "1\nbad <typed>\n3\nmore\n", "1\ngood\n3\n")
    assert merged.has_conflicts
    assert merged.woven() == "1\ngood <typed>\n3\nmore\n"
    assert merged.text == "1\nbad <typed>\n3\nmore\n"


@pytest.mark.parametrize(
    ("after", "current", "before", "forced"),
    [
        ("timeout = 30\n", "timeout = 60\n", "", "timeout = 60\n"),
        ("timeout = 30\n", "timeout = 60\n", "timeout: 10\n", "timeout = 60\n"),
        ("bad\n", "bad <typed>\n", "", " <typed>\n"),
        ("five\nfour\n", "five\nfour and new\n", "", " and new\n"),
    ],
)
def test_the_remainder_of_a_line_is_no_text(after, current, before, forced):
    """Taken out around what somebody wrote into the same line."""
    merged = merge_text(after, current, before)
    assert merged.has_conflicts
    assert merged.woven() is None
    assert merged.woven(force=True) == forced


def test_lines_typed_between_removed_ones_stay():
    merged = merge_text("a\nb\n", "a\ntyped\nb\n", "")
    assert merged.has_conflicts
    assert merged.woven() == "typed\n"


@given(OPEN, OPEN, OPEN)
@settings(deadline=None)
def test_what_was_inserted_stays_when_the_rest_is_taken_back(base, current, proposed):
    merged = merge_text(base, current, proposed)
    woven = merged.woven()
    forced = merged.woven(force=True)
    assert forced is not None
    assert woven in (None, forced)
    new = [line for line in current.split("\n") if line and line not in base + proposed]
    assert all(line in forced for line in new)


def test_what_was_rolled_back_and_comes_back_is_not_there_twice():
    main, typed = "a\nkept\n", "a\nkept and more\n"
    rolled = merge_text(main, typed, "a\n").woven(force=True)
    assert rolled == "a\n and more\n"
    again = merge_text("a\n", rolled, main).woven(force=True)
    assert again is not None
    assert again.count("kept") == again.count("more") == 1
    assert merge_text("a\n", main, main).text == main


def test_many_hunks_are_merged_in_one_sweep():
    base = [f"line {i}\n" for i in range(20_000)]
    sides = [
        "".join(line.upper() if i % 4 == side else line for i, line in enumerate(base))
        for side in (1, 3)
    ]
    merged = merge_text("".join(base), *sides)
    assert not merged.has_conflicts
    assert len(merged.chunks) > 16_000
    assert merged.text == "".join(line.upper() if i % 2 else line for i, line in enumerate(base))
