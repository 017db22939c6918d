"""Which part of a proposal `--cell` and `--hunk` name."""

from __future__ import annotations

import pytest

from angelos.cli.commands.proposal import hunk_lines, part_named
from angelos.core.errors import InvalidInput
from angelos.core.ids import HunkId, PrincipalId, ProposalId, Revision
from angelos.core.pending import ChangeKind, EditConflict, Pending, PendingHunk


def hunk(name, path="a.ipynb", cell="", **fields):
    kind = ChangeKind.text
    return PendingHunk(id=HunkId(name * 16), path=path, cell=cell, kind=kind, **fields)


PENDING = Pending(
    id=ProposalId("prop-1"), repo="study", base=Revision("0" * 64),
    author=PrincipalId("agent/ada"), message="", digest="d" * 64, dev=Revision("0" * 64), at=0.0,
    hunks=(
        hunk("a", cell="one", at=3, before="1\n", after="2\n"), hunk("b", cell="two"),
        hunk("c", "b.ipynb", "two"), hunk("d", "c.py"),
    ),
    conflicts=(EditConflict(path="c.py", kind=ChangeKind.text, current="newer\n"),),
)  # fmt: skip


def test_cells_and_hunks_are_added_up():
    part = part_named(PENDING, ("one",), ("dddd",))
    assert (part.cells, part.hunks) == ((("a.ipynb", "one"),), ("d" * 16,))


@pytest.mark.parametrize(
    ("cells", "hunks", "problem"),
    [
        (("two",), (), "several notebooks"),
        (("three",), (), "not in this proposal"),
        (("",), (), "not in this proposal"),
        ((), ("e",), "names 0 hunks"),
        ((), ("",), "names 0 hunks"),
    ],
)
def test_what_names_nothing_or_too_much_is_refused(cells, hunks, problem):
    with pytest.raises(InvalidInput, match=problem):
        part_named(PENDING, cells, hunks)


def test_hunks_are_listed_with_their_place_and_what_does_not_fit():
    lines = hunk_lines(PENDING)
    assert lines[:3] == [f"{'a' * 16}  open  text  a.ipynb cell one, line 3", "  - 1", "  + 2"]
    assert lines[-2:] == ["does not fit any more: c.py, which is now", "  | newer"]
