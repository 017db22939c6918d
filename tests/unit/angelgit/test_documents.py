from __future__ import annotations

import json
import warnings

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_ydoc import YNotebook, YUnicode

from angelos.angelgit.documents import crdt, notebook
from angelos.angelgit.documents.canonical import canonical, check_text
from angelos.angelgit.documents.edits import text_edits
from angelos.angelgit.merge.three_way import merge
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.revision import MAX_FILE_BYTES

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
LINES = st.lists(st.sampled_from(["one", "two", "\u00e9\U0001f600", "e\u0301", ""]), max_size=8)


def load(*updates: bytes) -> pycrdt.Doc:
    doc = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    return doc


def code(cell_id, source, **more):
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
    return json.dumps(
        {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def sources(text):
    return {c["id"]: "".join(c["source"]) for c in json.loads(text)["cells"]}


@given(TEXT | LINES.map("\r\n".join), TEXT | LINES.map("\r\n".join))
@settings(deadline=None)
def test_a_document_keeps_every_text_exactly(first, second):
    state = crdt.build("a.txt", first)
    assert crdt.text_of("a.txt", state) == first
    update = crdt.change("a.txt", state, second)
    assert crdt.text_of("a.txt", state, update) == second


def test_crlf_files_are_edited_with_line_feeds_and_kept_with_crlf():
    state = crdt.build("a.txt", "one\r\ntwo\r\n")
    assert str(load(state).get("source", type=pycrdt.Text)) == "one\ntwo\n"
    update = crdt.change("a.txt", state, "one\r\n2\r\nthree\r\n")
    assert crdt.text_of("a.txt", state, update) == "one\r\n2\r\nthree\r\n"


def test_text_is_laid_out_as_jupyter_reads_it():
    assert YUnicode(load(crdt.build("a.py", "x = 1\n"))).get() == "x = 1\n"


@given(LINES, LINES, LINES)
@settings(deadline=None)
def test_updates_merge_in_any_order_to_the_same_text(base, one, two):
    state = crdt.build("a.txt", "\n".join(base))
    a = crdt.change("a.txt", state, "\n".join(one))
    b = crdt.change("a.txt", state, "\n".join(two))
    assert crdt.text_of("a.txt", state, a, b) == crdt.text_of("a.txt", state, b, a)


def test_the_inverse_takes_out_one_authors_text_around_the_others():
    state = crdt.build("a.txt", "one\ntwo\nthree\n")
    agent = crdt.change("a.txt", state, "zero\none\nTWO\nthree\n")
    person = crdt.change("a.txt", state, "one\ntwo\nmine\nthree\n")
    back = crdt.inverse("a.txt", state, agent)
    assert crdt.text_of("a.txt", state, agent, person) == "zero\none\nTWO\nmine\nthree\n"
    assert crdt.text_of("a.txt", state, agent, person, back) == "one\ntwo\nmine\nthree\n"


@given(LINES, LINES)
@settings(deadline=None)
def test_the_inverse_restores_the_base(base, new):
    state = crdt.build("a.txt", "\n".join(base))
    update = crdt.change("a.txt", state, "\n".join(new))
    back = crdt.inverse("a.txt", state, update)
    assert crdt.text_of("a.txt", state, update, back) == "\n".join(base)


def test_a_deletion_is_seen_although_the_state_vector_stays():
    state = crdt.build("a.txt", "one\ntwo\n")
    deletion = crdt.change("a.txt", state, "one\n")
    assert load(state).get_state() == load(state, deletion).get_state()
    assert not crdt.contains("a.txt", state, deletion)
    assert crdt.contains("a.txt", crdt.union("a.txt", state, deletion), deletion)


def test_an_update_that_depends_on_another_has_a_gap():
    state = crdt.build("a.txt", "one\n")
    first = crdt.change("a.txt", state, "one\ntwo\n")
    both = crdt.union("a.txt", state, first)
    second = crdt.change("a.txt", both, "one\ntwo\nthree\n")
    deletion = crdt.change("a.txt", both, "one\n")
    for update in (second, deletion):
        assert crdt.has_gap(update, load(state, update).get_state())
        assert not crdt.has_gap(update, load(both, update).get_state())
        assert not crdt.contains("a.txt", state, update)


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"\xff" * 40, b"\x01\x01\xff\xff\xff\xff\x0f\x00\x04"]
)
def test_broken_updates_are_bad_input(junk):
    with pytest.raises(InvalidInput):
        crdt.text_of("a.txt", junk)


