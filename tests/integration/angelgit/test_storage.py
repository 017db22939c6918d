"""Storage grows with the change; what was changed in the store is found when it is read."""

from __future__ import annotations

import asyncio

import pytest

from angelos.core.errors import Tampered
from angelos.core.ids import new_proposal_id
from angelos.core.repository import NewText

from .conftest import ADA, EVE

SIZE = """select coalesce(sum(pg_column_size(t.*)), 0) from angelgit_object t"""


def lines(i, word="line 7"):
    rows = "".join(f"line {j} of {i}: {(j * 7919 + i) % 10007}\n" for j in range(20))
    return rows.replace("line 7", word)


async def test_one_line_of_a_large_tree_adds_little_and_every_revision_stays(git, database):
    files = {f"d{i % 5}/f{i}.py": lines(i).encode() for i in range(1_000)}
    main = await git.create("big", files, EVE, "import")

    async def size():
        async with database.transaction() as conn:
            row = await (await conn.execute(SIZE)).fetchone()
        return int(row[0])

    before, revisions, rounds = await size(), [main], 12
    for i in range(rounds):
        proposal = new_proposal_id()
        edit = NewText(path=f"d{i % 5}/f{i}.py", text=lines(i, "LINE 7"))
        await git.propose(proposal, "big", revisions[-1], [edit], ADA, "why")
        candidate = await git.candidate(proposal)
        await git.advance("big", candidate.revision, revisions[-1])
        revisions.append(candidate.revision)
    # A file of 600 bytes, a leaf of some 60 names, a fan and the root: 5 kB, were they whole.
    assert (await size() - before) / rounds < 2_000
    git._stores._cache._bodies.clear()  # as after a restart
    for number, revision in enumerate(revisions):
        for i in range(rounds):
            word = "LINE 7" if i < number else "line 7"
            content = await git.read("big", revision, f"d{i % 5}/f{i}.py")
            assert content.decode() == lines(i, word)


@pytest.mark.parametrize("directory", [False, True])
async def test_an_object_that_was_changed_in_the_store_is_not_read(git, base, database, directory):
    async with database.transaction() as conn:
        await conn.execute(
            "update angelgit_object set body = set_byte(body, length(body) - 1,"
            " 255 - get_byte(body, length(body) - 1)) where directory = %s",
            [directory],
        )
    git._stores._cache._bodies.clear()
    with pytest.raises(Tampered):
        await git.read("study", base, "a.txt")


async def test_a_commit_that_was_changed_in_the_store_is_not_read(git, base, database):
    async with database.transaction() as conn:
        await conn.execute("update angelgit_commit set body = body || '\\x00'::bytea")
    with pytest.raises(Tampered):
        await git.commit("study", base)


async def test_a_merge_of_many_files_is_few_transactions(git, database, monkeypatch):
    files = {f"f{i}.txt": b"1\n2\n3\n" for i in range(40)}
    base = await git.create("many", files, EVE, "import")
    proposal = new_proposal_id()
    edits = [NewText(path=path, text="1\ntwo\n3\n") for path in files]
    await git.propose(proposal, "many", base, edits, ADA, "why")
    git._live.drop(list(git._live.index.rows))
    begun = 0
    real = type(git._stores).begin

    def begin(self):
        nonlocal begun
        task = asyncio.current_task()
        begun += task is None or task.get_name() != "leases of repositories"
        return real(self)

    async def later(*_):
        """Printing is counted apart."""

    monkeypatch.setattr(type(git._stores), "begin", begin)
    monkeypatch.setattr(git._writer, "try_write", later)
    await git.merge(proposal)
    assert begun <= 4
    assert await git.read_live("many", "f7.txt") == b"1\ntwo\n3\n"
