"""Killed between any two steps: nothing acknowledged is lost, no half merge stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from angelos.angelgit.changes.commits import CommitWriter
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.log import DocumentLog
from angelos.angelgit.storage.models import ROOM
from angelos.angelgit.storage.store import Store
from angelos.angelgit.worktree.activity import DocumentActivity
from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import START, new_proposal_id
from angelos.core.repository import DeleteFile, NewText
from angelos.testing import need

from .conftest import ADA, EVE, FILE, document

PROPOSED = FILE.replace("line 5\n", "line five\n")


def broken(monkeypatch, owner, name, *, before: bool):
    """Let a step fail before or after it has done its work, once `fail` is set."""
    real, state = getattr(owner, name), {"fail": False}

    async def step(self, *args, **kwargs):
        if state["fail"] and before:
            raise Unavailable("killed")
        result = await real(self, *args, **kwargs)
        if state["fail"]:
            raise Unavailable("killed")
        return result

    monkeypatch.setattr(owner, name, step)
    return state


STEPS = [
    (CommitWriter, "commit_typed", True), (CommitWriter, "commit_typed", False),
    (Store, "update_tree", False), (Store, "add_documents", True), (Store, "add_facts", False),
    (LiveReplicas, "append_committed", True), (DocumentLog, "append", True),
    (DocumentLog, "append", False), (LiveReplicas, "append_committed", False),
    (Transactions, "publish", True), (FactOutbox, "flush", True), (Store, "clear_updates", False),
    (LiveReplicas, "compacted", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "again"),
    [("merge", "retry"), ("merge", "restart"), ("revert", "restart"), ("rollback", "restart")],
)
@pytest.mark.parametrize(("owner", "name", "before"), STEPS)
async def test_an_interrupted_transaction_happens_once(  # noqa: PLR0917
    start, rooms, journal, monkeypatch, tmp_path, owner, name, before, again, what
):
    proposal = new_proposal_id()
    edits = [
        NewText(path="a.txt", text=PROPOSED),
        NewText(path="n.txt", text="n\n"),
        DeleteFile(path="b.txt"),
    ]

    async def act(git):
        if what == "rollback":
            return await git.rollback("study", base, EVE, "why")
        return await (git.merge if what == "merge" else git.revert)(proposal)

    async with start() as git:
        base = await git.create("study", {"a.txt": FILE.encode(), "b.txt": b"b\n"}, EVE, "import")
        await git.propose(proposal, "study", base, edits, ADA, "why")
        if what != "merge":
            await git.merge(proposal)
        if what == "rollback":
            await git.advance("study", (await git.candidate(proposal)).revision, base)
        room = await rooms.enter(git, "study", "a.txt")
        await room.type("line 9", "typed\n")
        length = len(await git.history("study", "dev"))
        fault = broken(monkeypatch, owner, name, before=before)
        fault["fail"] = True
        failed = None
        try:
            await act(git)
        except Unavailable as error:
            failed = error
        fault["fail"] = False
        if again == "retry":
            room.open = False
            with contextlib.suppress(Exception) if what == "rollback" else contextlib.nullcontext():
                await act(git)
    async with start() as git:
        with contextlib.suppress(Exception) if what == "rollback" else contextlib.nullcontext():
            await act(git)
        done = what == "merge"
        text = PROPOSED if done else FILE
        want = {"a.txt": text.replace("line 9", "typed\nline 9")}
        want |= {"n.txt": "n\n"} if done else {"b.txt": "b\n"}
        dev = await git.head("study", "dev")
        for path, content in want.items():
            assert (await git.read_live("study", path)).decode() == content, failed
            assert (await git.read("study", dev, path)).decode() == content
            assert (tmp_path / "ws/study" / path).read_text() == content
        assert [e.path for e in await git.tree("study", dev)] == sorted(want)
        assert not (tmp_path / "ws/study" / ("b.txt" if done else "n.txt")).exists()
        # One commit of what was typed, one of the move.
        assert len(await git.history("study", "dev")) == length + 2
        facts = await journal.read(START, kinds=[Kind.branch_advanced])
        heads = [f.revision for f in facts if f.subject == "study:dev"]
        assert heads == list(reversed(await git.history("study", "dev")))
        if what == "rollback":
            assert len(await git.history("study", "main")) == 3
            main = await git.head("study", "main")
            assert await git.tree("study", main) == await git.tree("study", base)


async def test_typing_survives_a_kill(start, rooms, monkeypatch, tmp_path):
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        for i in range(20):
            await room.type("line 9", f"typed {i}\n")
        git._typed_files.clear()  # as if nobody had had the time to write the file
        typed = str(room.text)
    async with start() as git:
        assert (await git.read_live("study", "a.txt")).decode() == typed
        assert (tmp_path / "ws/study/a.txt").read_text() == typed
        room = await rooms.enter(git, "study", "a.txt")
        assert str(room.text) == typed
        await room.type("line 1", "more\n")
        assert (await git.read_live("study", "a.txt")).decode() == "more\n" + typed


async def test_an_edit_that_was_not_logged_is_not_in_the_document(start, rooms, monkeypatch):
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        fault = broken(monkeypatch, DocumentLog, "append", before=True)
        fault["fail"] = True
        with pytest.raises(Unavailable):
            await room.type("line 9", "lost\n")
        fault["fail"] = False
        assert (await git.read_live("study", "a.txt")).decode() == FILE
        # The room still has it; its next whole state brings it.
        await git.ingest(document(git, "study", "a.txt"), room.doc.get_update(), EVE)
        assert (await git.read_live("study", "a.txt")).decode() == str(room.text)


async def test_long_typing_is_compacted_and_replays_the_same(start, rooms, monkeypatch, valkey):
    monkeypatch.setattr("angelos.angelgit.storage.live._COMPACT_AFTER", 10)
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        for i in range(35):
            await room.type("line 9", f"{i} ")
        (stream,) = await valkey.keys("angelgit:*")
        assert await valkey.xlen(stream) < 12
    async with start() as git:
        assert (await git.read_live("study", "a.txt")).decode() == str(room.text)


async def test_no_snapshot_is_taken_over_a_gap(start, rooms, monkeypatch):
    monkeypatch.setattr("angelos.angelgit.storage.live._COMPACT_AFTER", 1)
    updates = []
    async with start() as git:
        base = await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        subscription = room.doc.observe(lambda event: updates.append(bytes(event.update)))
        room.text.insert(0, "first ")
        room.text.insert(6, "second ")
        room.doc.unobserve(subscription)
        room.open = False
        await git.ingest(document(git, "study", "a.txt"), updates[1], EVE)
        assert (await git.read_live("study", "a.txt")).decode() == FILE
        proposal = new_proposal_id()
        await git.propose(proposal, "study", base, [NewText(path="a.txt", text=PROPOSED)], ADA, "")
        await git.merge(proposal)
    async with start() as git:
        assert (await git.read_live("study", "a.txt")).decode() == PROPOSED
        await git.ingest(document(git, "study", "a.txt"), updates[0], EVE)
        assert (await git.read_live("study", "a.txt")).decode() == "first second " + PROPOSED
    async with start() as git:
        assert (await git.read_live("study", "a.txt")).decode() == "first second " + PROPOSED


CHILD = """
import asyncio, sys
from pathlib import Path
import pycrdt
from angelos.adapters.host.clock import SystemClock
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.angelgit.service import AngelGit
from angelos.core.ids import new_proposal_id
from angelos.core.repository import NewText
from angelos.core.signing import SigningKey

