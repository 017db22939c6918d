"""A managed room without a server: order, overflow, a store that is away, an edit refused."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pycrdt import Doc, Text

from angelos.angelgit.documents.crdt import recorded
from angelos.client.rooms import clock_of
from angelos.core.errors import InvalidInput, NotFound, Refused, TooLarge
from angelos.core.ids import DocumentId, PrincipalId
from angelos.core.repository import DocumentAddress
from angelos.testing import eventually
from jupyter_ext.live import JupyterLiveDocuments
from jupyter_ext.rooms import room as rooms
from jupyter_ext.rooms.read_only import NOT_KEPT
from jupyter_ext.rooms.room import ManagedRoom
from jupyter_ext.rooms.ystore import ROOM, AngelYStore

NOTES = DocumentAddress("study", "notes.md", DocumentId("doc-1"))
ADA, BOB = PrincipalId("person/ada"), PrincipalId("person/bob")


class Log:
    """AngelGit's side: a list of updates."""

    def __init__(self, text: str = "base\n") -> None:
        doc = Doc(client_id=1)
        doc.get("source", type=Text).insert(0, text)
        self.updates = [doc.get_update()]
        self.failures: list[Exception] = []
        self.writers, self.extra = [], []
        self.printed: list[str] = []
        self.refusal: Exception | None = None
        self.opened = asyncio.Event()
        self.opened.set()

    async def room_updates(self, document):
        known = list(self.updates)
        await self.opened.wait()
        return known

    async def ingest(self, document, update, writer):
        if self.failures:
            raise self.failures.pop(0)
        self.updates.append(update)
        self.writers.append(writer)
        return self.extra.pop(0) if self.extra else b""

    async def write_file(self, document):
        if self.refusal is not None:
            raise self.refusal
        self.printed.append(self.text())
        return "sha"

    def text(self) -> str:
        doc = Doc()
        source = doc.get("source", type=Text)
        for update in self.updates:
            doc.apply_update(update)
        return str(source)


class File:
    path = "study/notes.md"

    def observe(self, *_):
        pass

    def unobserve(self, _):
        pass


class Events:
    def emit(self, **_):
        pass


class Client:
    path = "client"

    def __init__(self) -> None:
        self.closed = None
        self.messages: list[bytes] = []

    async def send(self, message):
        self.messages.append(message)

    def close(self, code, reason):
        self.closed = (code, reason)


class Channel(Client):
    """A client that says a few things and goes."""

    def __init__(self, says: list[bytes]) -> None:
        super().__init__()
        self.says = says

    async def __aiter__(self):
        for message in self.says:
            yield message


@pytest.fixture
async def made(monkeypatch):
    monkeypatch.setattr(rooms, "RETRY_S", (0.001,))
    log, live = Log(), JupyterLiveDocuments()
    room = ManagedRoom(
        "text:file:1", File(), Events(), AngelYStore(NOTES, log), live,
        logging.getLogger("room"),
    )  # fmt: skip
    await room.launch()
    yield room, log, live
    await room.stop()


def source(room) -> Text:
    return room.ydoc.get("source", type=Text)


async def test_what_is_typed_is_stored_in_order(made):
    room, log, _ = made
    await room.initialize()
    for letter in "abc":
        source(room).insert(0, letter)
    await room.flush()
    assert log.text() == "cbabase\n"


async def test_the_log_has_no_gap_from_the_rooms_own_words(made):
    room, log, _ = made
    await room.initialize()
    room._document.dirty = True
    await room.flush()
    doc = Doc()
    for update in log.updates:
        doc.apply_update(update)
    mine = room.ydoc.client_id
    assert clock_of(doc.get_state(), mine) == clock_of(room.ydoc.get_state(), mine) > 1


