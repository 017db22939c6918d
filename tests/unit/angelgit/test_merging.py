from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.angelgit.documents import documents
from angelos.angelgit.merge import rebase
from angelos.angelgit.merge.conflicts import notebook_conflicts, text_conflicts
from angelos.angelgit.merge.three_way import merge, merge_text
from angelos.core.errors import Conflict, Stale

LINES = st.lists(st.sampled_from("abc"), max_size=6).map(
    lambda rows: "".join(r + "\n" for r in rows)
)
OPEN = st.tuples(LINES, st.sampled_from(["", "x", "y"])).map("".join)


@pytest.mark.parametrize(
    ("base", "theirs", "yours", "accepted"),
    [
        ("1\n2\n3\n", "1\nx\n2\n3\n", "1\n2\n3\ny\n", ["1\nx\n2\n3\ny\n"]),
        ("1\n2\n", "1\nx\n2\n", "1\ny\n2\n", ["1\nx\ny\n2\n", "1\ny\nx\n2\n"]),
        ("1\n2\n3\n", "1\n2\nx\n3\n", "1\n2\nC\n", ["1\n2\nx\nC\n"]),
        ("1\n", "1\nopen", "1\nline\n", ["1\nline\nopen"]),
        ("1\n2\n", "2\n", "1\n", [""]),
    ],
)
def test_what_a_merge_may_give(base, theirs, yours, accepted):
    merged = merge_text(base, theirs, yours)
    assert not merged.clashes
    assert merged.text == accepted[0]
    assert all(merged.accepts(text) for text in accepted)
    for other in ("1\n", "1\nxy\n2\n", accepted[0] + accepted[0] + "\n", accepted[0][:-1] + "!"):
        assert not merged.accepts(other)


@pytest.mark.parametrize(
    ("base", "theirs", "yours"),
    [("", "x", "y"), ("1\n", "1", "1\n2\n"), ("a\n", "b\n", "b\n"), ("a\n", "", "b\n")],
)
def test_what_clashes(base, theirs, yours):
    for one, other in ((theirs, yours), (yours, theirs)):
        assert merge_text(base, one, other).clashes
        assert text_conflicts("a", base, one, other)


@given(OPEN, OPEN, OPEN)
@settings(deadline=None)
def test_a_merge_clashes_where_something_is_stale(base, theirs, yours):
    merged = merge_text(base, theirs, yours)
    assert merged.clashes == bool(text_conflicts("a", base, theirs, yours))
    if not merged.clashes:
        assert merged.accepts(merged.text)
        assert merge_text(base, yours, theirs).accepts(merged.text)
        whole = {*base.split("\n"), *theirs.split("\n"), *yours.split("\n"), ""}
        assert set(merged.text.split("\n")) <= whole


@given(OPEN, OPEN)
@settings(deadline=None)
def test_a_side_that_changed_nothing_gives_the_other(base, other):
    assert merge_text(base, base, other).text == merge_text(base, other, base).text == other
    assert merge_text(base, other, other, same=True).text == other


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
    lambda cells: documents.canonical(
        "n.ipynb",
        json.dumps({"cells": [cell(*c) for c in cells], "metadata": {}, "nbformat": 4,
                    "nbformat_minor": 5}),
    )
)  # fmt: skip


@given(BOOK, BOOK, BOOK)
@settings(deadline=None)
def test_notebooks_clash_where_something_is_stale(base, theirs, yours):
    merged = merge("n.ipynb", base, theirs, yours)
    books = [documents.notebook.parse(text, "n.ipynb") for text in (base, theirs, yours)]
    assert merged.clashes == bool(notebook_conflicts("n.ipynb", *books))
    assert merged.clashes or merged.accepts(merged.text)
    assert merge("n.ipynb", base, base, yours).text == yours
    assert merge("n.ipynb", base, theirs, base).text == theirs


