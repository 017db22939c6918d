"""Blocks of facts: what an entry of the journal holds, without a store."""

from __future__ import annotations

import msgspec
import pytest

from angelos.adapters.stores.blocks import (
    MOST,
    MOST_BYTES,
    NUMBERS,
    behind,
    entry_of,
    kinds_of,
    last_of,
    offset_in,
    offsets_in,
    read_block,
    read_from,
    split,
    write_block,
)
from angelos.core.errors import InvalidInput
from angelos.core.ids import Offset, offset_key
from angelos.testing import make_fact


def words(facts, **others):
    body, kinds, sum_, _ = write_block(facts)
    fields = {"b": body, "k": kinds, "c": b"%d" % sum_, "e": b"0-0", "n": b"12"} | others
    return [word for name, value in fields.items() for word in (name.encode(), value)]


def some(count, kind="task.finished", size=1):
    return [make_fact(kind, f"task-{n}", data={"text": "x" * size}) for n in range(count)]


def test_a_block_gives_its_facts_back_with_offsets_in_order():
    facts = some(5)
    read = read_block(b"17-3", words(facts))
    assert [fact.offset for fact in read] == [Offset(f"17-{3 * NUMBERS + i}") for i in range(5)]
    assert [msgspec.structs.replace(fact, offset=Offset("")) for fact in read] == facts
    assert last_of(b"17-3", words(facts)) == read[-1].offset


@pytest.mark.parametrize("count", [1, MOST - 1, MOST, MOST + 1, 3 * MOST])
def test_facts_are_split_by_count_and_none_is_lost(count):
    facts = some(count)
    blocks = list(split(facts))
    assert [fact for block in blocks for fact in block] == facts
    assert all(0 < len(block) <= MOST for block in blocks)
    assert len(blocks) == -(-count // MOST)


def test_facts_are_split_by_size_and_a_large_one_stands_alone():
    large, small = some(1, size=MOST_BYTES + 1), some(2)
    assert [len(block) for block in split([*small, *large, *small])] == [2, 1, 2]
    halves = some(3, size=MOST_BYTES // 2)
    assert [len(block) for block in split(halves)] == [1, 1, 1]


def test_an_offset_of_elsewhere_is_no_part_of_a_block():
    fact = msgspec.structs.replace(some(1)[0], offset=Offset("1-1"))
    (block,) = split([fact])
    assert block[0].offset == ""


def test_the_last_that_does_not_last_is_named():
    lasting, passing = some(1), some(1, "task.output")
    assert write_block(lasting + passing + lasting)[3] == 1
    assert write_block(lasting)[3] == -1


@pytest.mark.parametrize(
    "others",
    [
        {"c": b"1"},
        {"b": b"\xc1", "c": b"7"},
        {"b": b"\x90", "c": b"1"},
        {"b": b""},
        {"c": b""},
        {"k": b"task.accepted"},
    ],
)
def test_what_is_no_block_is_refused(others):
    with pytest.raises(InvalidInput):
        read_block(b"1-0", words(some(2), **others))
    assert last_of(b"1-0", words(some(2), **others)) == behind(b"1-0")


def test_a_block_names_its_kinds_and_damage_has_none():
    facts = some(2) + some(1, "task.output")
    assert kinds_of(words(facts)) == {"task.finished", "task.output"}
    assert kinds_of(words(facts, k=b"task.finished")) is None


@pytest.mark.parametrize("entry", ["1-0", "7-2", "1700000000000-999"])
def test_every_offset_knows_its_entry(entry):
    offsets = offsets_in(entry.encode(), NUMBERS)
    assert {entry_of(offset) for offset in offsets} == {entry}
    assert offsets[0] == offset_in(entry, 0)
    assert offsets[-1] == behind(entry.encode())
    ms, number = entry.split("-")
    following = offset_in(f"{ms}-{int(number) + 1}", 0)
    assert offset_key(behind(entry.encode())) < offset_key(following)
    assert read_from(offsets[0]) == read_from(offsets[-2]) == entry
    assert read_from(offsets[-1]) == f"({entry}"
