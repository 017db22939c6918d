"""Working files that others change: a terminal, git, an editor, a script, while we run or not."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pycrdt
import pytest

from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import DISK
from angelos.angelgit.storage.working_files import WorkingFileRecords
from angelos.angelgit.worktree.files import WorkingFiles
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.errors import NotFound, Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import START, new_proposal_id
from angelos.core.repository import DeleteFile, NewText
from angelos.testing import eventually

from .conftest import ADA, EVE, FILE, document, queued
from .test_notebooks import A, B, book, sources

THEIRS = FILE.replace("line 3\n", "line 3, by an editor\n")


@pytest.fixture
def ws(tmp_path):
    return tmp_path / "ws/study"


@pytest.fixture
def outside(ws):
    """Write a file as another program does, a while ago."""

    def outside(path, text):
        (ws / path).parent.mkdir(parents=True, exist_ok=True)
        (ws / path).write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(ws / path, (time.time() - 60,) * 2)

    return outside


@pytest.fixture
def announced(journal):
    """Wait for a fact about what came from disk."""

    async def announced(outcome):
        async def found():
            facts = await journal.read(START, kinds=[Kind.document_edited])
            return [fact for fact in facts if fact.outcome == outcome]

        (fact,) = await eventually(found, outcome)
        return fact

    return announced


async def live(git, path="a.txt"):
    return (await git.read_live("study", path)).decode()


def copies(ws, name="a") -> list[str]:
    return [p.read_text() for p in sorted(ws.glob(f"{name}.disk-*"))]


async def test_a_file_written_at_the_end_is_announced_too(start, rooms, ws, outside, announced):
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        await room.type("line 3", "typed ")
        outside("a.txt", THEIRS)
    assert (await announced("set-aside")).plain()["copy"].startswith("a.disk-")
    assert copies(ws) == [THEIRS]


async def test_facts_wait_while_the_journal_is_away(git, base, outside, announced, monkeypatch):
    async def away(_):
        refused.set()
        raise Unavailable

    refused = asyncio.Event()
    outside("a.txt", THEIRS)
    with monkeypatch.context() as patch:
        patch.setattr(git._activity._journal, "append", away)
        await git.write_file(document(git, "study", "a.txt"))
        await refused.wait()
    assert (await announced("taken-in")).subject == "study:a.txt"


async def test_an_edit_on_disk_of_a_file_that_is_being_deleted_stays(
    git, base, ws, outside, announced
):
    proposal, deleted = new_proposal_id(), git._live.index.document("study", "b/b.txt")
    await git.propose(proposal, "study", base, [DeleteFile(path="b/b.txt")], ADA, "gone")
    outside("b/b.txt", "b\nby an editor\n")
    async with git._live.lock([deleted]):
        merge = asyncio.create_task(git.merge(proposal))
        await queued(git, deleted, 1)
        seen = asyncio.create_task(git.write_file(document(git, "study", "b/b.txt")))
        await queued(git, deleted, 2)
    await merge
    with pytest.raises(NotFound):
        await seen
    assert (await announced("stays")).plain()["stays"] == "b/b.txt"
    assert (ws / "b/b.txt").read_text() == "b\nby an editor\n"


async def test_an_edit_on_disk_is_taken_in_shown_and_announced(
    git, base, rooms, ws, outside, announced, start
):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 9", "typed\n")
    outside("a.txt", THEIRS)
    await git.write_file(document(git, "study", "a.txt"))
    both = THEIRS.replace("line 9", "typed\nline 9")
    assert str(room.text) == await live(git) == (ws / "a.txt").read_text() == both
    fact = await announced("taken-in")
    assert (fact.actor, fact.subject) == (DISK, "study:a.txt")
    assert copies(ws) == []
    await room.type("line 20", "more\n")
    await git.write_file(document(git, "study", "a.txt"))
    assert (ws / "a.txt").read_text() == both.replace("line 20", "more\nline 20")


async def test_typing_that_is_on_its_way_survives_beside_it(git, base, ws, outside):
    """An update made before the edit on disk was taken in, and stored after it."""
    doc, updates = pycrdt.Doc(), []
    for update in await git.room_updates(document(git, "study", "a.txt")):
        doc.apply_update(update)
    doc.observe(lambda event: updates.append(bytes(event.update)))
    text = doc.get("source", type=pycrdt.Text)
    text.insert(len(FILE.partition("line 3\n")[0]), "typed before line 3\n")
    outside("a.txt", THEIRS)
    await git.write_file(document(git, "study", "a.txt"))
    await git.ingest(document(git, "study", "a.txt"), updates[0], EVE)
    assert await live(git) == THEIRS.replace("line 3,", "typed before line 3\nline 3,")


async def test_a_merge_into_a_document_that_nobody_has_open_keeps_both(git, base, put, ws, outside):
    outside("a.txt", THEIRS)
    await put(base, "a.txt", FILE.replace("line 15\n", "line 15, by an agent\n"))
    both = THEIRS.replace("line 15\n", "line 15, by an agent\n")
    assert (ws / "a.txt").read_text() == both == await live(git)


async def test_the_same_lines_on_both_sides_are_kept_side_by_side(
    git, base, put, ws, outside, announced
):
    outside("a.txt", THEIRS)
    ours = FILE.replace("line 3\n", "line 3, by an agent\n")
    await put(base, "a.txt", ours)
    assert (ws / "a.txt").read_text() == ours == await live(git)
    assert copies(ws) == [THEIRS]
    fact = await announced("set-aside")
    assert (ws / fact.plain()["copy"]).read_text() == THEIRS
    assert git.locate(f"study/{fact.plain()['copy']}") is None  # a file like any other
    await git.write_file(document(git, "study", "a.txt"))
    assert len(copies(ws)) == 1


async def test_edits_made_while_the_system_was_down_are_taken_in(start, ws, outside):
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode(), "b.txt": b"b\n"}, EVE, "import")
    outside("a.txt", THEIRS)
    (ws / "b.txt").unlink()
    os.utime(ws, (time.time() - 60,) * 2)
    async with start() as git:
        assert await live(git) == THEIRS == (ws / "a.txt").read_text()
        assert (ws / "b.txt").read_text() == "b\n"  # it is in dev: only a proposal deletes it
    async with start() as git:
        assert await live(git) == THEIRS
        assert sorted(p.name for p in ws.iterdir()) == ["a.txt", "b.txt"]


async def test_opening_a_document_takes_in_the_edits_of_its_file(git, base, rooms, outside):
    outside("a.txt", THEIRS)
    room = await rooms.enter(git, "study", "a.txt")
    assert str(room.text) == THEIRS


async def test_files_at_the_place_of_an_import_are_kept(start, ws, outside):
    async with start() as git:
        outside("a.txt", "mine, before\n")
        outside("n.ipynb", "no notebook")
        files = {"a.txt": b"imported\n", "n.ipynb": book(A, B).encode(), "c.txt": b"c\n"}
        await git.create("study", files, EVE, "import")
        assert (ws / "a.txt").read_text() == "imported\n"
        assert copies(ws) == ["mine, before\n"]
        assert copies(ws, "n") == ["no notebook"]
        assert sources((ws / "n.ipynb").read_bytes()) == {"a": "x = 1\n", "b": "y"}
        assert (ws / "c.txt").read_text() == "c\n"


async def test_a_file_made_where_a_proposal_makes_one_is_kept(git, base, put, ws, outside):
    outside("new.txt", "by a script\n")
    await put(base, "new.txt", "by an agent\n")
    assert (ws / "new.txt").read_text() == "by an agent\n"
    assert copies(ws, "new") == ["by a script\n"]


async def test_notebooks_are_taken_in_by_cell(git, ws, outside):
    base = await git.create("study", {"n.ipynb": book(A, B).encode()}, EVE, "import")
    outside("n.ipynb", book({**A, "source": "x = 2\n"}, B))
    proposal = new_proposal_id()
    edits = [NewText(path="n.ipynb", text=book(A, {**B, "source": "Y"}))]
    await git.propose(proposal, "study", base, edits, ADA, "why")
    await git.merge(proposal)
    want = {"a": "x = 2\n", "b": "Y"}
    assert sources((ws / "n.ipynb").read_bytes()) == want
    assert sources(await git.read_live("study", "n.ipynb")) == want
    outside("n.ipynb", json.dumps(json.loads((ws / "n.ipynb").read_text()), indent=8))
    await git.write_file(document(git, "study", "n.ipynb"))
    outside("n.ipynb", "{ half a notebook")
    await git.write_file(document(git, "study", "n.ipynb"))
    assert sources((ws / "n.ipynb").read_bytes()) == want
    assert copies(ws, "n") == ["{ half a notebook"]


@pytest.mark.parametrize("what", ["binary", "link", "folder", "fifo", "huge"])
async def test_content_that_is_no_text_is_kept_aside(  # noqa: PLR0917
    git, base, put, ws, outside, tmp_path, announced, what
):
    (tmp_path / "secret").write_text("secret\n")
    (ws / "a.txt").unlink()
    if what == "binary":
        outside("a.txt", b"\xff\xfe\0")
    elif what == "link":
        (ws / "a.txt").symlink_to(tmp_path / "secret")
    elif what == "folder":
        outside("a.txt/inside", "kept\n")
    elif what == "fifo":
        os.mkfifo(ws / "a.txt")
    else:
        with (ws / "a.txt").open("wb") as huge:
            huge.truncate(16_000_001)
        os.utime(ws / "a.txt", (0, 0))
    new = FILE.replace("line 1\n", "first\n")
    await put(base, "a.txt", new)
    assert (ws / "a.txt").read_text() == new == await live(git)
    (kept,) = ws.glob("a.disk-*.txt")
    assert (await announced("set-aside")).plain()["copy"] == kept.name
    assert kept.is_symlink() == (what == "link")
    assert (tmp_path / "secret").read_text() == "secret\n"
    assert what != "folder" or (kept / "inside").read_text() == "kept\n"


async def test_a_deleted_file_is_written_again_and_its_document_stays(git, base, ws, announced):
    (ws / "a.txt").unlink()
    assert (
        await git.write_file(document(git, "study", "a.txt")) is None
    )  # an editor may be about to replace it
    await eventually((ws / "a.txt").exists)
    assert (ws / "a.txt").read_text() == FILE
    assert (await announced("restored")).subject == "study:a.txt"


async def test_a_program_that_is_still_writing_is_waited_for(git, base, put, rooms, ws):
    with (ws / "a.txt").open("w") as file:  # truncated: nothing may be taken out of dev for it
        file.flush()
        await put(base, "a.txt", FILE.replace("line 15\n", "agent\n"))
        assert await git.write_file(document(git, "study", "a.txt")) is None
        assert await live(git) == FILE.replace("line 15\n", "agent\n")
        file.write(THEIRS)
    both = THEIRS.replace("line 15\n", "agent\n")
    await eventually(lambda: (ws / "a.txt").read_text() == both)
    assert await live(git) == both


async def test_an_editor_in_the_moment_of_the_exchange_is_not_lost(
    git, base, put, ws, outside, monkeypatch
):
    real, once = WorkingFiles.put, []

    def late(self, repo, path, *args):
        if not once:
            once.append(outside("a.txt", THEIRS))
        return real(self, repo, path, *args)

    monkeypatch.setattr(WorkingFiles, "put", late)
    await put(base, "a.txt", FILE.replace("line 15\n", "agent\n"))
    assert once
    assert (ws / "a.txt").read_text() == THEIRS.replace("line 15\n", "agent\n") == await live(git)
    assert copies(ws) == []


async def test_a_changed_file_outlives_its_document(git, base, put, ws, outside, announced):
    outside("b/b.txt", "mine\n")
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [DeleteFile(path="b/b.txt")], ADA, "why")
    await git.merge(proposal)
    assert (ws / "b/b.txt").read_text() == "mine\n"
    assert (await announced("stays")).plain()["stays"] == "b/b.txt"
    await git.revert(proposal)
    assert (ws / "b/b.txt").read_text() == "b\n"
    assert copies(ws / "b", "b") == ["mine\n"]


async def test_an_older_write_of_ours_is_removed_with_its_document(git, base, rooms, ws):
    room = await rooms.enter(git, "study", "b/b.txt")
    await room.type("b", "typed and not written yet\n")
    proposal = new_proposal_id()
    head = await git.merge(await typed_proposal(git, proposal))
    assert head
    assert not (ws / "b").exists()


async def typed_proposal(git, proposal):
    base = await git.head("study", "dev")
    other = new_proposal_id()
    await git.propose(other, "study", base, [NewText(path="a.txt", text="a\n")], ADA, "commit")
    dev = await git.merge(other)  # commits what was typed, too
    await git.propose(proposal, "study", dev, [DeleteFile(path="b/b.txt")], ADA, "why")
    return proposal


BOTH = [
    (WorktreeWriter, "_begin", True),
    (WorktreeWriter, "_begin", False),
    (WorktreeWriter, "_end", True),
    (WorktreeWriter, "_end", False),
    (WorkingFileRecords, "end", False),
]
CUTS = [(*cut, conflict) for cut in BOTH for conflict in (False, True)]
CUTS += [(LiveReplicas, "append", True, False), (LiveReplicas, "append", False, False)]
CUTS += [(WorktreeWriter, "_publish_edit", True, False)]


@pytest.mark.parametrize(("owner", "name", "before", "conflict"), CUTS)
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(  # noqa: PLR0917
    start, rooms, ws, outside, monkeypatch, owner, name, before, conflict
):
    real = getattr(owner, name)

    async def cut(self, *args, **kwargs):
        if before:
            raise Unavailable("killed")
        await real(self, *args, **kwargs)
        raise Unavailable("killed")

    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        await room.type("line 3" if conflict else "line 9", "typed ")
        outside("a.txt", THEIRS.replace("line 7", "new\nline 7"))
        monkeypatch.setattr(owner, name, cut)
        with pytest.raises(Unavailable):
            await git.write_file(document(git, "study", "a.txt"))
        git._typed_files.clear()
        git._writer.waiting.clear()
        typed = str(room.text)
    monkeypatch.setattr(owner, name, real)
    async with start() as git:
        text = await live(git)
        assert text == (ws / "a.txt").read_text()
        if conflict:
            assert text == FILE.replace("line 3", "typed line 3") == typed
            assert copies(ws) == [THEIRS.replace("line 7", "new\nline 7")]
        else:
            want = THEIRS.replace("line 7", "new\nline 7").replace("line 9", "typed line 9")
            assert text == want
            assert copies(ws) == []
