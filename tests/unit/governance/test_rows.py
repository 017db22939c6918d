"""Rows of the log are what they were made from: entries, their order, and what finds them."""

from __future__ import annotations

import pytest

from angelos.adapters.stores.entry_blocks import AuditLeaf
from angelos.core.errors import Tampered
from angelos.governance.log.models import EntryRow, new_entry
from angelos.governance.log.rows import _new_row, checked_leaves, checked_page
from angelos.testing import make_fact


def leaves(count):
    facts = [make_fact("task.finished", f"task-{n}", offset=f"7-{n}") for n in range(count)]
    entries = [entry for fact in facts if (entry := new_entry(fact)) is not None]
    return [AuditLeaf(entry.body, entry.leaf, entry.salt, entry.data) for entry in entries]


def stored(entries, first=0, **changes):
    """Return a row as the database hands it out."""
    names = ("first", "count", "first_ms", "first_seq", "last_ms", "last_seq", "raw", "terms",
             "leaves", "bodies", "data")  # fmt: skip
    row = dict(zip(names, _new_row(first, entries, sealed=True), strict=True)) | changes
    order = "first count leaves bodies data first_ms first_seq last_ms last_seq terms"
    return [row[name] for name in order.split()]


@pytest.mark.parametrize(
    "changes",
    [{"terms": []}, {"terms": [1, 2]}, {"first_ms": 6}, {"last_seq": 9}, {"count": 4}],
    ids=str,
)
def test_what_finds_a_block_is_checked_against_what_it_holds(changes):
    entries = leaves(5)
    assert checked_page([stored(entries)], 0, 5) == ([e.leaf for e in entries], "")
    page = checked_page([stored(entries, **changes)], 0, 5)
    assert "What entries 0 to 4 of the audit log are found by" in page.misplaced
    assert checked_page([stored(entries, **changes)], 0, 3).misplaced == ""  # with the next page
    assert checked_page([stored(entries, terms=None)], 0, 5).misplaced == ""  # is always read


def test_an_entry_behind_the_last_one_is_no_part_of_the_tail():
    rows = [EntryRow(n, *entry) for n, entry in enumerate(leaves(3))]
    assert len(checked_leaves(rows, 0, 3)) == 3
    with pytest.raises(Tampered, match="Entry 2 of the audit log was added"):
        checked_leaves(rows, 0, 2)
