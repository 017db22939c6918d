"""Several servers share the stores: one at a time owns a repository, and nobody else writes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from angelos.angelgit.changes import takeover
from angelos.angelgit.changes.takeover import OwnedRepositories
from angelos.angelgit.service import AngelGit
from angelos.angelgit.storage.log import DocumentLog
from angelos.core.errors import Conflict, Fenced, Unavailable
from angelos.core.ids import Offset, new_proposal_id
from angelos.core.repository import MoveFile, NewText
from angelos.testing import eventually

from .conftest import ADA, EVE, FILE, Rooms

CHANGED = FILE.replace("line 15\n", "line fifteen\n")


class Server:
    """One of the servers, with rooms and a folder of its own."""

    def __init__(self, git, rooms, folder):
        self.git, self.rooms, self.folder = git, rooms, folder

    async def look(self):
        await self.git._owned.look()

    async def enter(self, path="a.txt"):
        return await self.rooms.enter(self.git, "study", path)

    async def live(self, path="a.txt"):
        return (await self.git.read_live("study", path)).decode()

    def disk(self, path="a.txt"):
        return (self.folder / "study" / path).read_text()


async def _never(_):
    await asyncio.Event().wait()


@pytest.fixture
async def start(database, valkey, journal, clock, key, tmp_path, monkeypatch):
    """Start a server that looks after its leases only when the test says so."""
    monkeypatch.setattr(OwnedRepositories, "_run", _never)
    monkeypatch.setattr(takeover, "RENEW_S", 3_600.0)
    async with AsyncExitStack() as stack:

        async def start(name):
            rooms, folder = Rooms(), tmp_path / name / "ws"
            git = AngelGit(database, valkey, key, clock, journal, folder, rooms, server=name)
            return Server(await stack.enter_async_context(git), rooms, folder)

        yield start


@pytest.fixture
def expire(database):
    """Let all leases expire, as when their owners are paused."""

    def expire():
        with psycopg.connect(database.dsn) as connection:
            connection.execute("update lease set expires_at = expires_at - interval '1 minute'")

    return expire


@pytest.fixture
async def first(start):
    server = await start("first")
    await server.git.create("study", {"a.txt": FILE.encode(), "b.txt": b"b\n"}, EVE, "import")
    return server


async def test_a_paused_owner_is_fenced_and_nothing_is_lost_or_doubled(first, start, expire):
    base = await first.git.head("study", "main")
    proposal = new_proposal_id()
    edit = [NewText(path="a.txt", text=CHANGED)]
    await first.git.propose(proposal, "study", base, edit, ADA, "why")
    page = await first.enter()
    await page.type("line 1\n", "typed ")
    second = await start("second")
    await second.look()  # the first one's lease is good
    for ask in (
        second.live,
        lambda: second.git.merge(proposal),
        lambda: second.git.room_updates(page.document),
        lambda: second.git.files_below("study", ""),
    ):
        with pytest.raises((Unavailable, Fenced)):
            await ask()
    with pytest.raises(Unavailable, match="first"):
        second.git.locate("study/a.txt")
    assert await second.git.head("study", "main") == base
    with pytest.raises(Conflict):
        await second.git.create("STUDY", {"x.txt": b"x\n"}, EVE, "import")

    expire()
    await second.look()
    assert "typed line 1\n" in await second.live()
    other = await second.enter()
    await other.type("line 2\n", "more ")
    written = [
        lambda: page.type("line 3\n", "lost? "),
        lambda: first.git.merge(proposal),
        lambda: first.git.withdraw(proposal),
        lambda: first.git.candidate(proposal),
        lambda: first.git.rollback("study", base, EVE, "why"),
        lambda: first.git.edit_dev("study", [MoveFile(path="b.txt", to="c.txt")], EVE, "m"),
        lambda: first.git.create_branch("study", "eve/x", base, EVE),
        lambda: first.git.propose(new_proposal_id(), "study", base, edit, ADA, "again"),
        lambda: first.git._transactions.commit_typed("study"),
    ]
    for write in written:
        with pytest.raises((Fenced, Conflict)) as refused:
            await write()
        assert refused.type is Fenced or write is written[4]  # main has that tree already
    await second.git.merge(proposal)
    text = await second.live()
    assert [text.count(part) for part in ("typed ", "more ", "lost? ", "fifteen")] == [1, 1, 0, 1]

    await first.look()  # and is told at last
    assert not page.open
    with pytest.raises(Unavailable, match="second"):
        await first.live()
    # What its page still holds arrives once, wherever the page connects next.
    update = page.doc.get_update()
    await second.git.ingest(page.document, update, EVE)
    await second.git.ingest(page.document, update, EVE)
    assert (await second.live()).count("lost? ") == 1

    expire()
    await first.look()
    assert await first.live() == text.replace("line 3\n", "lost? line 3\n")
    assert first.disk() == await first.live()
    with pytest.raises(Fenced):
        await other.type("line 4\n", "too late ")
    assert (await first.git.verify("study")).damage == ()


async def test_what_the_old_owner_committed_but_did_not_log_appears_once(
    first, start, expire, monkeypatch
):
    base, proposal = await first.git.head("study", "main"), new_proposal_id()
    await first.git.propose(
        proposal, "study", base, [NewText(path="a.txt", text=CHANGED)], ADA, "why"
    )
    second = await start("second")
    append, paused = DocumentLog.append, asyncio.Event()
    reached = asyncio.Event()

    async def pausing(self, repo, entries):
        if self is first.git._live.log:
            reached.set()
            await paused.wait()
        return await append(self, repo, entries)

    monkeypatch.setattr(DocumentLog, "append", pausing)
    merging = asyncio.create_task(first.git.merge(proposal))
    await reached.wait()
    expire()
    await second.look()
    assert (await second.live()) == CHANGED
    paused.set()
    with pytest.raises(Fenced):
        await merging
    await first.look()
    assert (await second.live()) == CHANGED
    assert await second.git.merge(proposal) == await second.git.head("study", "dev")


async def test_what_takes_long_in_one_repository_costs_no_other_its_lease(
    start, expire, database, monkeypatch
):
    """An import, or the opening of a large repository, may take longer than a lease lasts."""
    monkeypatch.setattr(takeover, "RENEW_S", 0.01)
    server = await start("first")
    await server.git.create("study", {"a.txt": FILE.encode()}, EVE, "import")

    def good():
        with psycopg.connect(database.dsn) as connection:
            query = "select count(*) from lease where expires_at > clock_timestamp()"
            return connection.execute(query).fetchone() == (2,)

    async with server.git._owned.claimed("large"):
        expire()
        await eventually(good, "both leases are renewed")


async def test_what_a_collection_elsewhere_set_back_is_there_after_a_return(
    first, start, expire, monkeypatch
):
    monkeypatch.setattr("angelos.angelgit.storage.live._COMPACT_AFTER", 1)
    page = await first.enter()
    await page.type("line 1\n", "typed ")  # the snapshot has a position in the log now
    second = await start("second")
    expire()
    await second.look()
    await first.look()
    assert (await second.git.collect("study", 5, dry_run=False)).streams == 1
    text = await second.live()
    expire()
    await first.look()
    assert await first.live() == text == first.disk()
    assert "typed line 1\n" in text


async def test_an_old_owner_trims_nothing(first, start, expire):
    """The new one may have begun a stream anew, at a lower position where a clock was set back."""
    page = await first.enter()
    await page.type("line 1\n", "typed ")
    second = await start("second")
    expire()
    await second.look()
    with pytest.raises(Fenced):
        await first.git._live.log.trim("study", page.document, Offset("9999999999999-0"))
    assert "typed line 1\n" in await second.live()


async def test_a_new_owner_waits_for_a_transaction_that_has_checked(first, start, expire):
    second = await start("second")
    expire()
    async with first.git._stores.change("study"):
        taking = asyncio.create_task(second.git._leases.acquire("study"))
        done, _ = await asyncio.wait([taking], timeout=0.3)
        assert not done
    await taking
    with pytest.raises(Fenced):
        async with first.git._stores.change("study"):
            pass


async def test_keystrokes_survive_many_owners(first, start, expire):
    """A page that changes servers as they take over from each other: each word once."""
    servers = [first, await start("second"), await start("third")]
    page = await first.enter()
    words = [f"w{number}," for number in range(30)]
    owner = 0
    for number, word in enumerate(words):
        if number % 4 == 3:
            expire()
            owner = (owner + 1) % 3
            await servers[owner].look()
        page.text.insert(0, word)
        update = page.doc.get_update()
        for server in (servers[owner - 1], servers[owner]):  # the old one first
            try:
                await server.git.ingest(page.document, update, EVE)
            except (Fenced, Unavailable):
                assert server is not servers[owner]
    text = await servers[owner].live()
    assert text == "".join(reversed(words)) + FILE
    for server in servers:
        await server.look()
    expire()
    await servers[0].look()
    assert await servers[0].live() == text == servers[0].disk()


async def test_an_owner_whose_log_lost_its_epoch_reads_again(first, valkey):
    page = await first.enter()
    await page.type("line 1\n", "typed ")
    await valkey.delete("angelgit-owner:{study}")
    with pytest.raises(Fenced):
        await page.type("line 2\n", "refused ")
    await first.look()
    assert "typed line 1\n" in await first.live()
    await (await first.enter()).type("line 2\n", "again ")
    assert "refused" not in await first.live()


async def test_a_server_that_ends_gives_its_repositories_back(start, database, valkey, first):
    second = await start("second")
    await first.git._leases.release_all()
    await second.look()
    assert await second.live() == FILE
    assert second.disk() == FILE


async def test_a_second_process_of_the_same_name_is_not_robbed(first, start):
    """Whoever runs by mistake on a copy of the name is fenced, and stays so."""
    again = await start("first")
    await first.look()
    with pytest.raises(Unavailable):
        await first.live()
    await first.look()
    await again.look()
    assert await again.live() == FILE


async def test_whoever_is_fenced_hands_over_at_once(first, start, expire, monkeypatch):
    monkeypatch.undo()
    owned = first.git._owned
    task = asyncio.create_task(owned._run())
    page = await first.enter()
    second = await start("second")
    expire()
    await second.look()
    with pytest.raises(Fenced):
        await page.type("line 1\n", "late ")
    await eventually(lambda: not page.open, "the room is closed")
    task.cancel()
    await asyncio.wait([task])