def test_a_panic_of_pycrdt_is_bad_input():
    doc = pycrdt.Doc()
    with pytest.raises(InvalidInput, match="broken"), crdt.guarded("a.txt"):
        doc.get("m", type=pycrdt.Map)["n"] = 2**70


def test_content_that_is_no_text_is_refused():
    for content in (b"a\0b", b"\xff\xfe", "\ud800"):
        with pytest.raises(InvalidInput):
            check_text("a.bin", content)
    with pytest.raises(TooLarge):
        check_text("a.txt", b"x" * (MAX_FILE_BYTES + 1))


# -- notebooks -------------------------------------------------------------------------------

OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": "1\n2\n"},
    {"output_type": "display_data", "metadata": {},
     "data": {"text/plain": "<x>", "application/json": {"a": [1.5, None]}}},
]  # fmt: skip


def test_a_notebook_is_laid_out_as_jupyter_reads_it():
    text = canonical(
        "n.ipynb",
        book(
            code("a", "x = 1\ny", outputs=OUTPUTS, execution_count=3),
            kernelspec={"name": "python3", "display_name": "P"},
        ),
    )
    theirs = YNotebook(load(crdt.build("n.ipynb", text))).get()
    assert theirs["cells"][0]["source"] == "x = 1\ny"
    assert theirs["cells"][0]["outputs"] == OUTPUTS
    assert theirs["cells"][0]["execution_count"] == 3
    assert theirs["metadata"]["kernelspec"]["name"] == "python3"


def test_a_file_saved_by_jupyter_is_the_same_file():
    text = canonical(
        "n.ipynb",
        book(
            code("a", "x", outputs=OUTPUTS),
            {"id": "m", "cell_type": "markdown", "source": "# T", "metadata": {}},
        ),
    )
    room = YNotebook()
    room.set(json.loads(text))
    got = json.loads(crdt.read("n.ipynb", room.ydoc))
    assert got["cells"] == json.loads(text)["cells"]


def test_the_canonical_text_is_what_jupyter_saves():
    import io

    import nbformat

    text = canonical("n.ipynb", book(code("a", "x = 1\ny", outputs=OUTPUTS)))
    file = io.StringIO()
    nbformat.write(nbformat.reads(text, as_version=4), file)
    assert file.getvalue() == text
    assert canonical("n.ipynb", text) == text


def test_agents_edit_different_cells_and_both_survive():
    state = crdt.build("n.ipynb", canonical("n.ipynb", book(code("a", "x"), code("b", "y"))))
    one = crdt.change(
        "n.ipynb", state, canonical("n.ipynb", book(code("a", "x = 1"), code("b", "y")))
    )
    two = crdt.change(
        "n.ipynb", state, canonical("n.ipynb", book(code("a", "x"), code("b", "y = 2")))
    )
    assert sources(crdt.text_of("n.ipynb", state, one, two)) == {"a": "x = 1", "b": "y = 2"}
    back = crdt.inverse("n.ipynb", state, one)
    assert sources(crdt.text_of("n.ipynb", state, one, two, back)) == {"a": "x", "b": "y = 2"}


def test_one_adds_a_cell_while_another_deletes_one():
    state = crdt.build(
        "n.ipynb",
        canonical("n.ipynb", book(code("a", "x"), code("b", "y"), code("c", "z"))),
    )
    one = crdt.change(
        "n.ipynb",
        state,
        canonical(
            "n.ipynb", book(code("a", "x"), code("new", "n"), code("b", "y"), code("c", "z"))
        ),
    )
    two = crdt.change("n.ipynb", state, canonical("n.ipynb", book(code("a", "x"), code("c", "z"))))
    assert list(sources(crdt.text_of("n.ipynb", state, one, two))) == ["a", "new", "c"]
    back = crdt.inverse("n.ipynb", state, two)
    # Where two cells were put between the same neighbours either may come first.
    ids = list(sources(crdt.text_of("n.ipynb", state, one, two, back)))
    assert (ids[0], ids[-1], sorted(ids)) == ("a", "c", ["a", "b", "c", "new"])


