"""The decoder of updates against pycrdt: whatever a document holds, it counts the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from angelos.angelgit.documents import crdt, yjs

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
    | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["type", "delete", "value", "cell", "format"]),
        st.integers(0, 50), st.text(min_size=1, max_size=8), VALUES,
    ),
    max_size=25,
)  # fmt: skip


def act(doc: Doc, step) -> None:
    _, verb, at, text, value = step
    source, cells = doc.get("source", type=Text), doc.get("cells", type=Array)
    size = len(str(source))
    index = len(str(source)[: at % (size + 1)].encode())
    if verb == "type":
        source.insert(index, text)
    elif verb == "delete" and size:
        del source[0 : len(str(source)[0].encode())]
    elif verb == "value":
        doc.get("meta", type=Map)[text] = value
    elif verb == "cell":
        cells.insert(at % (len(cells) + 1), Map({"source": Text(text), "x": value}))
    elif verb == "format" and size:
        source.format(0, len(str(source).encode()), {"bold": True})


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_every_update_decodes_to_what_pycrdt_counts(steps):
    docs = [Doc(client_id=number + 1) for number in range(3)]
    for step in steps:
        doc = docs[step[0]]
        before = crdt.decode_vector(doc.get_state())
        with crdt.recorded(doc) as updates:
            act(doc, step)
        for update in updates:
            clients = yjs.decode(update).clients()
            assert clients.keys() <= {doc.client_id}
            after = crdt.decode_vector(doc.get_state())
            assert clients.get(doc.client_id, after.get(doc.client_id, 0)) == after.get(
                doc.client_id, before.get(doc.client_id, 0)
            )
            for other in docs:
                other.apply_update(update)
    for doc in docs:
        state = doc.get_update()
        assert yjs.decode(state).clients() == crdt.decode_vector(doc.get_state())


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_bytes_that_are_no_update_are_a_value_error_and_nothing_else(junk, at, byte):
    doc = Doc(client_id=5)
    for number in range(3):
        act(doc, (0, "cell", number, "näh 😀", {"a": [1, 2.5, None]}))
    broken = bytearray(doc.get_update())
    broken[at % len(broken)] = byte
    for data in (junk, bytes(broken)):
        try:
            yjs.decode(data)
        except ValueError:
            continue


def test_a_character_outside_of_the_bmp_has_two_units():
    doc = Doc(client_id=5)
    doc.get("source", type=Text).insert(0, "a😀")
    (struct,) = yjs.decode(doc.get_update()).structs
    assert (struct.length, struct.text, struct.parent) == (3, "a😀", "source")


def test_a_deeply_nested_value_is_refused():
    value: list = []
    for _ in range(500):
        value = [value]
    doc = Doc()
    doc.get("meta", type=Map)["x"] = value
    with pytest.raises(ValueError, match="nested"):
        yjs.decode(doc.get_update())


def test_huge_counts_in_a_few_bytes_end_at_once():
    with pytest.raises(ValueError, match="no yjs update"):
        yjs.decode(b"\xff\xff\xff\xff\x7f" * 3)
    with pytest.raises(ValueError, match="number"):
        yjs.decode(b"\xff" * 1_000_000)
    assert yjs.decode(crdt.EMPTY) == ([], [])
