from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.angelgit.merge.conflicts import (
    ConflictKind,
    describe,
    evidence,
    file_conflict,
    notebook_conflicts,
    text_conflicts,
)

BASE = "1\n2\n3\n4\n5\n"


@pytest.mark.parametrize(
    ("current", "proposed", "ranges"),
    [
        ("one\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n", []),
        ("1\ntwo\n3\n4\n5\n", "1\n2\nthree\n4\n5\n", []),  # next to each other
        ("1\ntwo\n3\n4\n5\n", "1\nzwei\n3\n4\n5\n", [(2, 2)]),
        ("1\ntwo\n3\n4\n5\n", "1\ntwo\n3\n4\n5\n", []),  # the same change
        ("1\n3\n4\n5\n", "1\nzwei\n3\n4\n5\n", [(2, 2)]),  # deleted and changed
        ("1\n2\nx\n3\n4\n5\n", "1\n2\ny\n3\n4\n5\n", []),  # two insertions
        ("1\n2\nx\n3\n4\nE\n", "1\n2\nx\n3\nD\n5\n", []),  # twice the same insertion
        ("1\n2\nx\n3\n4\n5\n", "1\nB\nC\n4\n5\n", [(2, 3)]),  # inserted into what is replaced
        ("1\n2\nx\n3\n4\n5\n", "1\n2\nC\n4\n5\n", []),  # inserted at its edge
        ("A\nB\nC\n4\n5\n", "1\n2\nc\nd\n5\n", [(1, 4)]),
        ("A\n2\n3\n4\nE\n", "a\n2\n3\n4\ne\n", [(1, 1), (5, 5)]),
        ("A\nB\nC\nD\nE\n", "a\n2\n3\n4\ne\n", [(1, 5)]),
        (BASE, "x\n", []),
        ("", "1\n2\nthree\n4\n5\n", [(1, 5)]),
        (BASE + "6", BASE + "six\n", []),
    ],
)
def test_which_lines_conflict(current, proposed, ranges):
    conflicts = text_conflicts("a.txt", BASE, current, proposed)
    assert [(c.start, c.end) for c in conflicts] == ranges
    assert [(c.start, c.end) for c in text_conflicts("a.txt", BASE, proposed, current)] == ranges


def test_a_conflict_shows_the_three_texts():
    (conflict,) = text_conflicts("a.txt", BASE, "0\n1\ntwo\n2b\n3\n4\n5\n", "1\nzwei\n3\n4\n5\n")
    assert (conflict.base, conflict.theirs, conflict.yours) == ("2\n", "two\n2b\n", "zwei\n")
    assert evidence([conflict])[0]["path"] == "a.txt"


@pytest.mark.parametrize("kind", ConflictKind)
def test_every_conflict_can_be_described(kind):
    assert "{" not in describe(file_conflict("a", "", "", "", kind, "b"))


def test_evidence_is_bounded():
    conflicts = text_conflicts("a.txt", "1\n", "x" * 10_000, "y" * 10_000)
    assert len(evidence(conflicts)[0]["theirs"]) < 5_000


LINES = st.lists(st.sampled_from("abc"), max_size=6).map(
    lambda rows: "".join(r + "\n" for r in rows)
)


@given(LINES, LINES)
@settings(deadline=None)
def test_an_unchanged_side_never_conflicts(base, other):
    assert text_conflicts("a.txt", base, base, other) == []
    assert text_conflicts("a.txt", base, other, base) == []


def cell(cell_id, source, **more):
    return {
        "id": cell_id,
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        **more,
    }


def book(*cells, **metadata):
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


A, B, C = cell("a", "x\ny\n"), cell("b", "y"), cell("c", "z")
RAN = cell(
    "a",
    "x\ny\n",
    outputs=[{"output_type": "stream", "name": "stdout", "text": "1"}],
    execution_count=1,
)


@pytest.mark.parametrize(
    ("current", "proposed", "kinds"),
    [
        (book(A, cell("b", "Y"), C), book(cell("a", "X\ny\n"), B, C), []),
        (book(cell("a", "X\ny\n"), B, C), book(cell("a", "x\nY\n"), B, C), []),
        (book(cell("a", "X\ny\n"), B, C), book(cell("a", "Z\ny\n"), B, C), [("lines", "")]),
        (book(RAN, B, C), book(cell("a", "X\ny\n"), B, C), []),
        (book(RAN, B, C), book(RAN, B, C), []),
        (book(RAN, B, C), book({**RAN, "outputs": [{}]}, B, C), [("key", "outputs")]),
        (book(B, C), book(cell("a", "X\ny\n"), B, C), [("cell-deleted", "")]),
        (book(RAN, B, C), book(B, C), []),
        (book(B, C), book(B, C), []),
        (book(B, A, C), book(A, B, cell("c", "Z")), []),
        (book(A, B, C, cell("n", "1")), book(A, B, C, cell("n", "2")), [("cell-added", "")]),
        (book(A, B, C, k=1), book(A, B, C, k=2), [("key", "metadata.k")]),
        (book(A, B, C, k=1), book(A, B, C, k=1), []),
        (book(A, B, C, k=1), book(A, B, C, j=1), []),
    ],
)
def test_which_cells_conflict(current, proposed, kinds):
    base = json.loads(json.dumps(book(A, B, C)))
    conflicts = notebook_conflicts("n.ipynb", base, current, proposed)
    assert [(c.kind, c.detail) for c in conflicts] == kinds


def test_a_cell_moved_by_one_and_edited_by_the_other_is_no_conflict():
    moved, edited = book(B, C, A), book(cell("a", "X\ny\n"), B, C)
    for current, proposed in ((moved, edited), (edited, moved)):
        assert notebook_conflicts("n.ipynb", book(A, B, C), current, proposed) == []


def test_a_cell_moved_by_both_to_other_places_conflicts():
    end = cell("d", "D")
    current, proposed = book(B, C, end, A), book(B, C, A, end)
    (conflict,) = notebook_conflicts("n.ipynb", book(A, B, C, end), current, proposed)
    assert (conflict.cell, conflict.kind) == ("a", "cell-moved")
