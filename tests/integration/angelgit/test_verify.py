"""A repository is read back whole, and what is damaged is named."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from angelos.angelgit.storage import verifying
from angelos.core.errors import Busy, InvalidInput, NotFound
from angelos.core.history import DamageKind
from angelos.core.repository import PutBlob

from .conftest import ADA

NEW = [f"new{number}.txt" for number in range(3)]


class OneConnection:
    """A database whose transactions are all one."""

    def __init__(self, connection):
        self.connection = connection

    @asynccontextmanager
    async def transaction(self):
        yield self.connection


async def damage_of(git, repo="study"):
    pages, after = [], ""
    while True:
        pages.append(await git.verify(repo, after))
        if not (after := pages[-1].next):
            return pages, [item for page in pages for item in page.damage]


@pytest.fixture
async def history(git, base, put):
    """Three proposals in dev, a blob beside them."""

    async def pieces():
        yield b"\x89PNG" + bytes(5_000)

    for number, path in enumerate(NEW):
        await put(base, path, f"number {number}\n" * 30)
    return await git.put_blob("study", pieces())


async def test_what_is_whole_is_read_back_whole(git, history, monkeypatch):
    monkeypatch.setattr(verifying, "_COMMITS", 2)
    monkeypatch.setattr(verifying, "_DOCUMENTS", 2)
    pages, damage = await damage_of(git)
    assert damage == []
    assert sum(page.commits for page in pages) >= 4
    assert sum(page.contents for page in pages) >= 5  # each once, though all revisions have them
    assert sum(page.documents for page in pages) == 5
    assert len(pages) > 4


WRONG = [
    ("content", "update angelgit_object set body = '\\x00' where not directory and base is null"),
    ("content", "delete from angelgit_object where not directory and size < 10"),
    ("tree", "delete from angelgit_object where directory"),
    ("commit", "update angelgit_commit set signature = decode(repeat('00', 64), 'hex')"),
    ("commit", "update angelgit_commit set body = body || '\\x00'::bytea"),
    ("document", "update angelgit_document set state = '\\x00'"),
    ("document", "update angelgit_document set sha256 = decode(repeat('00', 32), 'hex')"),
]


async def test_damage_is_named(git, history, database, monkeypatch):
    for kind, sql in WRONG:
        async with database.transaction() as connection:
            await connection.execute(sql)
            monkeypatch.setattr(git._stores, "database", OneConnection(connection))
            _, damage = await damage_of(git)
            monkeypatch.undo()
            await connection.rollback()
        assert {item.kind for item in damage} == {DamageKind(kind)}, sql
        if kind == "content":
            assert {item.path for item in damage} <= {"a.txt", "b/b.txt", *NEW}
            assert all(len(item.revision) == 64 for item in damage)


async def test_a_damaged_blob_is_named(git, history, database, base):
    blob = history
    main = await git.head("study", "main")
    await git.create_branch("study", "ada/blob", main, ADA)
    put = {"path": "picture.png", "sha256": blob.sha256, "size": blob.size}
    await git.commit_edits("study", "ada/blob", main, [PutBlob(**put)], ADA, "a picture")
    assert (await damage_of(git))[1] == []
    async with database.transaction() as connection:
        await connection.execute("update angelgit_blob_piece set body = substring(body from 2)")
    (item,) = (await damage_of(git))[1]
    assert (item.kind, item.hash, item.path) == (DamageKind.blob, blob.sha256, "picture.png")


async def test_what_cannot_be_asked_is_refused(git, base):
    with pytest.raises(NotFound):
        await git.verify("nothing")
    for after in ("x", "f" * 63, "documents"):
        with pytest.raises(InvalidInput):
            await git.verify("study", after)


async def test_a_page_ends_in_the_midst_of_a_large_commit(git, monkeypatch):
    files = {f"d{n % 3}/f{n}.txt": f"number {n}\n".encode() for n in range(10)}
    await git.create("wide", files, ADA, "import")
    whole, _ = await damage_of(git, "wide")
    for limit in ("_FILES", "_BYTES"):
        monkeypatch.setattr(verifying, limit, 4)
        pages, damage = await damage_of(git, "wide")
        monkeypatch.undo()
        assert len(pages) > 3
        assert all(page.contents <= 4 for page in pages)
        assert damage == []
        assert sum(page.contents for page in pages) == whole[0].contents == 10
        assert sum(page.commits for page in pages) == 1


async def test_one_at_a_time_reads_a_repository_back(git, base):
    other = await git.create("other", {"a.txt": b"a\n"}, ADA, "import")
    assert other
    first = asyncio.create_task(git.verify("study"))
    await asyncio.sleep(0)  # it has begun
    with pytest.raises(Busy) as refused:
        await git.verify("study")
    assert refused.value.extra["retry_after_s"] > 0
    assert (await git.verify("other")).damage == ()
    await first
    second = asyncio.create_task(git.verify("study"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (await git.verify("study")).commits == 1