@pytest.mark.parametrize(
    "number", ["1.0", "-0.0", "1e15", "1e20", "0.1", "1E-7", "9007199254740992.0"]
)
def test_numbers_are_kept_as_a_room_of_jupyter_keeps_them(number):
    text = book(code("a", "x"), k="NUMBER").replace('"NUMBER"', f'[{number}, {{"n": {number}}}]')
    kept = canonical("n.ipynb", text)
    assert crdt.text_of("n.ipynb", crdt.build("n.ipynb", kept)) == kept
    assert canonical("n.ipynb", kept) == kept
    assert json.loads(kept)["metadata"] == json.loads(text)["metadata"]


def test_true_is_not_one():
    base, new = ({"tags": ["t"], "k": value} for value in (1, True))
    texts = [
        canonical("n.ipynb", book(code("a", "x", metadata=meta), v=meta["k"]))
        for meta in (base, new)
    ]
    state = crdt.build("n.ipynb", texts[0])
    update = crdt.change("n.ipynb", state, texts[1])
    assert crdt.text_of("n.ipynb", state, update) == texts[1]
    assert merge("n.ipynb", texts[0], texts[0], texts[1]).text == texts[1]
    assert merge("n.ipynb", texts[0], texts[1], texts[0]).text == texts[1]


CELLS = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=6)


@given(CELLS, CELLS, st.data())
@settings(deadline=None, max_examples=40)
def test_any_notebook_can_become_any_other_and_back(before, after, data):
    def make(ids):
        cells = []
        for cell_id in ids:
            kind = data.draw(st.sampled_from(["code", "code", "markdown", "raw"]))
            cell = code(
                cell_id,
                data.draw(TEXT),
                outputs=data.draw(st.sampled_from([[], OUTPUTS])),
                metadata=data.draw(
                    st.sampled_from(
                        [{}, {"tags": ["t"]}, {"k": 1}, {"k": True}, {"k": [0.5, False]}]
                    )
                ),
            )
            if kind != "code":
                cell = {k: cell[k] for k in ("id", "source", "metadata")} | {"cell_type": kind}
            cells.append(cell)
        return canonical(
            "n.ipynb",
            book(
                *cells, kernelspec={"name": data.draw(st.sampled_from("kl")), "display_name": "x"}
            ),
        )

    old, new = make(before), make(after)
    state = crdt.build("n.ipynb", old)
    update = crdt.change("n.ipynb", state, new)
    assert crdt.text_of("n.ipynb", state, update) == new
    assert crdt.text_of("n.ipynb", state, update, crdt.inverse("n.ipynb", state, update)) == old


@given(CELLS, CELLS)
def test_as_few_cells_as_possible_move(before, after):
    moved = notebook.moved_cells(before, after)
    stay = [c for c in after if c in before and c not in moved]
    assert stay == [c for c in before if c in after and c not in moved]


@pytest.mark.parametrize(
    "text",
    [
        "not json", "[]", "{}", '{"cells": 1}',
        '{"cells": [1], "nbformat": 4, "nbformat_minor": 5}',
        '{"cells": [], "nbformat": 3, "nbformat_minor": 0}', book(code("a", "x"), code("a", "y")),
        book({"id": "a", "cell_type": "poem", "source": "", "metadata": {}}), book(x=2**70),
        '{"cells": [], "metadata": {"x": NaN}, "nbformat": 4, "nbformat_minor": 5}',
        '{"cells": [], "metadata": {"x": 1e999}, "nbformat": 4, "nbformat_minor": 5}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_notebook_is_refused(text):
    with warnings.catch_warnings(), pytest.raises(InvalidInput):
        canonical("n.ipynb", text)


def test_old_notebooks_get_ids_and_keep_them():
    old = json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "source": ["x\n", "y"],
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                }
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 2,
        }
    )
    first = canonical("n.ipynb", old)
    ids = list(sources(first))
    again = json.loads(old)
    again["cells"].insert(0, {"cell_type": "markdown", "source": "new", "metadata": {}})
    assert list(sources(canonical("n.ipynb", json.dumps(again), first)))[1:] == ids


