"""Parts of proposals, what approvals bind to, and conflicts that cross the wire."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core import pending as module
from angelos.core.errors import Conflict, InvalidInput, Stale, from_problem
from angelos.core.ids import HunkId, PrincipalId, ProposalId, Revision, TaskId
from angelos.core.pending import (
    ChangeKind,
    EditConflict,
    HunkState,
    PartChoice,
    Pending,
    PendingHunk,
    PendingState,
    ProposalDraft,
    check_part,
    conflicts_of,
    draft_digest,
    hunk_id,
    part_of,
    stale,
)
from angelos.core.repository import (
    DeleteFile,
    InsertCell,
    MoveFile,
    NewText,
    PutBlob,
    SetMode,
    TreeEdit,
)

replace = msgspec.structs.replace


def hunk(letter, path="a.py", **fields):
    return PendingHunk(id=HunkId(letter * 16), path=path, kind=ChangeKind.text, **fields)


HUNKS = (
    hunk("a"),
    hunk("b", to="z.py"),
    hunk("c", "book.ipynb", cell="one"),
    hunk("d", "book.ipynb", cell="two"),
)
PENDING = Pending(
    id=ProposalId("prop-1"), repo="study", base=Revision("0" * 64), at=0.0, message="",
    author=PrincipalId("agent/ada"), digest="d" * 64, hunks=HUNKS, dev=Revision("0" * 64),
)  # fmt: skip
DRAFT = ProposalDraft(
    id=ProposalId("prop-1"), repo="study", base=Revision("0" * 64), message="why",
    edits=(NewText(path="a.py", text="x"),), author=PrincipalId("agent/ada"),
)  # fmt: skip


def letters(part):
    return "".join(hunk[0] for hunk in part.hunks)


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (None, "abcd"),
        (PartChoice(), "abcd"),
        (PartChoice(paths=("a.py",)), "ab"),
        (PartChoice(paths=("z.py",)), "b"),
        (PartChoice(cells=(("book.ipynb", "two"),)), "d"),
        (PartChoice(hunks=(HunkId("c" * 16), HunkId("a" * 16))), "ac"),
        (PartChoice(paths=("a.py",), cells=(("book.ipynb", "one"),)), "abc"),
        (PartChoice(paths=("a.py", "book.ipynb")), "abcd"),
    ],
)
def test_a_choice_names_hunks(choice, chosen):
    part = part_of(PENDING, choice)
    assert letters(part) == chosen
    assert (part.digest == PENDING.digest) == (chosen == "abcd")
    check_part(PENDING, part)


@pytest.mark.parametrize(
    "choice",
    [
        PartChoice(paths=("nosuch.py",)),
        PartChoice(cells=(("book.ipynb", "three"),)),
        PartChoice(cells=(("a.py", "one"),)),
        PartChoice(hunks=(HunkId("e" * 16),)),
        PartChoice(paths=("a.py", "nosuch.py")),
    ],
)
def test_what_is_not_there_cannot_be_chosen(choice):
    with pytest.raises(InvalidInput):
        part_of(PENDING, choice)


@given(st.sets(st.sampled_from(HUNKS), min_size=1), st.sets(st.sampled_from(HUNKS), min_size=1))
def test_two_parts_have_one_digest_only_if_they_are_one(one, two):
    parts = [part_of(PENDING, PartChoice(hunks=tuple(h.id for h in p))) for p in (one, two)]
    assert (parts[0].digest == parts[1].digest) == (one == two)
    later = replace(PENDING, digest="e" * 64)
    assert part_of(later, PartChoice(hunks=parts[0].hunks)).digest != parts[0].digest


def test_a_part_of_another_version_or_proposal_is_a_conflict():
    part = part_of(PENDING)
    for other in (replace(PENDING, digest="e" * 64), replace(PENDING, id=ProposalId("prop-2"))):
        with pytest.raises(Conflict):
            check_part(other, part)


STATES = [
    ("oo", (), PendingState.open),
    ("op", ("x",), PendingState.stale),
    ("aw", (), PendingState.accepted),
    ("ap", (), PendingState.accepted),
    ("pw", (), PendingState.promoted),
    ("pp", (), PendingState.promoted),
    ("ww", (), PendingState.withdrawn),
]


@pytest.mark.parametrize(("states", "conflicts", "expected"), STATES)
def test_the_state_of_a_proposal_follows_from_its_hunks(states, conflicts, expected):
    by_letter = {state.value[0]: state for state in HunkState}
    hunks = tuple(replace(HUNKS[0], state=by_letter[letter]) for letter in states)
    rows = tuple(EditConflict(path=path, kind=ChangeKind.text) for path in conflicts)
    assert replace(PENDING, hunks=hunks, conflicts=rows).state is expected


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"id": "prop-2"}, True),
        ({"message": "other"}, True),
        ({"task": TaskId("task-1")}, True),
        ({"replaces": "x"}, True),
        ({"repo": "other"}, False),
        ({"base": Revision("1" * 64)}, False),
        ({"author": PrincipalId("agent/bob")}, False),
        ({"edits": (NewText(path="a.py", text="y"),)}, False),
        ({"edits": (DeleteFile(path="a.py"),)}, False),
        ({"depends_on": ProposalId("prop-2")}, False),
        ({"reverts": ProposalId("prop-2")}, False),
    ],
)
def test_a_digest_covers_what_an_approval_is_about(changed, same):
    assert (draft_digest(replace(DRAFT, **changed)) == draft_digest(DRAFT)) is same


def test_the_digest_of_a_draft_is_fixed():
    assert draft_digest(DRAFT) == "d2ffe80a01b44d6b639e7298b35704c4660899324867357dce2b09ae44eba837"


def test_text_that_is_not_unicode_has_no_digest():
    with pytest.raises(InvalidInput):
        draft_digest(replace(DRAFT, edits=(NewText(path="a", text="\ud800"),)))


def test_a_hunks_id_does_not_change_when_it_moves_or_is_accepted():
    first = hunk_id(HUNKS[0])
    assert hunk_id(replace(HUNKS[0], at=7, state=HunkState.accepted, id=HunkId("x"))) == first
    for changed in ({"path": "b"}, {"start": 2}, {"after": "x"}, {"cell": "c"}, {"to": "d"}):
        assert hunk_id(replace(HUNKS[0], **changed)) != first
    assert hunk_id(HUNKS[0], repeated=1) != first


def test_conflicts_cross_the_wire():
    conflict = EditConflict(
        path="a.py", kind=ChangeKind.text, start=3, end=3, base="1", current="2", proposed="3"
    )
    error = from_problem(stale("dev has changed.", [conflict]).problem())
    assert isinstance(error, Stale)
    assert conflicts_of(error) == (conflict,)


def test_the_evidence_of_an_error_is_bounded():
    long = EditConflict(path="a.py", kind=ChangeKind.text, current="x" * 10_000)
    error = stale("dev has changed.", [long] * 30)
    rows = conflicts_of(error)
    assert (len(rows), error.extra["more"]) == (module.MAX_CONFLICTS, 10)
    assert {len(row.current) for row in rows} == {module.MAX_CONFLICT_TEXT}


@pytest.mark.parametrize("rows", [None, 7, "text", [1], [{"path": "a"}], [{"kind": "nosuch"}]])
def test_evidence_that_cannot_be_read_is_left_out(rows):
    assert conflicts_of(Stale("x", conflicts=rows)) == ()


@pytest.mark.parametrize(
    "edit",
    [
        NewText(path="a", text="x"),
        PutBlob(path="a", sha256="0" * 64, size=1),
        MoveFile(path="a", to="b"),
        SetMode(path="a", executable=True),
        InsertCell(path="a", cell="one", source="x"),
    ],
)
def test_edits_of_every_kind_cross_the_wire_by_their_kind(edit):
    assert msgspec.json.decode(msgspec.json.encode(edit), type=TreeEdit) == edit
    assert msgspec.convert(msgspec.to_builtins(edit), TreeEdit) == edit
