"""Parts of a proposal: taken as proposals of their own, withdrawn, and what is left."""

from __future__ import annotations

import json

import pytest

from angelos.core.errors import Conflict, InvalidInput, Stale
from angelos.core.facts import Kind
from angelos.core.ids import START, new_proposal_id
from angelos.core.pending import HunkState, PartChoice, PendingState, open_part, part_of
from angelos.core.repository import DeleteFile, MoveFile, NewText, SetMode
from angelos.core.revision_v2 import EntryMode

from .conftest import ADA, BOB, EVE, FILE

NAMES = ("one", "two", "three", "four", "five", "six", "seven")


def cell(name, source):
    return {
        "cell_type": "code", "execution_count": None, "id": name, "metadata": {}, "outputs": [],
        "source": source,
    }  # fmt: skip


def book(**sources):
    cells = [cell(name, sources.get(name, f"{name} = 1\n")) for name in NAMES]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
async def base(git):
    files = {"a.txt": FILE.encode(), "b/b.txt": b"b\n", "n.ipynb": book().encode()}
    return await git.create("study", files, EVE, "import")


@pytest.fixture
def propose(git, base):
    async def propose(*edits):
        proposal = new_proposal_id()
        await git.propose(proposal, "study", base, edits, ADA, "why")
        return proposal

    return propose


@pytest.fixture
def take(git):
    """Take a part and merge it, as an acceptance does; its proposal and the part."""

    async def take(proposal, **choice):
        part = open_part(await git.pending(proposal), PartChoice(**choice))
        taken = await git.take_part(part, new_proposal_id())
        await git.merge(taken.id)
        return taken, part

    return take


async def sources(git):
    return sources_of(await git.read_live("study", "n.ipynb"))


def sources_of(content):
    return {c["id"]: "".join(c["source"]) for c in json.loads(content)["cells"]}


def cells(*names):
    return {"cells": tuple(("n.ipynb", name) for name in names)}


async def promote(git, proposal):
    candidate = await git.candidate(proposal)
    await git.advance("study", candidate.revision, candidate.main)


async def test_three_of_seven_cells_are_accepted_and_four_stay_open(git, propose, take, rooms):
    changed = {name: f"{name} = 2\n" for name in NAMES}
    proposal = await propose(NewText(path="n.ipynb", text=book(**changed)))
    whole = await git.pending(proposal)
    taken, part = await take(proposal, **cells("one", "three", "five"))
    assert taken.author == ADA
    assert taken.digest == part.digest != whole.digest
    live = await sources(git)
    assert {n for n in NAMES if live[n].endswith("2\n")} == {"one", "three", "five"}
    pending = await git.pending(proposal)
    assert [h.id for h in pending.hunks] == [h.id for h in whole.hunks]
    assert (pending.state, pending.digest) == (PendingState.open, whole.digest)
    accepted = [h.cell for h in pending.hunks if h.state is HunkState.accepted]
    assert accepted == ["one", "three", "five"]
    # The same again is the same proposal, whoever asks and with whatever id.
    again = await git.take_part(part, new_proposal_id())
    assert again.id == taken.id
    with pytest.raises(Conflict, match="accepted already"):
        open_part(pending, PartChoice(**cells("one")))
    # main gets exactly the part, by its author.
    await promote(git, taken.id)
    main = await git.head("study", "main")
    text = sources_of(await git.read("study", main, "n.ipynb"))
    assert {n for n in NAMES if text[n].endswith("2\n")} == {"one", "three", "five"}
    assert (await git.commit("study", main)).authors == (ADA,)
    states = {h.cell: h.state for h in (await git.pending(proposal)).hunks}
    assert states["one"] is HunkState.promoted
    assert states["two"] is HunkState.open
    await promote(git, proposal)
    assert all(source.endswith("2\n") for source in (await sources(git)).values())
    assert (await git.pending(proposal)).state is PendingState.promoted


async def test_work_on_an_accepted_part_is_no_conflict_for_the_rest(
    git, base, propose, take, rooms
):
    text = FILE.replace("line 2\n", "two\n").replace("line 9\n", "nine\n")
    proposal = await propose(NewText(path="a.txt", text=text))
    first, _ = (await git.pending(proposal)).hunks
    taken, _ = await take(proposal, hunks=(first.id,))
    await promote(git, taken.id)
    other = new_proposal_id()
    main = await git.head("study", "main")
    later = NewText(path="a.txt", text=FILE.replace("line 2\n", "zwei\n"))
    await git.propose(other, "study", main, [later], BOB, "why")
    await promote(git, other)
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("zwei\n", "typed ")
    pending = await git.pending(proposal)
    assert (pending.state, pending.conflicts) == (PendingState.open, ())
    await promote(git, proposal)
    main = (await git.read("study", await git.head("study", "main"), "a.txt")).decode()
    assert main == FILE.replace("line 2\n", "zwei\n").replace("line 9\n", "nine\n")
    live = (await git.read_live("study", "a.txt")).decode()
    assert live == main.replace("zwei", "typed zwei")


