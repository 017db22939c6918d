from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.angelgit.documents import crdt, notebook
from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.merge import rebase
from angelos.angelgit.merge.conflicts import notebook_conflicts, text_conflicts
from angelos.angelgit.merge.three_way import merge, merge_text
from angelos.core.errors import Conflict, Stale

LINES = st.lists(st.sampled_from("abc"), max_size=6).map(
    lambda rows: "".join(r + "\n" for r in rows)
)
OPEN = st.tuples(LINES, st.sampled_from(["", "x", "y"])).map("".join)


@pytest.mark.parametrize(
    ("base", "current", "proposed", "accepted"),
    [
        ("1\n2\n3\n", "1\nx\n2\n3\n", "1\n2\n3\ny\n", ["1\nx\n2\n3\ny\n"]),
        ("1\n2\n", "1\nx\n2\n", "1\ny\n2\n", ["1\nx\ny\n2\n", "1\ny\nx\n2\n"]),
        ("1\n2\n3\n", "1\n2\nx\n3\n", "1\n2\nC\n", ["1\n2\nx\nC\n"]),
        ("1\n", "1\nopen", "1\nline\n", ["1\nline\nopen"]),
        ("1\n2\n", "2\n", "1\n", [""]),
    ],
)
def test_the_results_that_a_merge_accepts(base, current, proposed, accepted):
    merged = merge_text(base, current, proposed)
    assert not merged.has_conflicts
    assert merged.text == accepted[0]
    assert all(merged.accepts(text) for text in accepted)
    for other in ("1\n", "1\nxy\n2\n", accepted[0] + accepted[0] + "\n", accepted[0][:-1] + "!"):
        assert not merged.accepts(other)


