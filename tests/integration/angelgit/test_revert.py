"""One proposal is taken back around later work, and the taking back is taken back."""

from __future__ import annotations

import pytest

from angelos.core.errors import Conflict, Stale
from angelos.core.ids import new_proposal_id
from angelos.core.repository import DeleteFile, MoveFile, NewText, ProposalOrigin, SetMode
from angelos.core.revision_v2 import EntryMode, TrailerKey

from .conftest import ADA, BOB, EVE, FILE


@pytest.fixture
def promote(git):
    """Propose edits on the present main and promote them; the proposal's id."""

    async def promote(*edits, author=ADA, reverts=None, base=None):
        proposal = new_proposal_id()
        base = base or await git.head("study", "main")
        origin = ProposalOrigin(reverts=reverts)
        await git.propose(proposal, "study", base, edits, author, "why", origin)
        candidate = await git.candidate(proposal)
        await git.advance("study", candidate.revision, candidate.main)
        return proposal

    return promote


async def take_back(git, promote, proposal):
    draft = await git.revert_draft(proposal)
    return await promote(*draft.edits, author=EVE, reverts=proposal, base=draft.base)


async def files(git, branch="main"):
    revision = await git.head("study", branch)
    entries = await git.tree("study", revision)
    return {e.path: (e.mode, await git.read("study", revision, e.path)) for e in entries}


async def test_one_is_taken_back_around_later_work_and_brought_back(git, base, promote, rooms):
    first = await promote(NewText(path="a.txt", text=FILE.replace("line 2\n", "two\n")))
    text = FILE.replace("line 2\n", "two\n").replace("line 9\n", "nine\n")
    await promote(NewText(path="a.txt", text=text), author=BOB)
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 15", "typed\n")
    undo = await take_back(git, promote, first)
    later = FILE.replace("line 9\n", "nine\n")
    main = await git.head("study", "main")
    assert (await git.read("study", main, "a.txt")).decode() == later
    assert str(room.text) == later.replace("line 15", "typed\nline 15")
    commit = await git.commit("study", main)
    assert (commit.authors, commit.trailer(TrailerKey.reverts)) == ((EVE,), first)
    with pytest.raises(Conflict, match="left in main"):
        await git.revert_draft(first)
    again = await take_back(git, promote, undo)
    main = await git.head("study", "main")
    assert (await git.read("study", main, "a.txt")).decode() == text
    assert str(room.text) == text.replace("line 15", "typed\nline 15")
    await take_back(git, promote, again)
    main = await git.head("study", "main")
    assert (await git.read("study", main, "a.txt")).decode() == later


async def test_every_kind_of_change_is_taken_back(git, base, promote):
    before = await files(git)
    proposal = await promote(
        MoveFile(path="a.txt", to="c/d.txt"),
        SetMode(path="b/b.txt", executable=True),
        NewText(path="n.txt", text="n\n"),
    )
    after = await files(git)
    assert after["b/b.txt"][0] is EntryMode.executable
    assert after["c/d.txt"] == before["a.txt"]
    assert await git.read_live("study", "c/d.txt") == FILE.encode()
    undo = await take_back(git, promote, proposal)
    assert await files(git) == await files(git, "dev") == before
    await take_back(git, promote, undo)
    assert await files(git) == await files(git, "dev") == after


async def test_a_document_that_moves_is_the_same_document(git, base, promote, rooms):
    document = git.locate("study/a.txt").document
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 9", "typed\n")
    await promote(MoveFile(path="a.txt", to="moved.txt"))
    assert git.locate("study/a.txt") is None
    assert git.locate("study/moved.txt").document == document
    assert (await git.read_live("study", "moved.txt")).decode() == str(room.text)
    assert "typed\nline 9" in str(room.text)


async def test_later_work_on_the_same_lines_is_not_taken_back_with_it(git, base, promote):
    proposal = await promote(NewText(path="a.txt", text=FILE.replace("line 2\n", "two\n")))
    deleted = await promote(DeleteFile(path="b/b.txt"))
    await promote(NewText(path="a.txt", text=FILE.replace("line 2\n", "TWO\n")))
    await promote(NewText(path="b/b.txt", text="another\n"))
    for older in (proposal, deleted):
        with pytest.raises(Stale) as error:
            await git.revert_draft(older)
        assert error.value.extra["conflicts"]


async def test_what_waits_is_not_reverted(git, base):
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [NewText(path="n", text="n")], ADA, "why")
    with pytest.raises(Conflict, match="proposed"):
        await git.revert_draft(proposal)


async def test_a_candidate_never_has_a_commit_of_dev_as_ancestor(git, base, promote, rooms):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 9", "typed\n")
    accepted = new_proposal_id()
    edit = NewText(path="b/b.txt", text="accepted\n")
    await git.propose(accepted, "study", base, [edit], ADA, "why")
    dev = await git.merge(accepted)
    text = (await git.read("study", dev, "a.txt")).decode() + "more\n"
    proposal = new_proposal_id()
    await git.propose(proposal, "study", dev, [NewText(path="a.txt", text=text)], BOB, "why")
    candidate = await git.candidate(proposal)
    commit = await git.commit("study", candidate.revision)
    assert commit.parents == (base,)
    assert commit.trailer(TrailerKey.dev_base) == dev
    assert (await git.read("study", candidate.revision, "a.txt")).decode() == FILE + "more\n"
    assert await git.read("study", candidate.revision, "b/b.txt") == b"b\n"
    await git.advance("study", candidate.revision, base)
    merged = await git.commit("study", await git.head("study", "dev"))
    assert merged.parents == (dev, candidate.revision)
    assert await git.history("study", "main") == [candidate.revision, base]
