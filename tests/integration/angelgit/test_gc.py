"""What nothing reaches goes, and every named revision can be restored, whatever happens."""

from __future__ import annotations

import asyncio
import random

import pytest

from angelos.angelgit.storage import collecting
from angelos.core.branches import branch_name
from angelos.core.errors import AngelError, Busy, NotFound
from angelos.core.ids import new_proposal_id
from angelos.core.pending import PartChoice, part_of
from angelos.core.repository import NewText, PutBlob

from .conftest import ADA, EVE, FILE


async def damage_of(git, repo="study"):
    damage, after = [], ""
    while True:
        page = await git.verify(repo, after)
        damage += page.damage
        if not (after := page.next):
            return damage


async def counts(database):
    async with database.transaction() as connection:
        tables = ("commit", "object", "blob", "candidate")
        rows = [
            await (await connection.execute(f"select count(*) from angelgit_{t}")).fetchone()
            for t in tables
        ]
    return dict(zip(tables, (row[0] for row in rows), strict=True))


async def pieces(*bodies):
    for body in bodies:
        yield body


async def own_branch(git, base, name, text):
    branch = branch_name(name)
    await git.create_branch("study", branch, base, ADA)
    edit = [NewText(path="a.txt", text=text)]
    return await git.commit_edits("study", branch, base, edit, ADA, "own work")


async def contents(git, revisions):
    return {r: [await git.read("study", r, e.path) for e in await git.tree("study", r)]
            for r in revisions}  # fmt: skip


async def test_what_is_unreachable_goes_and_the_rest_is_restored(
    git, base, put, database, valkey, rooms, clock
):
    await put(base, "a.txt", FILE + "merged\n")
    kept = await own_branch(git, base, "ada/kept", FILE.replace("line 3", "KEPT"))
    lost = await own_branch(git, base, "ada/lost", FILE.replace("line 4", "LOST"))
    await git.delete_branch("study", branch_name("ada/lost"), lost, ADA)
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [NewText(path="b/b.txt", text="new\n")], ADA, "why")
    old = await git.candidate(proposal)
    other = new_proposal_id()
    await git.propose(other, "study", base, [NewText(path="a.txt", text="x\n")], ADA, "no")
    dropped = await git.candidate(other)
    await git.withdraw(other)
    used = await git.put_blob("study", pieces(b"\x89PNG" + bytes(3_000)))
    await git.put_blob("study", pieces(b"\x00unused" * 1_000))
    edits = [PutBlob(path="p.png", sha256=used.sha256, size=used.size)]
    await git.edit_dev("study", edits, EVE, "a picture")
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 1\n", "typed ")
    named = [base, kept, old.revision, await git.head("study", "dev")]
    before, stored = await counts(database), await contents(git, named)
    assert await damage_of(git) == []

    young = await git.collect("study", 86_400, dry_run=False)
    assert (young.commits, young.blobs, await counts(database)) == (0, 0, before)
    async with database.transaction() as connection:
        await connection.execute("update angelgit_blob set at = at - interval '1 year'")
    clock.advance(6)  # what was typed is not committed by itself yet
    dry = await git.collect("study", 5, dry_run=True)
    assert await counts(database) == before
    report = await git.collect("study", 5, dry_run=False)
    assert (dry.commits, dry.objects, dry.blobs) == (report.commits, report.objects, report.blobs)
    assert (report.commits, report.blobs) == (2, 1)  # the deleted branch, the dropped candidate
    after = await counts(database)
    assert {table: before[table] - after[table] for table in ("commit", "blob", "object")} == {
        "commit": 2, "blob": 1, "object": report.objects,
    }  # fmt: skip
    assert report.objects == 3  # two roots and a file; the proposal that was withdrawn has its own
    for gone in (lost, dropped.revision):
        with pytest.raises(NotFound):
            await git.commit("study", gone)
    assert await contents(git, named) == stored
    assert await damage_of(git) == []
    assert (await git.collect("study", 5, dry_run=False)).objects == 0
    # Everything goes on: what was collected can be made again, and so can its parts.
    again = await own_branch(git, base, "ada/lost", FILE.replace("line 4", "LOST"))
    assert FILE.replace("line 4", "LOST").encode() in (await contents(git, [again]))[again]
    await git.advance("study", old.revision, base)
    await room.type("line 2\n", "more ")
    assert "typed line 1\nmore line 2" in (await git.read_live("study", "a.txt")).decode()
    assert await damage_of(git) == []


async def test_streams_without_updates_go_and_typing_goes_on(start, rooms, valkey, monkeypatch):
    monkeypatch.setattr("angelos.angelgit.storage.live._COMPACT_AFTER", 3)
    async with start() as git:
        await git.create("study", {"a.txt": FILE.encode(), "b.txt": b"b\n"}, EVE, "import")
        room, other = await rooms.enter(git, "study", "a.txt"), None
        other = await rooms.enter(git, "study", "b.txt")
        await other.type("b", "waits ")
        for number in range(3):
            await room.type("line 9", f"{number} ")
        assert len(await valkey.keys("angelgit:*")) == 2
        report = await git.collect("study", 5, dry_run=False)
        assert (report.streams, len(await valkey.keys("angelgit:*"))) == (1, 1)
        await room.type("line 9", "after ")
        text = await git.read_live("study", "a.txt")
    async with start() as git:
        assert await git.read_live("study", "a.txt") == text
        assert b"0 1 2 after line 9" in text
        assert await git.read_live("study", "b.txt") == b"waits b\n"