async def test_reverting_the_whole_leaves_a_part_that_was_accepted_for_itself(git, propose, take):
    text = FILE.replace("line 2\n", "two\n").replace("line 9\n", "nine\n")
    proposal = await propose(NewText(path="a.txt", text=text))
    first, _ = (await git.pending(proposal)).hunks
    taken, _ = await take(proposal, hunks=(first.id,))
    await git.merge(proposal)
    assert (await git.read_live("study", "a.txt")).decode() == text
    await git.revert(proposal)
    live = (await git.read_live("study", "a.txt")).decode()
    assert live == FILE.replace("line 2\n", "two\n")
    await git.revert(taken.id)
    assert (await git.read_live("study", "a.txt")).decode() == FILE


async def test_what_is_rejected_leaves_the_proposal_for_good(git, propose, take, journal):
    changed = {name: f"{name} = 2\n" for name in NAMES[:4]}
    proposal = await propose(NewText(path="n.ipynb", text=book(**changed)))
    before = await git.candidate(proposal)
    pending = await git.pending(proposal)
    await take(proposal, **cells("four"))
    part = part_of(pending, PartChoice(**cells("one")))
    rest = await git.withdraw_part(part, EVE, "not this one")
    narrowed = await git.pending(proposal)
    assert narrowed.digest == rest.digest != pending.digest
    states = [(h.cell, h.state) for h in narrowed.hunks]
    assert sorted(states) == [
        ("four", HunkState.accepted), ("three", HunkState.open), ("two", HunkState.open),
    ]  # fmt: skip
    assert {h.id for h in narrowed.hunks} < {h.id for h in pending.hunks}
    facts = await journal.read(START, kinds=[Kind.proposal_narrowed])
    assert [(f.subject, f.actor, f.on_behalf_of) for f in facts] == [(proposal, EVE, ADA)]
    assert facts[0].plain()["digest"] == rest.digest
    with pytest.raises(Conflict, match="newer version"):
        await git.withdraw_part(part, EVE, "again")
    with pytest.raises(Conflict, match="newer version"):
        await git.take_part(part, new_proposal_id())
    with pytest.raises(Conflict, match="accepted already"):
        await git.withdraw_part(part_of(narrowed, PartChoice(**cells("four"))), EVE, "")
    after = await git.candidate(proposal)
    assert after.revision != before.revision
    with pytest.raises(Conflict, match="no candidate"):
        await git.advance("study", before.revision, before.main)
    await promote(git, proposal)
    assert {n for n, s in (await sources(git)).items() if s.endswith("2\n")} == {
        "two", "three", "four",
    }  # fmt: skip


async def test_files_are_parts_too(git, base, propose, take):
    proposal = await propose(
        MoveFile(path="a.txt", to="c.txt"),
        DeleteFile(path="b/b.txt"),
        SetMode(path="n.ipynb", executable=True),
        NewText(path="new.txt", text="new\n"),
    )
    await take(proposal, paths=("c.txt", "n.ipynb"))
    dev = {e.path: e.mode for e in await git.tree("study", await git.head("study", "dev"))}
    assert dev == {
        "b/b.txt": EntryMode.file, "c.txt": EntryMode.file, "n.ipynb": EntryMode.executable,
    }  # fmt: skip
    await take(proposal, paths=("b/b.txt",))
    await git.merge(proposal)
    dev = [e.path for e in await git.tree("study", await git.head("study", "dev"))]
    assert dev == ["c.txt", "n.ipynb", "new.txt"]


async def test_a_part_that_does_not_fit_is_refused_with_what_changed(git, propose, take, rooms):
    text = FILE.replace("line 2\n", "two\n").replace("line 9\n", "nine\n")
    proposal = await propose(NewText(path="a.txt", text=text))
    first, second = (await git.pending(proposal)).hunks
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 2\n", "typed ")
    await room.type("line 15\n", "also ")
    with pytest.raises(Stale) as error:
        await take(proposal, hunks=(first.id,))
    changed = [(h["start"], h["before"], h["after"]) for h in error.value.extra["changed"]]
    assert changed == [(2, "line 2\n", "typed line 2\n"), (15, "line 15\n", "also line 15\n")]
    await take(proposal, hunks=(second.id,))
    live = (await git.read_live("study", "a.txt")).decode()
    assert "typed line 2\n" in live
    assert "nine\n" in live


async def test_what_is_no_part_is_refused(git, propose):
    proposal = await propose(NewText(path="a.txt", text=FILE.replace("line 2\n", "two\n")))
    pending = await git.pending(proposal)
    with pytest.raises(InvalidInput, match="nothing of"):
        part_of(pending, PartChoice(**cells("one")))
    part = part_of(pending)
    with pytest.raises(InvalidInput, match="all of"):
        await git.withdraw_part(part, EVE, "")
    await git.merge(proposal)
    with pytest.raises(Conflict, match="merged"):
        await git.take_part(part, new_proposal_id())
