"""What a person types reaches main under their name, and is committed by itself."""

from __future__ import annotations

import pycrdt
import pytest

from angelos.angelgit.changes.resting import MOST_S, REST_S
from angelos.core.errors import Stale
from angelos.core.ids import PrincipalId, new_proposal_id
from angelos.core.repository import NewText

from .conftest import ADA, EVE, FILE, document

MAX = PrincipalId("person/max")


async def propose(git, base, text, author=EVE):
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [NewText(path="a.txt", text=text)], author, "why")
    return proposal


async def authors(git):
    return (await git.commit("study", await git.head("study", "dev"))).authors


async def promote(git, proposal):
    candidate = await git.candidate(proposal)
    await git.advance("study", candidate.revision, candidate.main)


async def test_what_dev_has_committed_is_proposed_for_main(git, base, rooms):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 3", "typed ")
    await git._transactions.commit_typed("study")
    live = str(room.text)
    proposal = await propose(git, await git.head("study", "dev"), live)
    assert (await git.pending(proposal)).base == base
    await promote(git, proposal)
    assert await git.read("study", await git.head("study", "main"), "a.txt") == live.encode()


@pytest.mark.parametrize("branch", ["main", "dev"])
async def test_ones_own_live_text_is_never_stale_and_stays_as_it_is(git, base, rooms, branch):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 3", "typed ")
    live = str(room.text)
    proposal = await propose(git, await git.head("study", branch), live)
    assert (await git.pending(proposal)).conflicts == ()
    state = room.doc.get_state()
    await promote(git, proposal)
    assert await git.read("study", await git.head("study", "main"), "a.txt") == live.encode()
    assert str(room.text) == live
    assert room.doc.get_state() == state, "what was typed is what main has, not a copy of it"


async def test_what_is_typed_while_it_waits_stays_in_dev_only(git, base, rooms):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 3", "typed ")
    proposed = str(room.text)
    proposal = await propose(git, base, proposed)
    await room.type("line 3", "more ")
    await room.type("line 9", "late ")
    await promote(git, proposal)
    assert await git.read("study", await git.head("study", "main"), "a.txt") == proposed.encode()
    assert "typed more line 3\n" in str(room.text)
    assert "late line 9\n" in str(room.text)


async def test_a_waiting_proposal_is_in_no_document_until_it_is_promoted(git, base, rooms):
    room = await rooms.enter(git, "study", "a.txt")
    dev = await git.head("study", "dev")
    proposal = await propose(git, base, FILE.replace("line 2\n", "two\n"), ADA)
    assert str(room.text) == FILE == (await git.read_live("study", "a.txt")).decode()
    assert await git.head("study", "dev") == dev
    await room.type("line 1\n", "above\n")
    (pending,) = await git.list_pending("study", "a.txt")
    assert (pending.id, pending.conflicts) == (proposal, ())
    ((start, at, after),) = [(h.start, h.at, h.after) for h in pending.hunks]
    assert (start, at, after) == (2, 3, "two\n")
    await room.type("line 2\n", "my ")
    (pending,) = await git.list_pending("study")
    assert pending.state == "stale"
    assert pending.conflicts[0].current == "my line 2\n"
    with pytest.raises(Stale):
        await git.merge(proposal)
    await promote(git, proposal)  # main was judged; people's text stays
    assert "my line 2\n" in str(room.text)
    assert await git.list_pending("study") == []


async def test_a_withdrawn_proposal_enters_nothing(git, base):
    proposal = await propose(git, base, FILE.replace("line 2\n", "two\n"), ADA)
    await git.withdraw(proposal)
    await git.withdraw(proposal)
    assert (await git.pending(proposal)).state == "withdrawn"
    assert await git.list_pending("study") == []
    assert (await git.read_live("study", "a.txt")).decode() == FILE


async def test_typing_is_committed_by_itself_under_the_peoples_names(git, base, rooms, clock):
    room = await rooms.enter(git, "study", "a.txt")
    id_ = document(git, "study", "a.txt")
    await room.type("line 1", "eve ")
    updates = await git.room_updates(id_)
    await git._resting.commit_due()
    assert await git.head("study", "dev") == base, "somebody may still be typing"
    page = pycrdt.Doc()
    text = page.get("source", type=pycrdt.Text)
    for update in updates:
        page.apply_update(update)
    before = page.get_state()
    text.insert(0, "max ")
    await git.ingest(id_, page.get_update(before), MAX)
    clock.advance(REST_S)
    await git._resting.commit_due()
    assert await authors(git) == (EVE, MAX)
    await room.type("line 1", "x")
    clock.advance(MOST_S)
    await git._resting.commit_due()
    assert await authors(git) == (EVE,)