async def main(dsn, url, workspace):
    client = connect(url)
    async with Database(dsn) as db, AngelGit(db, client, SigningKey(b"k" * 32), SystemClock(),
            ValkeyJournal(client), Path(workspace)) as git:
        base = await git.head("study", "main")
        doc = pycrdt.Doc()
        document = git.locate("study/a.txt").document
        for update in await git.room_updates(document):
            doc.apply_update(update)
        text, news = doc.get("source", type=pycrdt.Text), []
        doc.observe(lambda event: news.append(bytes(event.update)))
        for i in range(100_000):
            text.insert(0, f"t{i};")
            while news:
                await git.ingest(document, news.pop(0), "person/eve")
            print(f"t{i};", flush=True)
            if i % 5 == 0:
                proposal = new_proposal_id()
                edit = NewText(path=f"p{i}.txt", text="made")
                await git.propose(proposal, "study", base, [edit], "agent/ada", "why")
                await git.merge(proposal)
                print(f"p{i}.txt", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("acks", [1, 30, 77])
async def test_acknowledged_edits_survive_kill_9(start, database, stores, tmp_path, acks):
    need(hasattr(os, "kill"), "POSIX signals")
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, database.dsn, stores.valkey_url, str(tmp_path / "ws"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    seen = [(await child.stdout.readline()).decode().strip() for _ in range(acks)]
    child.send_signal(signal.SIGKILL)
    rest = (await child.stdout.read()).decode()
    await child.wait()
    seen += [line for line in rest.split("\n")[:-1] if line]
    assert len(seen) >= acks
    assert all(seen)
    async with start() as git:
        text = (await git.read_live("study", "a.txt")).decode()
        for ack in seen:
            if ack.endswith(".txt"):
                assert await git.read_live("study", ack) == b"made"
            else:
                assert ack in text
        for path in git._live.index.paths("study"):
            on_disk = (tmp_path / "ws/study" / path).read_bytes()
            assert on_disk == await git.read_live("study", path)


async def test_edits_in_the_last_moment_do_not_hang_the_end(journal, clock):
    async with DocumentActivity(journal, clock) as facts:
        facts.add("study:a.txt", 1)


async def cut_off(git, monkeypatch, act) -> None:
    """Let a transaction be committed, and fail before its updates are logged."""
    fault = broken(monkeypatch, DocumentLog, "append", before=True)
    fault["fail"] = True
    with pytest.raises(Unavailable):
        await act
    fault["fail"] = False


@pytest.mark.parametrize("again", ["retry", "restart"])
@pytest.mark.parametrize("place", [" 5\n", "line 9"])
async def test_typing_between_a_commit_and_its_log_is_a_commit_of_its_own(
    start, rooms, monkeypatch, again, place
):
    """What was committed comes, what was typed meanwhile stays, each under its own name."""
    proposal, other = new_proposal_id(), new_proposal_id()
    async with start() as git:
        base = await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        edits = [NewText(path="a.txt", text=PROPOSED), NewText(path="n.txt", text="n\n")]
        await git.propose(proposal, "study", base, edits, ADA, "why")
        room = await rooms.enter(git, "study", "a.txt")
        await cut_off(git, monkeypatch, git.merge(proposal))
        await room.type(place, "typed\n")
        if again == "retry":
            await git.merge(proposal)
            assert "five" in str(room.text)
            assert "typed\n" in str(room.text)
    async with start() as git:
        text = (await git.read_live("study", "a.txt")).decode()
        assert text.count("five") == text.count("typed\n") == 1
        assert await git.read_live("study", "n.txt") == b"n\n"
        if place == "line 9":
            assert text == PROPOSED.replace("line 9", "typed\nline 9")
        await git.propose(other, "study", base, [NewText(path="m.txt", text="m\n")], ADA, "why")
        await git.merge(other)
        revisions = await git.history("study", "dev")
        authors = [(await git.commit("study", r)).authors[0] for r in revisions]
        assert authors == [ADA, ROOM, ADA, EVE]
        merged = (await git.read("study", revisions[2], "a.txt")).decode()
        assert merged == PROPOSED


async def test_an_interrupted_revert_does_not_delete_later_typing(start, rooms, monkeypatch):
    proposal = new_proposal_id()
    async with start() as git:
        base = await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        await git.propose(proposal, "study", base, [NewText(path="n.txt", text="n\n")], ADA, "")
        await git.merge(proposal)
        room = await rooms.enter(git, "study", "n.txt")
        fault = broken(monkeypatch, Store, "add_facts", before=True)
        fault["fail"] = True
        with pytest.raises(Unavailable):
            await git.revert(proposal)  # it would delete the file, which has nothing else in it
        fault["fail"] = False
        await room.type("n\n", "typed\n")
    async with start() as git:
        assert await git.read_live("study", "n.txt") == b"typed\nn\n"
        await git.revert(proposal)
        assert await git.read_live("study", "n.txt") == b"typed\n"


@pytest.mark.parametrize("what", ["revert", "rollback"])
async def test_typing_into_the_same_line_survives_the_recovery(start, rooms, monkeypatch, what):
    proposal = new_proposal_id()
    async with start() as git:
        base = await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        await git.propose(proposal, "study", base, [NewText(path="a.txt", text=PROPOSED)], ADA, "")
        await git.merge(proposal)
        if what == "rollback":
            await git.advance("study", (await git.candidate(proposal)).revision, base)
        room = await rooms.enter(git, "study", "a.txt")
        act = git.rollback("study", base, EVE, "why") if what == "rollback" else None
        await cut_off(git, monkeypatch, act or git.revert(proposal))
        await room.type("ve\n", " typed ")
        await room.type("line 9", "more\n")
    async with start() as git:
        text = (await git.read_live("study", "a.txt")).decode()
        assert " typed " in text
        assert "more\nline 9" in text
        main = await git.head("study", "main")
        assert await git.tree("study", main) == await git.tree("study", base)