async def test_an_update_of_the_repository_is_not_stored_again(made):
    room, log, live = made
    await room.initialize()
    await room.flush()
    doc = Doc()
    for update in log.updates:
        doc.apply_update(update)
    found = []
    doc.observe(lambda event: found.append(bytes(event.update)))
    doc.get("source", type=Text).insert(0, "agent ")
    client = Client()
    room.clients.add(client)
    before = len(log.updates)
    assert await live.apply(NOTES.document, found[0])
    await room.flush()
    assert str(source(room)) == "agent base\n"
    assert len(log.updates) == before
    await asyncio.sleep(0)
    assert client.messages
    room.clients.remove(client)


async def test_an_update_while_the_room_opens_is_not_lost(made):
    room, log, live = made
    log.opened.clear()
    opening = asyncio.create_task(room.initialize())
    await eventually(live.rooms)
    doc = Doc()
    doc.apply_update(log.updates[0])
    found = []
    doc.observe(lambda event: found.append(bytes(event.update)))
    doc.get("source", type=Text).insert(0, "late ")
    assert await live.apply(NOTES.document, found[0])
    log.opened.set()
    await opening
    assert str(source(room)) == "late base\n"


def typed(log, text: str) -> bytes:
    """Return the update of a page that has read the log and types something at the beginning."""
    page = Doc()
    for update in log.updates:
        page.apply_update(update)
    updates = []
    page.observe(lambda event: updates.append(bytes(event.update)))
    page.get("source", type=Text).insert(0, text)
    return updates[0]


async def test_an_edit_is_applied_and_sent_once_the_log_has_it(made):
    room, log, _ = made
    await room.initialize()
    await room.flush()
    client = Client()
    room.clients.add(client)
    log.failures = [ConnectionError("away")]
    await room.receive(typed(log, "ada "), ADA, client)
    assert str(source(room)) == "base\n"
    await room.flush()
    assert str(source(room)) == "ada base\n" == log.text()
    assert log.writers == [ROOM, ADA]
    await eventually(lambda: client.messages)
    room.clients.remove(client)


async def test_what_the_log_adds_to_an_edit_is_applied_behind_it(made):
    room, log, _ = made
    await room.initialize()
    await room.flush()
    first = typed(log, "ada ")
    page = Doc()
    for update in [*log.updates, first]:
        page.apply_update(update)
    with recorded(page) as added:
        page.get("source", type=Text).insert(0, "carried ")
    log.extra = [added[0]]
    await room.receive(first, ADA, Client())
    await room.flush()
    assert str(source(room)) == "carried ada base\n"


async def test_clients_wait_while_the_room_holds_too_much(made, monkeypatch):
    room, log, _ = made
    monkeypatch.setattr(rooms, "MAX_PENDING", 2)
    await room.initialize()
    await room.flush()
    real, gate = log.ingest, asyncio.Event()

    async def ingest(*args):
        await gate.wait()
        return await real(*args)

    monkeypatch.setattr(log, "ingest", ingest)
    updates = [typed(log, letter) for letter in "abcdef"]
    client = Client()

    async def send():
        for update in updates:
            await room.receive(update, ADA, client)

    sending = asyncio.create_task(send())
    await eventually(lambda: len(room._pending) == 2)
    assert not sending.done()
    gate.set()
    await sending
    await room.flush()
    assert sorted(log.text()) == sorted("abcdefbase\n")


async def test_a_store_that_is_away_is_waited_for(made):
    room, log, _ = made
    await room.initialize()
    await room.flush()
    log.failures = [ConnectionError("away")] * 3
    source(room).insert(0, "kept ")
    await room.flush()
    assert log.text() == "kept base\n"


async def test_an_edit_that_cannot_be_kept_sends_its_author_away_and_nobody_else(made):
    room, log, live = made
    await room.initialize()
    await room.flush()
    sender, other = Client(), Client()
    room.clients.update({sender, other})
    first, second, third = typed(log, "huge "), typed(log, "more "), typed(log, "bob ")
    log.failures = [TooLarge("An update of notes.md is too large.")]
    await room.receive(first, ADA, sender)
    await room.receive(third, BOB, other)
    await room.flush()
    await room.receive(second, ADA, sender)  # it was on its way when the client was sent away
    await room.flush()
    assert sender.closed == (1003, NOT_KEPT)
    assert other.closed is None
    assert not room.refused
    assert live.rooms() == [room]
    assert log.text() == "bob base\n" == str(source(room))
    room.clients.clear()