@pytest.mark.parametrize(("path", "texts"), [("a.txt", OPEN), ("n.ipynb", BOOK)])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_an_update_gives_the_merge_or_is_made_anew_or_refused(path, texts, data):
    """Main and dev went on, came back, and hold equal texts of other items."""
    base, proposed = data.draw(texts), data.draw(texts)
    first = documents.build(path, base)
    update = documents.change(path, first, proposed)
    main = first
    for text in (
        *data.draw(st.lists(texts, max_size=2)),
        data.draw(st.sampled_from([base]) | texts),
    ):
        main = documents.union(path, main, documents.change(path, main, text))
    dev = documents.union(path, main, documents.change(path, main, data.draw(texts)))
    on_main, on_dev = documents.text_of(path, main), documents.text_of(path, dev)
    try:
        fitted = rebase.onto_main(path, main, update, base, proposed)
        whole = rebase.onto_dev(path, dev, fitted, base, proposed)
    except (Stale, Conflict):
        assert (
            merge(path, base, on_main, proposed).clashes
            or merge(path, base, on_dev, proposed).clashes
        )
        return
    for state, text, written in ((main, on_main, fitted), (dev, on_dev, whole)):
        assert not documents.waits(written, _vector(state, written))
        if update != documents.EMPTY:
            assert merge(path, base, text, proposed).accepts(
                documents.text_of(path, state, written)
            )
    # dev holds main, so what main gets later is there already.
    assert documents.holds(path, documents.union(path, dev, whole), fitted)
    back = documents.inverse(path, main, fitted)
    state = documents.union(path, dev, whole)
    try:
        undone = rebase.onto_dev(path, state, back, proposed, base)
    except Conflict:
        assert merge(path, proposed, documents.text_of(path, state), base).clashes
        return
    assert merge(path, proposed, documents.text_of(path, state), base).accepts(
        documents.text_of(path, state, undone)
    )


def _vector(*updates):
    import pycrdt

    doc = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    return doc.get_state()


def test_the_lines_around_a_clash_are_exact():
    base, dev, target = "1\nbad\n3\n", "1\nbad <typed>\n3\nmore\n", "1\ngood\n3\n"
    main = documents.build("a", base)
    update = documents.change("a", main, target)
    state = documents.union("a", main, documents.change("a", main, dev))
    gentle = rebase.onto_dev("a", state, update, base, target)
    assert documents.text_of("a", state, gentle) == "1\ngood <typed>\n3\nmore\n"
    # The same text of other items: the update alone would mix both lines up.
    other = documents.union("a", state, documents.change("a", state, "x\n"))
    other = documents.union("a", other, documents.change("a", other, dev))
    with pytest.raises(Conflict):
        rebase.onto_dev("a", other, update, base, target)
    kept = rebase.onto_dev("a", other, update, base, target, keep=True)
    assert documents.text_of("a", other, kept) == dev


def test_many_clashes_that_could_end_in_many_places_are_no_search():
    # Each clash may stand for both lines or for one of mixed characters: tried one by one these
    # are 2**60 ways.
    merged = merge_text("x\n\n" * 60, "xx\n\n" * 60, "y\n\n" * 60)
    assert merged.clashes
    assert merged.accepts("yx\n\n" * 30 + "xx\ny\n\n" * 30)
    assert not merged.accepts("yx\n\n" * 60 + "z")


@pytest.mark.parametrize(
    ("after", "theirs", "before", "mixed"),
    [
        ("timeout = 30\n", "timeout = 60\n", "", "6"),
        ("timeout = 30\n", "timeout = 60\n", "timeout: 10\n", "timeout: 610\n"),
        ("bad\n", "bad <typed>\n", "", " <typed>"),
        ("a\nb\n", "a\nb!\n", "x\n", "x\n!"),
    ],
)
def test_what_is_left_of_a_line_is_no_text(after, theirs, before, mixed):
    """Taken out around what somebody wrote into the same line."""
    merged = merge_text(after, theirs, before)
    assert merged.clashes
    assert not merged.accepts(mixed)


def test_whole_lines_typed_between_those_taken_out_stay():
    merged = merge_text("a\nb\n", "a\ntyped\nb\n", "")
    assert merged.clashes
    assert merged.accepts("typed\n")


def test_a_change_made_on_both_sides_does_not_move_what_comes_behind_it():
    base, theirs, yours = "1\n2\n3\n4\n", "1\n3\n", "1\n3\nnew\n"  # both took "2" away
    merged = merge_text(base, theirs, yours, same=True)
    assert merged.clashes
    assert [p.other for p in merged.pieces if p.clash] == ["new\n"]


def test_lines_that_a_rollback_left_in_dev_stand_there_once_when_it_is_undone():
    base = documents.build("a.txt", "a\n")
    dev = documents.union("a.txt", base, documents.change("a.txt", base, "a\nkept\n"))
    undo = documents.change("a.txt", base, "a\nkept\n")  # of main, by other items
    assert documents.text_of("a.txt", dev, undo) == "a\nkept\nkept\n"
    update = rebase.onto_dev("a.txt", dev, undo, "a\n", "a\nkept\n", keep=True)
    assert documents.text_of("a.txt", dev, update) == "a\nkept\n"
    assert documents.holds("a.txt", documents.union("a.txt", dev, update), undo)