@pytest.mark.parametrize(
    ("base", "current", "proposed"),
    [("", "x", "y"), ("1\n", "1", "1\n2\n"), ("a\n", "b\n", "b\n"), ("a\n", "", "b\n")],
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
        assert merged.accepts(merged.text)
        assert merge_text(base, proposed, current).accepts(merged.text)
        whole = {*base.split("\n"), *current.split("\n"), *proposed.split("\n"), ""}
        assert set(merged.text.split("\n")) <= whole


@given(OPEN, OPEN)
@settings(deadline=None)
def test_a_side_that_changed_nothing_gives_the_other(base, other):
    assert merge_text(base, base, other).text == merge_text(base, other, base).text == other
    assert merge_text(base, other, other, merge_alike=True).text == other


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
    assert merged.has_conflicts or merged.accepts(merged.text)
    assert merge("n.ipynb", base, base, proposed).text == proposed
    assert merge("n.ipynb", base, current, base).text == current


@pytest.mark.parametrize(("path", "texts"), [("a.txt", OPEN), ("n.ipynb", BOOK)])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_an_update_gives_the_merge_or_is_rebased_or_refused(path, texts, data):
    """Main and dev went on, came back, and hold equal texts of other items."""
    base, proposed = data.draw(texts), data.draw(texts)
    first = crdt.build(path, base)
    update = crdt.change(path, first, proposed)
    main = first
    for text in (
        *data.draw(st.lists(texts, max_size=2)),
        data.draw(st.sampled_from([base]) | texts),
    ):
        main = crdt.union(path, main, crdt.change(path, main, text))
    dev = crdt.union(path, main, crdt.change(path, main, data.draw(texts)))
    on_main, on_dev = crdt.text_of(path, main), crdt.text_of(path, dev)
    try:
        fitted = rebase.onto_main(path, main, update, base, proposed)
        whole = rebase.onto_dev(path, dev, fitted, base, proposed)
    except (Stale, Conflict):
        assert (
            merge(path, base, on_main, proposed).has_conflicts
            or merge(path, base, on_dev, proposed).has_conflicts
        )
        return
    for state, text, written in ((main, on_main, fitted), (dev, on_dev, whole)):
        assert not crdt.has_gap(written, _vector(state, written))
        if update != crdt.EMPTY:
            assert merge(path, base, text, proposed).accepts(crdt.text_of(path, state, written))
    # dev holds main, so what main gets later is there already.
    assert crdt.contains(path, crdt.union(path, dev, whole), fitted)
    back = crdt.inverse(path, main, fitted)
    state = crdt.union(path, dev, whole)
    try:
        undone = rebase.onto_dev(path, state, back, proposed, base)
    except Conflict:
        assert merge(path, proposed, crdt.text_of(path, state), base).has_conflicts
        return
    assert merge(path, proposed, crdt.text_of(path, state), base).accepts(
        crdt.text_of(path, state, undone)
    )


def _vector(*updates):
    import pycrdt

    doc = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    return doc.get_state()


def test_the_lines_around_a_conflict_are_exact():
    base, dev, target = "1\nbad\n3\n", "1\nbad <typed>\n3\nmore\n", "1\ngood\n3\n"
    main = crdt.build("a", base)
    update = crdt.change("a", main, target)
    state = crdt.union("a", main, crdt.change("a", main, dev))
    gentle = rebase.onto_dev("a", state, update, base, target)
    assert crdt.text_of("a", state, gentle) == "1\ngood <typed>\n3\nmore\n"
    # The same text of other items: the update alone would mix both lines up.
    other = crdt.union("a", state, crdt.change("a", state, "x\n"))
    other = crdt.union("a", other, crdt.change("a", other, dev))
    with pytest.raises(Conflict):
        rebase.onto_dev("a", other, update, base, target)
    kept = rebase.onto_dev("a", other, update, base, target, keep_lines=True)
    assert crdt.text_of("a", other, kept) == dev


def test_many_ambiguous_conflicts_are_not_searched_one_by_one():
    # Each conflict may be resolved in two ways of different length: one by one that is 2**60.
    merged = merge_text("x\n\n" * 60, "xx\n\n" * 60, "y\n\n" * 60)
    assert merged.has_conflicts
    assert merged.accepts("yx\n\n" * 30 + "xx\ny\n\n" * 30)
    assert not merged.accepts("yx\n\n" * 60 + "z")


@pytest.mark.parametrize(
    ("after", "current", "before", "mixed"),
    [
        ("timeout = 30\n", "timeout = 60\n", "", "6"),
        ("timeout = 30\n", "timeout = 60\n", "timeout: 10\n", "timeout: 610\n"),
        ("bad\n", "bad <typed>\n", "", " <typed>"),
        ("a\nb\n", "a\nb!\n", "x\n", "x\n!"),
    ],
)
def test_the_remainder_of_a_line_is_no_text(after, current, before, mixed):
    """Taken out around what somebody wrote into the same line."""
    merged = merge_text(after, current, before)
    assert merged.has_conflicts
    assert not merged.accepts(mixed)


def test_lines_typed_between_removed_ones_stay():
    merged = merge_text("a\nb\n", "a\ntyped\nb\n", "")
    assert merged.has_conflicts
    assert merged.accepts("typed\n")


def test_a_change_made_on_both_sides_does_not_move_what_comes_behind_it():
    base, current, proposed = "1\n2\n3\n4\n", "1\n3\n", "1\n3\nnew\n"  # both took "2" away
    merged = merge_text(base, current, proposed, merge_alike=True)
    assert merged.has_conflicts
    assert [c.proposed for c in merged.chunks if c.conflict] == ["new\n"]


def test_lines_that_a_rollback_left_in_dev_are_not_doubled_when_it_is_undone():
    base = crdt.build("a.txt", "a\n")
    dev = crdt.union("a.txt", base, crdt.change("a.txt", base, "a\nkept\n"))
    undo = crdt.change("a.txt", base, "a\nkept\n")  # of main, by other items
    assert crdt.text_of("a.txt", dev, undo) == "a\nkept\nkept\n"
    update = rebase.onto_dev("a.txt", dev, undo, "a\n", "a\nkept\n", keep_lines=True)
    assert crdt.text_of("a.txt", dev, update) == "a\nkept\n"
    assert crdt.contains("a.txt", crdt.union("a.txt", dev, update), undo)