async def test_an_edit_of_the_room_itself_that_cannot_be_kept_closes_it(made):
    room, log, live = made
    await room.initialize()
    await room.flush()
    client = Client()
    room.clients.add(client)
    log.failures = [TooLarge("An update of notes.md is too large.")]
    source(room).insert(0, "huge")
    await room.flush()
    assert room.refused
    assert client.closed[0] == 1003
    assert live.rooms() == []
    room.clients.remove(client)


@pytest.mark.parametrize("by", ["the repository", "an edit"])
async def test_the_room_of_a_deleted_document_is_closed_for_everybody(made, by):
    room, log, live = made
    await room.initialize()
    await room.flush()
    clients = [Client(), Client()]
    room.clients.update(clients)
    if by == "the repository":
        assert await live.close(NOTES.document, "This file was deleted.")
    else:
        log.failures = [NotFound("notes.md was deleted.")]
        await room.receive(typed(log, "late "), ADA, clients[0])
        await room.flush()
    assert all("This file was deleted" in client.closed[1] for client in clients)
    assert live.rooms() == []
    await room.receive(typed(log, "later "), ADA, clients[1])
    await room.flush()
    assert log.text() == "base\n"
    room.clients.clear()


async def test_a_room_that_is_stopped_while_the_store_is_away_says_what_becomes_of_its_edits(
    made, monkeypatch, caplog
):
    room, log, _ = made
    await room.initialize()
    await room.flush()

    async def away(*_):
        raise ConnectionError("away")

    monkeypatch.setattr(rooms, "FLUSH_S", 0.01)
    monkeypatch.setattr(log, "ingest", away)
    source(room).insert(0, "lost? ")
    await room.stop()
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert said.startswith("study/notes.md: stopped while its last edits cannot be stored.")


async def test_bytes_that_are_no_update_are_refused(made):
    room, log, _ = made
    await room.initialize()
    await room.flush()
    client = Client()
    room.clients.add(client)
    log.failures = [InvalidInput("The bytes are no update.")]
    await room.receive(b"\x01\x01\xff\xff", ADA, client)
    await room.receive(b"\x01\x01\xff\xff", ADA, client)
    await room.flush()
    assert client.closed == (1003, NOT_KEPT)
    assert log.text() == "base\n"
    room.clients.clear()


async def test_what_was_typed_is_stored_before_the_file_is_written(made):
    room, log, _ = made
    await room.initialize()
    source(room).insert(0, "typed ")
    await room._save_to_disc()
    assert log.printed == ["typed base\n"]
    assert (room._document.hash, room._document.dirty) == ("sha", False)


async def test_whoever_saves_is_told_that_it_failed_and_nobody_else(made):
    room, log, _ = made
    await room.initialize()
    log.refusal = Refused("A symbolic link is in the way.")
    with pytest.raises(Refused):
        await room._save_to_disc()
    room._save_delay = 0
    await room._maybe_save_document(None)  # the same by itself: it is in the server's log


async def test_a_change_on_disk_is_looked_at_even_where_nobody_saves_by_itself(made):
    room, log, _ = made
    await room.initialize()
    room._save_delay = 0
    room.awareness.set_local_state({"autosave": False})
    await room._on_outofband_change()
    await eventually(lambda: log.printed)


async def test_a_room_that_is_cancelled_stores_what_it_holds():
    log, live = Log(), JupyterLiveDocuments()
    room = ManagedRoom(
        "text:file:1", File(), Events(), AngelYStore(NOTES, log), live,
        logging.getLogger("room"),
    )  # fmt: skip
    await room.launch()
    await room.initialize()
    source(room).insert(0, "last words ")
    room._running.cancel()
    await asyncio.wait([room._running])
    assert log.text() == "last words base\n"
