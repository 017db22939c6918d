"""What every repository promises (`core.ports.BranchingRepository`).

In memory at present; AngelGit joins `make_repository` as it implements each of the small protocols.
A repository under test also offers `create`, `type_text`, `live`, `fence` and `damage_blob`, as
`angelos.testing.MemoryRepository` does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angelos.core.branches import DEV, MAIN, BranchName, proposal_branch
from angelos.core.errors import (
    Conflict,
    Fenced,
    InvalidInput,
    NotFound,
    Refused,
    Stale,
    Tampered,
    TooLarge,
)
from angelos.core.ids import PrincipalId, Revision, TaskId, new_proposal_id
from angelos.core.pending import (
    ChangeKind,
    HunkState,
    LeftOutReason,
    PartChoice,
    PendingState,
    ProposalDraft,
    conflicts_of,
    part_of,
)
from angelos.core.repository import (
    DeleteCell,
    DeleteFile,
    EntryKind,
    InsertCell,
    MoveCell,
    MoveFile,
    NewText,
    PutBlob,
    PutLink,
    ReplaceCell,
    SetMode,
    UnifiedDiff,
)
from angelos.core.revision_v2 import (
    EntryMode,
    TrailerKey,
    TreeEntry,
    build_tree,
    children_of,
    decode_directory,
    verify_commit_object,
)
from angelos.testing import MemoryRepository

ADA, BOB = PrincipalId("agent/ada"), PrincipalId("agent/bob")
EVE, KIM = PrincipalId("person/eve"), PrincipalId("person/kim")
NOWHERE = Revision("0" * 64)
TEXT = "".join(f"line {i}\n" for i in range(1, 21))
MAX_BLOB = 100_000


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def cell(name, source):
    return {
        "cell_type": "code", "execution_count": 1, "id": name, "metadata": {"tags": [name]},
        "outputs": [{"name": "stdout", "output_type": "stream", "text": f"{name}\n"}],
        "source": source,
    }  # fmt: skip


BOOK = {
    "cells": [cell(name, f"{name} = 1\n{name}\n") for name in ("one", "two", "three")],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}
FILES = {
    "a.py": TEXT.encode(),
    "b.py": TEXT.encode(),
    "deep/er/c.py": b"x = 1\n",
    "book.ipynb": (json.dumps(BOOK, indent=1) + "\n").encode(),
}


@pytest.fixture(params=["memory"])
def make_repository(request):
    return lambda: MemoryRepository(max_blob_bytes=MAX_BLOB)


@pytest.fixture
def any_repository(make_repository):
    return make_repository()


@pytest.fixture
async def base(any_repository):
    return await any_repository.create("study", FILES, EVE, "import")


def draft(base, *edits, author=ADA, **fields):
    return ProposalDraft(
        id=fields.pop("id", None) or new_proposal_id(), repo="study", base=base, edits=edits,
        author=author, message=fields.pop("message", "why"), **fields,
    )  # fmt: skip


def changed(text=TEXT, **lines):
    """Return `text` with some lines replaced: changed(line3="three")."""
    rows = text.splitlines(keepends=True)
    for name, new in lines.items():
        rows[int(name.removeprefix("line")) - 1] = f"{new}\n"
    return "".join(rows)


def edit(path="a.py", **lines):
    return NewText(path=path, text=changed(**lines))


async def head(repository, branch=DEV):
    return (await repository.branch("study", branch)).revision


async def commit_of(repository, revision):
    signed = await repository.signed("study", revision)
    return verify_commit_object(repository.key.public, signed, revision)


async def ancestors(repository, revision):
    reached, waiting = set(), [revision]
    while waiting:
        at = waiting.pop()
        if at not in reached:
            reached.add(at)
            waiting += (await commit_of(repository, at)).parents
    return reached


async def land(repository, *parts):
    candidate = await repository.merge_many("study", parts)
    assert not candidate.left_out
    await repository.advance("study", candidate.revision, candidate.main)
    return candidate


async def everything(repository):
    """Return all that a pending proposal must leave as it is."""
    dev = await head(repository)
    live = {path: repository.live("study", path) for path in FILES}
    return dev, await head(repository, MAIN), live, await repository.files("study", dev)


# -- branches ----------------------------------------------------------------------------------


async def test_a_new_repository_has_dev_and_main_at_one_revision(any_repository, base):
    rows = await any_repository.branches("study")
    assert [(row.name, row.revision, row.owner) for row in rows] == [
        (DEV, base, None), (MAIN, base, None),
    ]  # fmt: skip


async def test_a_branch_is_made_moved_and_deleted_by_compare_and_set(any_repository, base):
    part = part_of(await any_repository.propose(draft(base, edit(line3="three"))))
    later = (await any_repository.accept(part, EVE)).revision
    name = BranchName("ada/faster")
    made = await any_repository.create_branch("study", name, base, ADA)
    assert (made.name, made.revision, made.owner) == (name, base, ADA)
    assert await any_repository.create_branch("study", name, base, ADA) == made
    moved = await any_repository.move_branch("study", name, later, base)
    assert (moved.revision, moved.owner) == (later, ADA)
    assert await any_repository.move_branch("study", name, later, NOWHERE) == moved
    with pytest.raises(Conflict) as error:
        await any_repository.move_branch("study", name, base, base)
    assert error.value.extra["revision"] == later
    assert await any_repository.branch("study", name) == moved
    with pytest.raises(Conflict):
        await any_repository.delete_branch("study", name, base)
    assert (await any_repository.move_branch("study", name, base, later)).revision == base
    await any_repository.delete_branch("study", name, base)
    await any_repository.delete_branch("study", name, base)
    with pytest.raises(NotFound):
        await any_repository.branch("study", name)
    assert (await any_repository.read("study", later, "a.py")).decode() == changed(line3="three")


async def test_a_name_that_is_taken_or_clashes_is_refused(any_repository, base):
    await any_repository.create_branch("study", BranchName("ada/faster"), base, ADA)
    for name, owner in (("ada/faster", BOB), ("ada", ADA), ("ada/faster/still", ADA)):
        with pytest.raises(Conflict):
            await any_repository.create_branch("study", BranchName(name), base, owner)
    await any_repository.create_branch("study", BranchName("ada/slower"), base, ADA)
    assert len(await any_repository.branches("study")) == 4


@pytest.mark.parametrize("name", ["main", "dev", "proposals/mine"])
async def test_branches_that_are_not_moved_by_hand(any_repository, base, name):
    branch = BranchName(name)
    for call in (
        any_repository.create_branch("study", branch, base, ADA),
        any_repository.move_branch("study", branch, base, base),
        any_repository.delete_branch("study", branch, base),
    ):
        with pytest.raises(Refused):
            await call


async def test_what_does_not_exist_is_not_found(any_repository, base):
    name = BranchName("ada/x")
    for call in (
        any_repository.branches("nosuch"),
        any_repository.branch("study", name),
        any_repository.create_branch("study", name, NOWHERE, ADA),
        any_repository.move_branch("study", name, base, base),
        any_repository.pending(new_proposal_id()),
        any_repository.propose(draft(NOWHERE, edit(line1="x"))),
        any_repository.propose(draft(base, edit(line1="x"), depends_on=new_proposal_id())),
        any_repository.advance("study", NOWHERE, base),
        any_repository.signed("study", NOWHERE),
        any_repository.directory("study", NOWHERE),
        any_repository.files("study", NOWHERE),
        any_repository.read("study", base, "nosuch.py"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_pages_of_branches_lose_and_double_nothing(any_repository, base):
    names = [f"b{i}" for i in range(7)]
    for name in reversed(names):
        await any_repository.create_branch("study", BranchName(name), base, ADA)
    listed, after = [], ""
    for length in (2, 2, 2, 2, 1, 0):
        page = await any_repository.branches("study", after, 2)
        assert len(page) == length
        listed += [row.name for row in page]
        after = listed[-1]
    assert listed == sorted([*names, "dev", "main"])
    for limit in (0, 1_001):
        with pytest.raises(InvalidInput):
            await any_repository.branches("study", "", limit)


# -- pending -----------------------------------------------------------------------------------


async def test_a_pending_proposal_changes_nothing(any_repository, base):
    before = await everything(any_repository)
    pending = await any_repository.propose(
        draft(base, edit(line3="three"), NewText(path="new.py", text="y\n"), task=TaskId("task-1"))
    )
    assert await everything(any_repository) == before
    assert pending.state is PendingState.open
    assert (pending.author, pending.base, pending.dev, pending.task) == (ADA, base, base, "task-1")
    shown = [(h.path, h.kind, h.start, h.end, h.before, h.after) for h in pending.hunks]
    assert shown == [
        ("a.py", ChangeKind.text, 3, 3, "line 3\n", "three\n"),
        ("new.py", ChangeKind.created, 0, 0, "", "y\n"),
    ]
    with pytest.raises(NotFound):
        any_repository.live("study", "new.py")
    assert await any_repository.pending(pending.id) == pending


async def test_the_same_draft_again_is_the_same_proposal_whatever_became_of_it(
    any_repository, base
):
    first = draft(base, edit(line3="three"))
    pending = await any_repository.propose(first)
    assert await any_repository.propose(first) == pending
    await any_repository.accept(part_of(pending), EVE)
    again = await any_repository.propose(first)
    assert again.state is PendingState.accepted
    assert again.digest == pending.digest
    assert any_repository.live("study", "a.py").decode() == changed(line3="three")


async def test_an_id_with_other_content_is_a_conflict_unless_it_replaces(any_repository, base):
    first = await any_repository.propose(draft(base, edit(line3="three")))
    other = draft(base, edit(line3="drei"), id=first.id)
    with pytest.raises(Conflict):
        await any_repository.propose(other)
    with pytest.raises(Conflict):
        await any_repository.propose(msgspec.structs.replace(other, replaces="0" * 64))
    theft = msgspec.structs.replace(other, replaces=first.digest, author=BOB)
    with pytest.raises(Conflict):
        await any_repository.propose(theft)
    replaced = await any_repository.propose(msgspec.structs.replace(other, replaces=first.digest))
    assert replaced.id == first.id
    assert replaced.digest != first.digest
    assert [h.after for h in replaced.hunks] == ["drei\n"]
    with pytest.raises(Conflict):  # an approval of the old version is void
        await any_repository.accept(part_of(first), EVE)
    with pytest.raises(Conflict):
        await any_repository.withdraw(part_of(first), EVE, "old")
    await any_repository.accept(part_of(replaced), EVE)
    with pytest.raises(Conflict):  # it is in dev already
        await any_repository.propose(
            draft(base, edit(line3="trois"), id=first.id, replaces=replaced.digest)
        )


async def test_a_stale_proposal_is_refused_with_the_newer_text_and_not_kept(any_repository, base):
    any_repository.type_text("study", "a.py", changed(line3="typed"), EVE)
    stale = draft(base, edit(line3="three", line9="nine"))
    with pytest.raises(Stale) as error:
        await any_repository.propose(stale)
    (conflict,) = conflicts_of(error.value)
    assert (conflict.path, conflict.kind, conflict.start, conflict.end) == (
        "a.py", ChangeKind.text, 3, 3,
    )  # fmt: skip
    assert (conflict.base, conflict.current, conflict.proposed) == (
        "line 3\n", "typed\n", "three\n",
    )  # fmt: skip
    with pytest.raises(NotFound):
        await any_repository.pending(stale.id)


async def test_what_dev_has_already_is_no_conflict(any_repository, base):
    any_repository.type_text("study", "a.py", changed(line3="three"), EVE)
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    assert pending.state is PendingState.open
    await any_repository.accept(part_of(pending), EVE)
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="nine")


async def test_two_insertions_at_one_place_both_survive(any_repository, base):
    drafts = [
        draft(base, NewText(path="a.py", text=TEXT.replace("line 4\n", f"{who}\nline 4\n")))
        for who in ("one", "two")
    ]
    parts = [part_of(await any_repository.propose(each)) for each in drafts]
    for part in parts:
        await any_repository.accept(part, EVE)
    live = any_repository.live("study", "a.py").decode()
    assert live in {
        TEXT.replace("line 4\n", f"{pair}line 4\n") for pair in ("one\ntwo\n", "two\none\n")
    }


async def test_the_overlay_follows_what_people_type_and_says_when_it_is_stale(any_repository, base):
    proposal = (await any_repository.propose(draft(base, edit(line3="three", line9="nine")))).id
    any_repository.type_text("study", "a.py", "above\n" + TEXT, EVE)
    moved = await any_repository.pending(proposal)
    assert [(h.start, h.at) for h in moved.hunks] == [(3, 4), (9, 10)]
    any_repository.type_text("study", "a.py", "above\n" + changed(line9="typed"), EVE)
    stale = await any_repository.pending(proposal)
    assert stale.state is PendingState.stale
    (conflict,) = stale.conflicts
    assert conflict.hunk == stale.hunks[1].id
    assert conflict.current == "typed\n"
    assert [h.at for h in stale.hunks] == [4, 0]
    any_repository.type_text("study", "a.py", TEXT, EVE)
    assert (await any_repository.pending(proposal)).state is PendingState.open


BAD_EDITS = [
    [edit()],
    [NewText(path="../x", text="x")],
    [NewText(path=".git/config", text="x")],
    [NewText(path="a.py", text="x"), DeleteFile(path="a.py")],
    [NewText(path="a.py/below", text="x")],
    [NewText(path="deep", text="x")],
    [NewText(path="book.ipynb", text="no notebook")],
    [NewText(path="a.py", text="\ud800")],
    [DeleteFile(path="nosuch.py")],
    [UnifiedDiff(path="a.py", diff="@@ -1 +1 @@\n-line 7\n+x\n")],
    [PutBlob(path="x.bin", sha256="0" * 64, size=1)],
    [PutLink(path="x", target="/etc/passwd")],
    [PutLink(path="deep/x", target="../../y")],
    [PutLink(path="x", target="deep/../../y")],
    [MoveFile(path="nosuch.py", to="y")],
    [MoveFile(path="a.py", to="b.py")],
    [MoveFile(path="a.py", to="../b.py")],
    [MoveFile(path="a.py", to="z.py"), NewText(path="z.py", text="x")],
    [SetMode(path="nosuch.py", executable=True)],
    [SetMode(path="a.py", executable=False)],
    [ReplaceCell(path="book.ipynb", cell="one", before=sha("other"), source="x")],
    [ReplaceCell(path="a.py", cell="one", before=sha("x"), source="x")],
    [DeleteCell(path="book.ipynb", cell="nosuch", before=sha("x"))],
    [InsertCell(path="book.ipynb", cell="one", source="x")],
    [InsertCell(path="book.ipynb", cell="four", after="nosuch", source="x")],
    [MoveCell(path="book.ipynb", cell="one", after="one")],
    [],
    [NewText(path=f"f{i}", text="x") for i in range(257)],
]


@pytest.mark.parametrize("edits", BAD_EDITS, ids=lambda e: type(e[0]).__name__ if e else "none")
async def test_edits_that_do_not_fit_their_base_are_refused_and_not_kept(
    any_repository, base, edits
):
    bad = draft(base, *edits)
    with pytest.raises(InvalidInput):
        await any_repository.propose(bad)
    with pytest.raises(NotFound):
        await any_repository.pending(bad.id)


async def test_proposals_are_listed_in_the_order_in_which_they_came(any_repository, base):
    pendings = [
        await any_repository.propose(
            draft(base, edit(f"{'ab'[i % 2]}.py", **{f"line{i + 1}": "x"}))
        )
        for i in range(6)
    ]
    order = [pending.id for pending in pendings]
    listed, after = [], None
    for length in (2, 2, 2, 0):
        page = await any_repository.list_pending("study", "", after, 2)
        assert len(page) == length
        listed += [row.id for row in page]
        after = listed[-1]
    assert listed == order
    in_b = await any_repository.list_pending("study", "b.py")
    assert [row.id for row in in_b] == order[1::2]
    await any_repository.withdraw(part_of(pendings[0]), EVE, "no")
    await any_repository.accept(part_of(pendings[1]), EVE)
    any_repository.type_text("study", "a.py", "all new\n", EVE)
    rows = await any_repository.list_pending("study", after=order[0])
    assert [row.id for row in rows] == order[2:]
    states = [row.state for row in rows]
    assert states == [PendingState.stale, PendingState.open] * 2


# -- acceptance --------------------------------------------------------------------------------


async def test_acceptance_enters_around_what_was_typed_and_commits_both_by_name(
    any_repository, base
):
    pending = await any_repository.propose(draft(base, edit(line3="three")))
    any_repository.type_text("study", "a.py", changed(line9="typed"), KIM)
    acceptance = await any_repository.accept(part_of(pending), EVE)
    live = any_repository.live("study", "a.py").decode()
    assert live == changed(line3="three", line9="typed")
    assert acceptance.revision == await head(any_repository)
    assert (acceptance.by, acceptance.still_open) == (EVE, ())
    commit = await commit_of(any_repository, acceptance.revision)
    assert commit.authors[0] == ADA
    assert EVE in {trailer.value for trailer in commit.trailers}
    assert commit.trailer(TrailerKey.proposal) == pending.id
    (parent,) = commit.parents
    typed = await commit_of(any_repository, parent)
    assert typed.authors == (KIM,)
    assert typed.parents == (base,)
    text = (await any_repository.read("study", parent, "a.py")).decode()
    assert text == changed(line9="typed")
    assert await head(any_repository, MAIN) == base


async def test_a_part_by_hunk_leaves_the_rest_open(any_repository, base):
    pending = await any_repository.propose(
        draft(base, edit(line3="three", line9="nine"), edit("b.py", line5="five"))
    )
    part = part_of(pending, PartChoice(hunks=(pending.hunks[1].id,)))
    assert part.digest != pending.digest
    acceptance = await any_repository.accept(part, EVE)
    assert any_repository.live("study", "a.py").decode() == changed(line9="nine")
    assert any_repository.live("study", "b.py").decode() == TEXT
    assert set(acceptance.still_open) == {pending.hunks[0].id, pending.hunks[2].id}
    now = await any_repository.pending(pending.id)
    assert now.state is PendingState.open
    states = [h.state for h in now.hunks]
    assert states == [HunkState.open, HunkState.accepted, HunkState.open]
    assert now.digest == pending.digest
    rest = await any_repository.accept(part_of(now), EVE)
    assert rest.still_open == ()
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="nine")
    assert any_repository.live("study", "b.py").decode() == changed(line5="five")


async def test_a_part_by_file_and_by_cell(any_repository, base):
    pending = await any_repository.propose(
        draft(
            base,
            edit(line3="three"),
            ReplaceCell(path="book.ipynb", cell="one", before=sha("one = 1\none\n"), source="1\n"),
            DeleteCell(path="book.ipynb", cell="two", before=sha("two = 1\ntwo\n")),
            InsertCell(path="book.ipynb", cell="new", after="three", source="n\n"),
        )
    )
    await any_repository.accept(part_of(pending, PartChoice(paths=("a.py",))), EVE)
    assert any_repository.live("study", "book.ipynb") == FILES["book.ipynb"]
    by_cell = PartChoice(cells=(("book.ipynb", "one"), ("book.ipynb", "new")))
    await any_repository.accept(part_of(pending, by_cell), EVE)
    book = json.loads(any_repository.live("study", "book.ipynb"))
    assert [c["id"] for c in book["cells"]] == ["one", "two", "three", "new"]
    one = book["cells"][0]
    assert one["source"] == "1\n"
    assert one["outputs"] == BOOK["cells"][0]["outputs"]  # an edit of a source keeps them
    assert one["metadata"] == BOOK["cells"][0]["metadata"]
    left = await any_repository.pending(pending.id)
    open_hunks = [h for h in left.hunks if h.state is HunkState.open]
    assert {(h.cell, h.kind) for h in open_hunks} == {("two", ChangeKind.deleted)}


async def test_accepting_twice_is_once(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    one = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    first = await any_repository.accept(one, EVE)
    second = await any_repository.accept(one, KIM)
    assert (second.revision, second.by) == (first.revision, EVE)
    whole = await any_repository.accept(part_of(pending), KIM)
    assert await any_repository.accept(part_of(pending), EVE) == whole
    assert (whole.by, await head(any_repository)) == (KIM, whole.revision)
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="nine")


async def test_what_no_longer_fits_does_not_enter_at_all(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    any_repository.type_text("study", "a.py", changed(line9="typed"), EVE)
    with pytest.raises(Stale) as error:
        await any_repository.accept(part_of(pending), EVE)
    assert [c.current for c in conflicts_of(error.value)] == ["typed\n"]
    assert any_repository.live("study", "a.py").decode() == changed(line9="typed")
    fits = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    await any_repository.accept(fits, EVE)
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="typed")


async def test_what_was_withdrawn_does_not_enter_any_more(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    one = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    half = await any_repository.withdraw(one, EVE, "no")
    assert [h.state for h in half.hunks] == [HunkState.withdrawn, HunkState.open]
    assert half.state is PendingState.open
    assert await any_repository.withdraw(one, EVE, "no") == half
    for part in (one, part_of(pending)):
        with pytest.raises(Conflict):
            await any_repository.accept(part, EVE)
    other = part_of(pending, PartChoice(hunks=(pending.hunks[1].id,)))
    await any_repository.accept(other, EVE)
    after = await any_repository.withdraw(part_of(pending), EVE, "no")
    assert [h.state for h in after.hunks] == [HunkState.withdrawn, HunkState.accepted]
    assert after.state is PendingState.accepted
    assert any_repository.live("study", "a.py").decode() == changed(line9="nine")


async def test_a_forged_part_is_refused(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    whole = part_of(pending)
    one = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    replace = msgspec.structs.replace
    for forged in (
        replace(one, hunks=whole.hunks),  # more hunks than were approved
        replace(whole, hunks=one.hunks),
        replace(one, hunks=("0" * 16,)),
        replace(one, hunks=()),
        replace(one, digest="0" * 64),
    ):
        with pytest.raises(InvalidInput):
            await any_repository.accept(forged, EVE)
        with pytest.raises(InvalidInput):
            await any_repository.merge_many("study", [forged])
    assert any_repository.live("study", "a.py").decode() == TEXT


async def test_files_links_blobs_and_modes_enter(any_repository, base):
    blob = await any_repository.put_blob("study", pieces(b"\0\1" * 500))
    pending = await any_repository.propose(
        draft(
            base,
            PutBlob(path="x.bin", sha256=blob.sha256, size=blob.size, executable=True),
            PutLink(path="deep/link", target="../a.py"),
            SetMode(path="a.py", executable=True),
            MoveFile(path="deep/er/c.py", to="deep/d.py"),
            DeleteFile(path="b.py"),
        )
    )
    assert {h.path: h.kind for h in pending.hunks} == {
        "x.bin": ChangeKind.created, "deep/link": ChangeKind.created, "a.py": ChangeKind.mode,
        "deep/er/c.py": ChangeKind.moved, "b.py": ChangeKind.deleted,
    }  # fmt: skip
    before = {f.path: f for f in await any_repository.files("study", base)}
    revision = (await any_repository.accept(part_of(pending), EVE)).revision
    rows = {f.path: f for f in await any_repository.files("study", revision)}
    assert {path: (f.kind, f.mode) for path, f in rows.items()} == {
        "a.py": (EntryKind.text, EntryMode.executable),
        "book.ipynb": (EntryKind.notebook, EntryMode.file),
        "deep/d.py": (EntryKind.text, EntryMode.file),
        "deep/link": (EntryKind.link, EntryMode.symlink),
        "x.bin": (EntryKind.blob, EntryMode.executable),
    }
    assert rows["deep/d.py"].document == before["deep/er/c.py"].document is not None
    assert rows["x.bin"].document is None
    assert await any_repository.read("study", revision, "deep/link") == b"../a.py"
    assert await any_repository.read("study", revision, "x.bin") == b"\0\1" * 500


async def test_a_file_that_is_made_again_is_another_document(any_repository, base):
    (first,) = await any_repository.files("study", base, "deep")
    gone = await any_repository.propose(draft(base, DeleteFile(path="deep/er/c.py")))
    without = (await any_repository.accept(part_of(gone), EVE)).revision
    again = await any_repository.propose(
        draft(without, NewText(path="deep/er/c.py", text="x = 1\n"))
    )
    revision = (await any_repository.accept(part_of(again), EVE)).revision
    (second,) = await any_repository.files("study", revision, "deep")
    assert first.document != second.document


async def test_a_file_deleted_by_one_and_changed_by_another_is_stale(any_repository, base):
    gone = await any_repository.propose(draft(base, DeleteFile(path="a.py")))
    change = await any_repository.propose(draft(base, edit(line3="three")))
    await any_repository.accept(part_of(change), EVE)
    with pytest.raises(Stale):
        await any_repository.accept(part_of(gone), EVE)
    other = await any_repository.propose(draft(base, DeleteFile(path="b.py")))
    await any_repository.accept(part_of(other), EVE)
    with pytest.raises(Stale):
        await any_repository.propose(draft(base, edit("b.py", line3="three")))


async def test_a_unified_diff_is_an_edit_like_any_other(any_repository, base):
    diff = "--- a/a.py\n+++ b/a.py\n@@ -2,3 +2,3 @@\n line 2\n-line 3\n+three\n line 4\n"
    by_diff = await any_repository.propose(draft(base, UnifiedDiff(path="a.py", diff=diff)))
    by_text = await any_repository.propose(draft(base, edit(line3="three")))
    assert by_diff.hunks == by_text.hunks


# -- landing -----------------------------------------------------------------------------------


async def test_many_proposals_land_as_commits_of_their_own_edits(any_repository, base):
    pendings = [
        await any_repository.propose(draft(base, edit(line3="three"))),
        await any_repository.propose(draft(base, edit(line9="nine"), author=BOB)),
        await any_repository.propose(draft(base, edit("b.py", line5="five"))),
    ]
    parts = [part_of(pending) for pending in pendings]
    before = await everything(any_repository)
    candidate = await any_repository.merge_many("study", parts)
    assert await everything(any_repository) == before
    assert (candidate.main, candidate.left_out) == (base, ())
    assert [member.part for member in candidate.members] == parts
    parent, texts = base, []
    for member, pending in zip(candidate.members, pendings, strict=True):
        commit = await commit_of(any_repository, member.revision)
        assert commit.parents == (parent,)
        assert commit.authors[0] == pending.author
        assert commit.trailer(TrailerKey.proposal) == pending.id
        texts.append((await any_repository.read("study", member.revision, "a.py")).decode())
        parent = member.revision
    assert candidate.revision == parent
    assert texts == [changed(line3="three"), *[changed(line3="three", line9="nine")] * 2]
    assert candidate.tree == (await commit_of(any_repository, parent)).tree
    assert await any_repository.merge_many("study", parts) == candidate
    await any_repository.advance("study", candidate.revision, base)
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="nine")
    assert any_repository.live("study", "b.py").decode() == changed(line5="five")
    for pending in pendings:
        assert (await any_repository.pending(pending.id)).state is PendingState.promoted


async def test_advance_moves_main_to_exactly_the_candidate_and_dev_contains_it(
    any_repository, base
):
    any_repository.type_text("study", "b.py", changed(line1="typed"), KIM)
    pending = await any_repository.propose(draft(base, edit(line3="three")))
    candidate = await land(any_repository, part_of(pending))
    assert await head(any_repository, MAIN) == candidate.revision
    assert (await any_repository.read("study", candidate.revision, "b.py")).decode() == TEXT
    assert any_repository.live("study", "a.py").decode() == changed(line3="three")
    assert any_repository.live("study", "b.py").decode() == changed(line1="typed")
    dev = await head(any_repository)
    merge = await commit_of(any_repository, dev)
    assert len(merge.parents) == 2
    assert merge.parents[1] == candidate.revision
    assert await any_repository.read("study", dev, "a.py") == any_repository.live("study", "a.py")
    now = await any_repository.pending(pending.id)
    assert now.state is PendingState.promoted
    await any_repository.advance("study", candidate.revision, base)  # again
    assert await head(any_repository) == dev


async def test_main_never_has_a_commit_of_dev_as_ancestor(any_repository, base):
    any_repository.type_text("study", "a.py", changed(line1="typed"), KIM)
    first = await any_repository.propose(draft(base, edit(line3="three")))
    dev = (await any_repository.accept(part_of(first), EVE)).revision
    from_dev = await any_repository.propose(draft(dev, edit("b.py", line5="five")))
    branch = await any_repository.branch("study", proposal_branch(from_dev.id))
    commit = await commit_of(any_repository, branch.revision)
    assert commit.trailer(TrailerKey.dev_base) == dev
    assert dev not in await ancestors(any_repository, branch.revision)
    candidate = await land(any_repository, part_of(first), part_of(from_dev))
    line = await ancestors(any_repository, candidate.revision)
    assert line == {base, *(member.revision for member in candidate.members)}
    assert line < await ancestors(any_repository, await head(any_repository))


async def test_advance_is_compare_and_set(any_repository, base):
    one = part_of(await any_repository.propose(draft(base, edit(line3="three"))))
    two = part_of(await any_repository.propose(draft(base, edit(line9="nine"))))
    candidates = [await any_repository.merge_many("study", [part]) for part in (one, two)]
    with pytest.raises(Conflict):
        await any_repository.advance("study", candidates[0].revision, NOWHERE)
    await any_repository.advance("study", candidates[0].revision, base)
    main = candidates[0].revision
    for expected in (base, main):  # the second was made on what main no longer is
        with pytest.raises(Conflict) as error:
            await any_repository.advance("study", candidates[1].revision, expected)
        assert error.value.extra["revision"] == main
    assert await head(any_repository, MAIN) == main
    candidate = await land(any_repository, two)
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line3="three", line9="nine")


async def test_what_was_withdrawn_or_replaced_after_its_candidate_does_not_reach_main(
    any_repository, base
):
    first = draft(base, edit(line3="three"))
    one = part_of(await any_repository.propose(first))
    two = part_of(await any_repository.propose(draft(base, edit(line9="nine"))))
    candidate = await any_repository.merge_many("study", [one, two])
    newer = draft(base, edit(line3="drei"), id=first.id, replaces=one.version)
    replaced = part_of(await any_repository.propose(newer))
    with pytest.raises(Conflict):
        await any_repository.advance("study", candidate.revision, base)
    again = await any_repository.merge_many("study", [one, two])
    assert [out.reason for out in again.left_out] == [LeftOutReason.withdrawn]
    candidate = await any_repository.merge_many("study", [replaced, two])
    await any_repository.withdraw(two, EVE, "no")
    with pytest.raises(Conflict):
        await any_repository.advance("study", candidate.revision, base)
    assert await head(any_repository, MAIN) == base
    assert any_repository.live("study", "a.py").decode() == TEXT


async def test_what_does_not_fit_is_left_out_and_stands_in_nobodys_way(any_repository, base):
    pendings = [
        await any_repository.propose(draft(base, edit(line3="three"))),
        await any_repository.propose(draft(base, edit(line3="drei"), author=BOB)),
        await any_repository.propose(draft(base, edit("b.py", line5="five"))),
        await any_repository.propose(draft(base, edit("b.py", line7="seven"))),
    ]
    parts = [part_of(pending) for pending in pendings]
    await any_repository.withdraw(parts[3], EVE, "no")
    candidate = await any_repository.merge_many("study", parts)
    assert [member.part for member in candidate.members] == [parts[0], parts[2]]
    reasons = {out.part: out.reason for out in candidate.left_out}
    assert reasons == {parts[1]: LeftOutReason.stale, parts[3]: LeftOutReason.withdrawn}
    (conflict,) = candidate.left_out[0].conflicts
    assert (conflict.current, conflict.proposed) == ("three\n", "drei\n")
    alone = await any_repository.merge_many("study", [parts[1]])
    assert [member.part for member in alone.members] == [parts[1]]
    await any_repository.advance("study", candidate.revision, base)
    later = await any_repository.merge_many("study", [parts[0]])
    assert [out.reason for out in later.left_out] == [LeftOutReason.landed]
    assert (later.members, later.revision) == ((), candidate.revision)


async def test_a_proposal_lands_after_the_one_it_depends_on(any_repository, base):
    first = await any_repository.propose(draft(base, edit(line3="three")))
    below = (await any_repository.branch("study", proposal_branch(first.id))).revision
    both = NewText(path="a.py", text=changed(line3="three!"))
    with pytest.raises(Stale):  # dev does not have what it was based on
        await any_repository.propose(draft(below, both, depends_on=first.id))
    onto = NewText(path="a.py", text=changed(line3="three", line9="nine"))
    second = await any_repository.propose(draft(below, onto, depends_on=first.id))
    assert second.depends_on == first.id
    one, two = part_of(first), part_of(second)
    for parts in ([two], [two, one]):
        candidate = await any_repository.merge_many("study", parts)
        reasons = {out.part: out.reason for out in candidate.left_out}
        assert reasons == {two: LeftOutReason.depends}
    candidate = await any_repository.merge_many("study", [one, two])
    assert not candidate.left_out
    await land(any_repository, one)
    assert not (await any_repository.merge_many("study", [two])).left_out


async def test_a_part_lands_alone_and_the_rest_later(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    one = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    candidate = await land(any_repository, one)
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line3="three")
    commit = await commit_of(any_repository, candidate.revision)
    assert commit.trailer(TrailerKey.part) == one.digest
    now = await any_repository.pending(pending.id)
    assert [h.state for h in now.hunks] == [HunkState.promoted, HunkState.open]
    assert now.state is PendingState.open
    candidate = await land(any_repository, part_of(now))
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line3="three", line9="nine")


async def test_promotion_keeps_what_people_typed_over_it(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    any_repository.type_text("study", "a.py", changed(line9="typed"), EVE)
    candidate = await land(any_repository, part_of(pending))
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line3="three", line9="nine")
    assert any_repository.live("study", "a.py").decode() == changed(line3="three", line9="typed")


async def test_a_batch_has_bounds(any_repository, base):
    part = part_of(await any_repository.propose(draft(base, edit(line3="three"))))
    for parts in ([], [part, part], [part] * 513):
        with pytest.raises(InvalidInput):
            await any_repository.merge_many("study", parts)


async def test_512_proposals_of_disjoint_files_land_as_one(any_repository):
    files = {f"f{i}.py": b"x = 1\n" for i in range(512)}
    base = await any_repository.create("study", files, EVE, "import")
    parts = []
    for path in files:
        pending = await any_repository.propose(draft(base, NewText(path=path, text="x = 2\n")))
        parts.append(part_of(pending))
    candidate = await any_repository.merge_many("study", parts)
    assert not candidate.left_out
    entries = [TreeEntry.of(path, b"x = 2\n") for path in files]
    assert candidate.tree == build_tree(entries).root


# -- taking back -------------------------------------------------------------------------------


async def test_a_revert_is_a_proposal_around_later_work_and_can_be_undone(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    await land(any_repository, part_of(pending))
    later = await any_repository.propose(
        draft(
            await head(any_repository, MAIN),
            NewText(path="a.py", text=changed(line3="three", line9="nine", line15="later")),
        )
    )
    await land(any_repository, part_of(later))
    undo = await any_repository.revert(pending.id, new_proposal_id(), EVE, "it was wrong")
    assert (undo.reverts, undo.author, undo.message) == (pending.id, EVE, "it was wrong")
    assert undo.base == await head(any_repository, MAIN)
    assert any_repository.live("study", "a.py").decode() == changed(
        line3="three", line9="nine", line15="later"
    )
    candidate = await land(any_repository, part_of(undo))
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line15="later")
    commit = await commit_of(any_repository, candidate.revision)
    assert commit.trailer(TrailerKey.reverts) == pending.id
    redo = await any_repository.revert(undo.id, new_proposal_id(), EVE, "it was right")
    candidate = await land(any_repository, part_of(redo))
    text = (await any_repository.read("study", candidate.revision, "a.py")).decode()
    assert text == changed(line3="three", line9="nine", line15="later")


async def test_the_same_revert_again_is_the_same_proposal(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three")))
    await land(any_repository, part_of(pending))
    undo = await any_repository.revert(pending.id, new_proposal_id(), EVE, "no")
    assert await any_repository.revert(pending.id, undo.id, EVE, "no") == undo
    await land(any_repository, part_of(undo))
    again = await any_repository.revert(pending.id, undo.id, EVE, "no")
    assert again.state is PendingState.promoted
    with pytest.raises(Conflict):
        await any_repository.revert(pending.id, pending.id, EVE, "no")


async def test_what_is_in_dev_only_is_taken_out_of_dev(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three", line9="nine")))
    with pytest.raises(Conflict):
        await any_repository.revert(pending.id, new_proposal_id(), EVE, "no")
    one = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
    await any_repository.accept(one, EVE)
    any_repository.type_text("study", "a.py", changed(line3="three", line15="typed"), KIM)
    undo = await any_repository.revert(pending.id, new_proposal_id(), EVE, "no")
    await any_repository.accept(part_of(undo), EVE)
    assert any_repository.live("study", "a.py").decode() == changed(line15="typed")


async def test_a_revert_over_later_work_on_the_same_lines_is_stale(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three")))
    await land(any_repository, part_of(pending))
    later = draft(await head(any_repository, MAIN), edit(line3="three, later"))
    await land(any_repository, part_of(await any_repository.propose(later)))
    revert = new_proposal_id()
    with pytest.raises(Stale) as error:
        await any_repository.revert(pending.id, revert, EVE, "no")
    assert [c.current for c in conflicts_of(error.value)] == ["three, later\n"]
    with pytest.raises(NotFound):
        await any_repository.pending(revert)


async def test_every_kind_of_change_can_be_taken_back(any_repository, base):
    blob = await any_repository.put_blob("study", pieces(b"\0\1"))
    pending = await any_repository.propose(
        draft(
            base,
            PutBlob(path="x.bin", sha256=blob.sha256, size=blob.size),
            PutLink(path="deep/link", target="../a.py"),
            SetMode(path="a.py", executable=True),
            MoveFile(path="deep/er/c.py", to="deep/d.py"),
            DeleteFile(path="b.py"),
            DeleteCell(path="book.ipynb", cell="two", before=sha("two = 1\ntwo\n")),
            MoveCell(path="book.ipynb", cell="three"),
        )
    )
    await land(any_repository, part_of(pending))
    undo = await any_repository.revert(pending.id, new_proposal_id(), EVE, "no")
    candidate = await land(any_repository, part_of(undo))
    before = await any_repository.files("study", base)
    after = await any_repository.files("study", candidate.revision)
    shown = [
        [(f.path, f.mode, f.sha256) for f in rows if f.path != "book.ipynb"]
        for rows in (before, after)
    ]
    assert shown[0] == shown[1]
    book = json.loads(await any_repository.read("study", candidate.revision, "book.ipynb"))
    assert [c["id"] for c in book["cells"]] == ["one", "two", "three"]


# -- blobs and reading -------------------------------------------------------------------------


async def pieces(body, size=1_000):
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def test_blobs_come_back_in_bounded_pieces(any_repository, base):
    body = random.Random(1).randbytes(MAX_BLOB)
    ref = await any_repository.put_blob("study", pieces(body))
    assert (ref.sha256, ref.size) == (hashlib.sha256(body).hexdigest(), MAX_BLOB)
    assert await any_repository.put_blob("study", pieces(body, 77)) == ref
    got = [piece async for piece in any_repository.read_blob("study", ref.sha256)]
    assert b"".join(got) == body
    assert all(0 < len(piece) <= 1024 * 1024 for piece in got)
    empty = await any_repository.put_blob("study", pieces(b""))
    assert [piece async for piece in any_repository.read_blob("study", empty.sha256)] == []


async def test_a_blob_that_is_too_large_is_read_no_further_and_not_stored(any_repository, base):
    read = []

    async def endless():
        while True:
            read.append(1_000)
            yield bytes(1_000)

    with pytest.raises(TooLarge):
        await any_repository.put_blob("study", endless())
    assert sum(read) <= MAX_BLOB + 1_000
    digest = hashlib.sha256(bytes(MAX_BLOB + 1_000)).hexdigest()
    with pytest.raises(NotFound):
        await anext(aiter(any_repository.read_blob("study", digest)))


async def test_a_stream_that_breaks_stores_nothing(any_repository, base):
    async def broken():
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await any_repository.put_blob("study", broken())
    digest = hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(NotFound):
        await anext(aiter(any_repository.read_blob("study", digest)))


async def test_a_damaged_blob_is_tampered(any_repository, base):
    ref = await any_repository.put_blob("study", pieces(b"abc"))
    any_repository.damage_blob("study", ref.sha256)
    with pytest.raises(Tampered):
        _ = [piece async for piece in any_repository.read_blob("study", ref.sha256)]


async def test_a_node_can_verify_a_whole_revision_from_its_objects(any_repository, base):
    commit = await commit_of(any_repository, base)
    assert (commit.repo, commit.parents, commit.authors) == ("study", (), (EVE,))
    objects, waiting = {}, [commit.tree]
    while waiting:
        digest = waiting.pop()
        objects[digest] = await any_repository.directory("study", digest)
        waiting += children_of(decode_directory(objects[digest]))
    assert objects == build_tree(TreeEntry.of(p, body) for p, body in FILES.items()).objects


async def test_files_are_listed_in_order_by_folder_and_page(any_repository, base):
    rows = await any_repository.files("study", base)
    assert [row.path for row in rows] == sorted(FILES)
    for row in rows:
        body = await any_repository.read("study", base, row.path)
        assert (row.sha256, row.size) == (hashlib.sha256(body).hexdigest(), len(body))
    listed, after = [], ""
    for length in (1, 1, 1, 1, 0):
        page = await any_repository.files("study", base, after=after, limit=1)
        assert len(page) == length
        listed += [row.path for row in page]
        after = listed[-1]
    assert listed == sorted(FILES)
    for folder, expected in (("deep", 1), ("deep/er", 1), ("dee", 0), ("a.py", 0), ("", 4)):
        assert len(await any_repository.files("study", base, folder)) == expected


# -- ownership ---------------------------------------------------------------------------------


async def test_an_owner_that_was_replaced_writes_nothing_and_still_reads(any_repository, base):
    pending = await any_repository.propose(draft(base, edit(line3="three")))
    other = await any_repository.propose(draft(base, edit(line9="nine")))
    await land(any_repository, part_of(other))
    candidate = await any_repository.merge_many("study", [part_of(pending)])
    before = await everything(any_repository)
    any_repository.fence()
    name = BranchName("ada/x")
    for call in (
        any_repository.create_branch("study", name, base, ADA),
        any_repository.move_branch("study", name, base, base),
        any_repository.delete_branch("study", name, base),
        any_repository.propose(draft(base, edit(line5="five"))),
        any_repository.accept(part_of(pending), EVE),
        any_repository.withdraw(part_of(pending), EVE, "no"),
        any_repository.merge_many("study", [part_of(pending)]),
        any_repository.advance("study", candidate.revision, candidate.main),
        any_repository.revert(other.id, new_proposal_id(), EVE, "no"),
        any_repository.put_blob("study", pieces(b"abc")),
    ):
        with pytest.raises(Fenced):
            await call
    assert await everything(any_repository) == before
    assert (await any_repository.pending(pending.id)).state is PendingState.open


# -- against the simplest model ----------------------------------------------------------------

LINES = 3
STEPS = st.one_of(
    st.tuples(st.just("propose"), st.sets(st.integers(0, LINES - 1), min_size=2), st.booleans()),
    st.tuples(st.just("type"), st.integers(0, LINES - 1), st.booleans()),
    *(
        st.tuples(st.just(name), st.integers(0, 2), st.sets(st.integers(0, LINES - 1)))
        for name in ("accept", "withdraw", "land")
    ),
)


class Model:
    """Lines that are replaced by new ones, each between two that stay: a dictionary does it."""

    def __init__(self):
        self.live = [f"line {i}" for i in range(LINES)]
        self.main = list(self.live)
        self.proposals = []  # dictionaries: line -> [before, after, state]
        self.count = 0

    def fresh(self):
        self.count += 1
        return f"text {self.count}"

    @staticmethod
    def fits(target, line, before, after):
        return target[line] in (before, after)

    def chosen(self, proposal, lines):
        rows = self.proposals[proposal]
        return {i: rows[i] for i in rows if not lines & rows.keys() or i in lines}

    def accept(self, rows):
        if any(row[2] is HunkState.withdrawn for row in rows.values()):
            return Conflict
        fresh = {i: row for i, row in rows.items() if row[2] is HunkState.open}
        if not all(self.fits(self.live, i, *row[:2]) for i, row in fresh.items()):
            return Stale
        for i, row in fresh.items():
            self.live[i], row[2] = row[1], HunkState.accepted
        return None

    def land(self, rows):
        if any(row[2] is HunkState.withdrawn for row in rows.values()):
            return LeftOutReason.withdrawn
        fresh = {i: row for i, row in rows.items() if row[2] is not HunkState.promoted}
        if not fresh:
            return LeftOutReason.landed
        if not all(self.fits(self.main, i, *row[:2]) for i, row in fresh.items()):
            return LeftOutReason.stale
        for i, row in fresh.items():
            self.main[i] = row[1]
            if row[2] is HunkState.open and self.fits(self.live, i, *row[:2]):
                self.live[i] = row[1]
            row[2] = HunkState.promoted
        return None

    def withdraw(self, rows):
        for row in rows.values():
            row[2] = HunkState.withdrawn if row[2] is HunkState.open else row[2]


def body(lines):
    return "".join(f"{line}\nfixed {i}\n" for i, line in enumerate(lines))


class Story:
    """Does each step to a repository and to the model, and compares."""

    def __init__(self, repository):
        self.repository, self.model, self.ids = repository, Model(), []

    async def begin(self):
        files = {"a.py": body(self.model.live).encode()}
        await self.repository.create("study", files, EVE, "import")

    async def propose(self, lines, on_dev):
        base = await head(self.repository, DEV if on_dev else MAIN)
        before = (await self.repository.read("study", base, "a.py")).decode().splitlines()[::2]
        after = [self.model.fresh() if i in lines else line for i, line in enumerate(before)]
        rows = {i: [before[i], after[i], HunkState.open] for i in lines}
        proposal = draft(base, NewText(path="a.py", text=body(after)))
        if all(self.model.fits(self.model.live, i, *row[:2]) for i, row in rows.items()):
            await self.repository.propose(proposal)
            self.model.proposals.append(rows)
            self.ids.append(proposal.id)
        else:
            with pytest.raises(Stale):
                await self.repository.propose(proposal)

    async def type(self, line, alike):
        proposed = [rows[line][1] for rows in self.model.proposals if line in rows]
        self.model.live[line] = proposed[-1] if alike and proposed else self.model.fresh()
        self.repository.type_text("study", "a.py", body(self.model.live), KIM)

    async def part(self, number, lines):
        number %= len(self.ids)
        pending = await self.repository.pending(self.ids[number])
        chosen = self.model.chosen(number, lines)
        hunks = {h.start // 2: h for h in pending.hunks}
        return part_of(pending, PartChoice(hunks=tuple(hunks[i].id for i in chosen))), chosen

    async def accept(self, number, lines):
        part, rows = await self.part(number, lines)
        expected = self.model.accept(rows)
        if expected is None:
            await self.repository.accept(part, EVE)
        else:
            with pytest.raises(expected):
                await self.repository.accept(part, EVE)

    async def withdraw(self, number, lines):
        part, rows = await self.part(number, lines)
        self.model.withdraw(rows)
        await self.repository.withdraw(part, EVE, "no")

    async def land(self, number, lines):
        part, rows = await self.part(number, lines)
        candidate = await self.repository.merge_many("study", [part])
        reasons = [out.reason for out in candidate.left_out]
        assert reasons == [reason for reason in [self.model.land(rows)] if reason]
        await self.repository.advance("study", candidate.revision, candidate.main)

    async def compare(self):
        assert self.repository.live("study", "a.py").decode() == body(self.model.live)
        main = await head(self.repository, MAIN)
        text = (await self.repository.read("study", main, "a.py")).decode()
        assert text == body(self.model.main)
        for proposal, rows in zip(self.ids, self.model.proposals, strict=True):
            waiting = [(i, row) for i, row in rows.items() if row[2] is HunkState.open]
            misfits = [i for i, row in waiting if not self.model.fits(self.model.live, i, *row[:2])]
            pending = await self.repository.pending(proposal)
            assert sorted(c.start // 2 for c in pending.conflicts) == sorted(misfits)
            states = {h.start // 2: h.state for h in pending.hunks}
            assert states == {i: row[2] for i, row in rows.items()}
            at = {h.start // 2: h.at for h in pending.hunks if h.at}
            assert at == {i: 2 * i + 1 for i, _ in waiting if i not in misfits}


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, min_size=6, max_size=16))
def test_any_story_ends_as_a_dictionary_says(make_repository, steps):
    async def tell():
        story = Story(make_repository())
        await story.begin()
        for name, first, second in steps:
            if story.ids or name in {"propose", "type"}:
                await getattr(story, name)(first, second)
                await story.compare()

    asyncio.run(tell())
