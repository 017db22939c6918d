"""Who may write under a client id, and that a deleted document gets no more edits."""

from __future__ import annotations

import pycrdt
import pytest

from angelos.core.errors import NotFound, Refused
from angelos.core.ids import PrincipalId, new_proposal_id
from angelos.core.repository import DeleteFile, NewText

from .conftest import ADA, EVE, FILE, document

MAX = PrincipalId("person/max")


class Page:
    """A browser's page: it keeps what was typed until the server takes it."""

    def __init__(self, updates, client=None):
        self.doc = pycrdt.Doc(client_id=client) if client else pycrdt.Doc()
        self.text = self.doc.get("source", type=pycrdt.Text)
        for update in updates:
            self.doc.apply_update(update)

    def type(self, text: str) -> bytes:
        before = self.doc.get_state()
        self.text.insert(0, text)
        return self.doc.get_update(before)


@pytest.fixture
async def page(git, base):
    return Page(await git.room_updates(document(git, "study", "a.txt")))


async def merge(git, edit) -> None:
    proposal = new_proposal_id()
    head = await git.head("study", "dev")
    await git.propose(proposal, "study", head, [edit], ADA, "why")
    await git.merge(proposal)
    candidate = await git.candidate(proposal)
    await git.advance("study", candidate.revision, candidate.main)


async def live(git) -> str:
    return (await git.read_live("study", "a.txt")).decode()


async def test_new_edits_in_anothers_name_are_refused_and_old_ones_ignored(git, base, page):
    id_ = document(git, "study", "a.txt")
    first = page.type("eve ")
    await git.ingest(id_, first, EVE)
    forged = page.type("forged ")
    with pytest.raises(Refused, match=r"in the name of person/eve"):
        await git.ingest(id_, forged, MAX)
    assert await live(git) == "eve " + FILE
    await git.ingest(id_, first, MAX)  # a page sends everything that it has, on connecting
    await git.ingest(id_, forged, EVE)
    assert await live(git) == "forged eve " + FILE


async def test_a_client_id_keeps_its_writer_over_a_restart(start, base, git, page):
    id_ = document(git, "study", "a.txt")
    await git.ingest(id_, page.type("eve "), EVE)
    async with start() as again:
        with pytest.raises(Refused):
            await again.ingest(id_, page.type("forged "), MAX)


async def test_whoever_deletes_anothers_text_need_not_be_its_writer(git, base, page):
    id_ = document(git, "study", "a.txt")
    await git.ingest(id_, page.type("eve "), EVE)
    other = Page(await git.room_updates(id_))
    before = other.doc.get_update()
    del other.text[0:4]
    await git.ingest(id_, other.doc.get_update(Page([before]).doc.get_state()), MAX)
    assert await live(git) == FILE


async def test_an_agents_ids_are_taken_too(git, base, put, page):
    await put(base, "a.txt", FILE + "by ada\n")
    id_ = document(git, "study", "a.txt")
    writers = await git._live.writers.of(id_)
    (client,) = [client for client, writer in writers.items() if writer == ADA]
    forged = Page(await git.room_updates(id_), client)
    with pytest.raises(Refused):
        await git.ingest(id_, forged.type("x"), MAX)


async def test_a_page_of_a_deleted_document_is_refused_by_it_and_by_its_successor(
    git, base, page, rooms
):
    old = document(git, "study", "a.txt")
    room = await rooms.enter(git, "study", "a.txt")
    await merge(git, DeleteFile(path="a.txt"))
    assert not room.open
    with pytest.raises(NotFound, match=r"a\.txt was deleted"):
        await git.ingest(old, page.type("ghost "), EVE)
    await merge(git, NewText(path="a.txt", text="new\n"))
    new = document(git, "study", "a.txt")
    assert new != old
    with pytest.raises(Refused, match="another document"):
        await git.ingest(new, page.doc.get_update(), EVE)
    assert await live(git) == "new\n"
    fresh = Page(await git.room_updates(new))
    await git.ingest(new, fresh.type("typed "), EVE)
    assert await live(git) == "typed new\n"
