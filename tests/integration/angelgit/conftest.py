from __future__ import annotations

from contextlib import asynccontextmanager

import pycrdt
import pytest

from angelos.angelgit.service import AngelGit
from angelos.core.ids import PrincipalId, new_proposal_id
from angelos.core.repository import NewText
from angelos.core.signing import SigningKey
from angelos.testing import eventually

ADA, BOB, EVE = PrincipalId("agent/ada"), PrincipalId("agent/bob"), PrincipalId("person/eve")
FILE = "".join(f"line {i}\n" for i in range(1, 21))


class Room:
    """A browser's room: a document of its own that hands every edit to `ingest`."""

    def __init__(self, git, repo, path):
        self.git, self.repo, self.path = git, repo, path
        self.doc = pycrdt.Doc()
        self.text = self.doc.get("source", type=pycrdt.Text)
        self.open = False

    async def enter(self):
        self.document = document(self.git, self.repo, self.path)
        for update in await self.git.room_updates(self.document):
            self.doc.apply_update(update)
        self.open = True
        return self

    async def type(self, before: str, text: str):
        """Put `text` in front of `before`."""
        updates = []
        subscription = self.doc.observe(lambda event: updates.append(bytes(event.update)))
        at = len(str(self.text).partition(before)[0].encode())
        self.text.insert(at, text)
        self.doc.unobserve(subscription)
        for update in updates:
            await self.git.ingest(self.document, update, EVE)


class Rooms:
    """`LiveDocuments` that behaves as Jupyter's rooms do: what it applies comes back."""

    def __init__(self):
        self.rooms = {}

    async def apply(self, document, update):
        room = self.rooms.get(document)
        if room is None or not room.open:
            return False
        room.doc.apply_update(update)
        await room.git.ingest(document, update, EVE)
        return True

    async def close(self, document, reason):
        room = self.rooms.pop(document, None)
        if room is not None:
            room.open = False
        return room is not None

    async def enter(self, git, repo, path):
        room = await Room(git, repo, path).enter()
        self.rooms[room.document] = room
        return room


def document(git, repo, path):
    """Return the id of the document at a path."""
    return git.locate(f"{repo}/{path}").document


async def queued(git, document, count):
    """Wait until so many wait for a document that the test holds."""
    lock = git._live._locks[document]
    await eventually(lambda: len(lock._waiters or ()) == count, f"{count} waiters")


@pytest.fixture
def key():
    return SigningKey(b"k" * 32)


@pytest.fixture
def rooms():
    return Rooms()


@pytest.fixture
def start(database, valkey, journal, clock, key, rooms, tmp_path):
    """Start AngelGit on the test's stores; again and again, as after a kill."""

    @asynccontextmanager
    async def start():
        rooms.rooms.clear()
        async with AngelGit(database, valkey, key, clock, journal, tmp_path / "ws", rooms) as git:
            yield git

    return start


@pytest.fixture
async def git(start):
    async with start() as git:
        yield git


@pytest.fixture
async def base(git):
    return await git.create("study", {"a.txt": FILE.encode(), "b/b.txt": b"b\n"}, EVE, "import")


@pytest.fixture
def put(git):
    """Propose and merge a new text; the proposal's id."""

    async def put(base, path, text, author=ADA, repo="study"):
        proposal = new_proposal_id()
        await git.propose(proposal, repo, base, [NewText(path=path, text=text)], author, "why")
        await git.merge(proposal)
        return proposal

    return put