def bare(cell_type, source):
    cell = {"cell_type": cell_type, "metadata": {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if cell_type == "code" else {})


def test_a_notebook_written_anew_keeps_what_an_edit_of_sources_does_not_mean_to_remove():
    out = {"output_type": "stream", "name": "stdout", "text": "precious\n"}
    cells = [
        {"cell_type": "code", "id": name, "source": f"{name} = 1\n", "metadata": {"tags": [name]},
         "outputs": [out], "execution_count": 1}
        for name in "abc"
    ]  # fmt: skip
    cells.append({"cell_type": "markdown", "id": "d", "metadata": {"tags": ["d"]}, "source": "D"})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}

    def text(cells, minor=4, metadata=kernel):
        book = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}
        return json.dumps(book)

    base = canonical("n.ipynb", text(cells, 5))
    new = [bare(cell["cell_type"], cell["source"]) for cell in cells]
    new[1]["source"] = "b = 2\n"
    new.insert(2, bare("code", "another thing altogether"))
    book = json.loads(canonical("n.ipynb", text(new, metadata={}), base))
    assert book["metadata"] == kernel
    kept = [c for c in book["cells"] if "".join(c["source"]) != "another thing altogether"]
    assert [c["id"] for c in kept] == ["a", "b", "c", "d"]
    assert [c["metadata"]["tags"] for c in kept] == [["a"], ["b"], ["c"], ["d"]]
    assert [len(c.get("outputs", [])) for c in kept] == [1, 1, 1, 0]
    assert "".join(kept[1]["source"]) == "b = 2\n"
    (fresh,) = [c for c in book["cells"] if c not in kept]
    assert fresh["outputs"] == []
    # Who names the cells says what is in them: outputs that were cleared stay cleared.
    cleared = [cells[0] | {"outputs": [], "execution_count": None}, *cells[1:]]
    assert json.loads(canonical("n.ipynb", text(cleared, 5), base))["cells"][0]["outputs"] == []
    # What is no notebook is refused in words, whatever it looks like.
    for wrong in (text([bare("code", 3)]), text([{}]), text(new, metadata=[])):
        with pytest.raises(InvalidInput):
            canonical("n.ipynb", wrong, base)


def test_edits_stay_small_in_files_of_any_size():
    rows = [f"name_{i} = another[{i * 7919 % 10007}] + constant\n" for i in range(4_000)]
    before = "".join(rows)
    for after, inserted in (
        ("".join(f"    {row}" for row in rows), 4 * len(rows)),
        ("".join(rows).replace("another", "other"), 0),
        ("".join(r.replace("name", "NAME") if i % 3 else r for i, r in enumerate(rows)), 16_000),
    ):
        edits = text_edits(before, after)
        raw = before.encode()
        for edit in edits:
            raw = raw[: edit.at] + edit.insert.encode() + raw[edit.at + edit.delete :]
        assert raw.decode() == after
        assert sum(len(edit.insert) for edit in edits) <= inserted


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 24, 25, 26, 399])
def test_many_edits_of_one_text_each_end_where_they_belong(number):
    before = [f"zeile {i} größe {i * 7919 % 1009}\n" for i in range(number)]
    edited = [
        ("", f"neu ü{i}\n{line}", line.replace("größe", "G"), line[3:])[i % 4]
        for i, line in enumerate(before)
    ]
    state = crdt.build("a.txt", "".join(before))
    update = crdt.change("a.txt", state, "".join(edited))
    assert crdt.text_of("a.txt", state, update) == "".join(edited)
    assert crdt.text_of("a.txt", state, update, crdt.inverse("a.txt", state, update)) == "".join(
        before
    )