async def test_one_collection_at_a_time(git, base):
    first = asyncio.create_task(git.collect("study", 5, dry_run=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await git.collect("study", 5, dry_run=True)
    await first
    with pytest.raises(NotFound):
        await git.collect("nothing", 5, dry_run=True)


async def test_nothing_is_lost_while_people_work_beside_it(git, base, rooms, clock, monkeypatch):
    """Proposals, branches and keystrokes come between the long pass and the deletion."""
    drawn = random.Random(7)
    room = await rooms.enter(git, "study", "a.txt")
    texts, made, typed = [FILE.replace(f"line {n}\n", f"L{n}\n") for n in range(1, 6)], {}, []

    async def work(number):
        text = texts[number % 5]  # the same contents come and go
        name = f"ada/{number}"
        revision = await own_branch(git, base, name, text)
        if drawn.random() < 0.6:
            await git.delete_branch("study", branch_name(name), revision, ADA)
        else:
            made[revision] = text
        typed.append(f"k{number},")
        await room.type("line 20", typed[-1])
        clock.advance(1)

    real = collecting.Marks.update
    numbers = iter(range(1_000))

    async def busy(self, store):
        await real(self, store)
        if not busy.locked:
            busy.locked = True
            for _ in range(3):
                await work(next(numbers))

    monkeypatch.setattr(collecting.Marks, "update", busy)
    for _ in range(4):
        busy.locked = False
        await git.collect("study", 0, dry_run=False)
        await asyncio.gather(
            git.collect("study", 0, dry_run=False),
            *(work(next(numbers)) for _ in range(3)),
            return_exceptions=False,
        )
    monkeypatch.undo()
    assert await damage_of(git) == []
    for revision, text in made.items():
        assert await git.read("study", revision, "a.txt") == text.encode()
    live = (await git.read_live("study", "a.txt")).decode()
    assert all(live.count(word) == 1 for word in typed)


async def test_a_blob_that_is_sent_again_meanwhile_stays(git, base, database, monkeypatch):
    body = b"\x00again" * 1_000
    blob = await git.put_blob("study", pieces(body))
    async with database.transaction() as connection:
        await connection.execute("update angelgit_blob set at = at - interval '1 year'")
    real, calls = collecting._garbage, []

    async def busy(*args):
        garbage = await real(*args)
        assert bytes.fromhex(blob.sha256) in garbage.blobs
        calls.append(1)
        if len(calls) == 2:  # under the lock
            await git.put_blob("study", pieces(body))
        return garbage

    monkeypatch.setattr(collecting, "_garbage", busy)
    await git.collect("study", 86_400, dry_run=False)
    assert len(calls) == 2
    edits = [PutBlob(path="p.bin", sha256=blob.sha256, size=blob.size)]
    await git.edit_dev("study", edits, EVE, "what was sent is there")


async def test_a_proposal_that_is_narrowed_and_closed_meanwhile_stays_whole(git, base, monkeypatch):
    text = FILE.replace("line 1\n", "first\n").replace("line 19\n", "last\n")
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [NewText(path="a.txt", text=text)], ADA, "why")
    pending = await git.pending(proposal)
    real, calls = collecting.Marks.update, []

    async def busy(self, store):
        await real(self, store)
        calls.append(1)
        if len(calls) == 1:  # beside everybody's work
            part = part_of(pending, PartChoice(hunks=(pending.hunks[0].id,)))
            await git.withdraw_part(part, EVE, "not this one")
            await git.withdraw(proposal)

    monkeypatch.setattr(collecting.Marks, "update", busy)
    await git.collect("study", 0, dry_run=False)
    assert len(calls) == 2
    closed = await git.pending(proposal)
    assert len(pending.hunks) == 2
    files = [change.after for change in (await git._proposals._proposal(proposal)).record.changes]
    async with git._stores.begin() as store:
        (body,) = (await store.contents([f.sha256 for f in files])).values()
    assert (b"first" in body) + (b"last" in body) == 1
    assert closed.id == proposal


async def test_a_collection_that_fails_leaves_everything(git, base, database, monkeypatch, clock):
    lost = await own_branch(git, base, "ada/lost", FILE + "x\n")
    await git.delete_branch("study", branch_name("ada/lost"), lost, ADA)
    clock.advance(10)
    before = await counts(database)

    async def fails(*_, **__):
        raise AngelError("the disk is full")

    run = collecting.NamedQueries.run
    monkeypatch.setattr(
        collecting.NamedQueries, "run",
        lambda self, name, **p: fails() if name == "gc_drop_blobs" else run(self, name, **p),
    )  # fmt: skip
    with pytest.raises(AngelError):
        await git.collect("study", 5, dry_run=False)
    monkeypatch.undo()
    assert await counts(database) == before
    assert (await git.collect("study", 5, dry_run=False)).commits == 1
