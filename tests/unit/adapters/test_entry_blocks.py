"""Entries go into rows and come out as they were, whatever they are."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.adapters.stores.entry_blocks import (
    AuditLeaf,
    body_at,
    names_of,
    pack,
    split,
    term,
    terms_of,
    unpack,
    without_data,
)
from angelos.core.audit import commitment, leaf_body
from angelos.core.errors import Tampered
from angelos.core.facts import Kind
from angelos.core.ids import Offset
from angelos.testing import make_fact


def entry(number, text="x"):
    fact = make_fact(Kind.task_finished, f"task-{number}", data={"text": text})
    salt = hashlib.sha256(b"%d" % number).digest()
    body = leaf_body(fact, salt)
    return AuditLeaf(body, hashlib.sha256(b"\0" + body).digest(), salt, fact.data)


salts = st.binary(min_size=32, max_size=32)
raw_entries = st.builds(
    lambda body, leaf, pair: AuditLeaf(body, leaf, *pair),
    st.binary(max_size=80),
    salts,
    st.one_of(st.tuples(salts, st.binary(max_size=80)), st.just((None, None))),
)


@given(st.lists(raw_entries, min_size=1, max_size=12))
def test_any_entries_come_back(entries):
    entries = [each._replace(body=each.body.replace(b"\0", b"0")) for each in entries]
    packed = pack(entries)
    assert unpack(packed) == entries
    assert [body_at(packed, place) for place in range(len(entries))] == [e.body for e in entries]


def test_a_commitment_is_not_stored_but_comes_back():
    entries = [entry(n) for n in range(200)]
    packed = pack(entries)
    assert unpack(packed) == entries
    stated = commitment(entries[7].salt, entries[7].data).encode()
    assert stated in body_at(packed, 7)
    apart = pack([each._replace(salt=None, data=None) for each in entries])
    assert len(packed.bodies) + 32 * len(entries) < len(apart.bodies)


def test_data_and_salts_that_were_erased_are_gone_and_the_bodies_stay():
    entries = [entry(n, f"secret {n}") for n in range(5)]
    packed = pack(entries)
    together = without_data(packed, {1, 3})
    for place in (3, 1):
        packed = without_data(packed, {place})
        assert without_data(packed, {place}) is None
    assert unpack(packed) == unpack(together)
    expected = [
        each._replace(salt=None, data=None) if place in (1, 3) else each
        for place, each in enumerate(entries)
    ]
    assert unpack(packed) == expected
    assert [body_at(packed, place) for place in range(5)] == [each.body for each in entries]
    assert packed.bodies == pack(entries).bodies
    again = pack(unpack(packed))  # as when the tail is sealed
    assert unpack(again) == expected
    assert body_at(again, 3) == entries[3].body


@pytest.mark.parametrize("change", [
    lambda p: p._replace(bodies=b""),
    lambda p: p._replace(bodies=p.bodies[:-1]),
    lambda p: p._replace(bodies=p.data),
    lambda p: p._replace(data=b"x" * 40),
    lambda p: p._replace(data=pack([entry(1)] * 3).data),
    lambda p: p._replace(leaves=p.leaves[32:]),
    lambda p: p._replace(leaves=p.leaves + b"x"),
    lambda p: p._replace(leaves=b""),
    lambda p: p._replace(bodies=pack([entry(1)]).bodies),
])  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_as_tampered(change):
    packed = pack([entry(1), entry(2)])
    with pytest.raises(Tampered):
        unpack(change(packed))


def test_a_row_never_crosses_a_multiple_of_256_nor_a_megabyte():
    small = [entry(n) for n in range(300)]
    rows = list(split(250, small))
    assert [(first, len(row)) for first, row in rows] == [(250, 6), (256, 256), (512, 38)]
    assert [each for _, row in rows for each in row] == small
    large = [entry(n, "y" * 400_000) for n in range(5)]
    rows = list(split(254, [*large, entry(9, "z" * 3_000_000), entry(10)]))
    assert [(first, len(row)) for first, row in rows] == [
        (254, 2), (256, 2), (258, 1), (259, 1), (260, 1),
    ]  # fmt: skip
    assert list(split(5, [])) == []


def test_a_row_is_found_by_its_kinds_and_subjects():
    names = [names_of(entry(n).body) for n in range(3)]
    assert names[2].subject == "task-2"
    terms = terms_of(names)
    assert len(terms) == 4
    assert terms == sorted(terms)
    assert term("subject", "task-1") in terms
    assert term("kind", Kind.task_finished) in terms
    assert term("subject", Kind.task_finished) not in terms
    assert all(-(1 << 31) <= each < 1 << 31 for each in terms)
    assert names_of(b"\xff") is None
    assert names_of(b"{}").offset == Offset("0-0")
