"""Whatever people and agents do at once: replicas converge, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random

import pytest

from angelos.core.errors import Stale
from angelos.core.ids import new_proposal_id
from angelos.core.repository import NewText

from .conftest import ADA, BOB, EVE


async def promoted(git, proposals, main):
    """Advance main by each proposal; return it, and those made beside lines reverted since."""
    stale = set()
    for proposal in proposals:
        try:
            candidate = await git.candidate(proposal)
        except Stale:
            stale.add(proposal)
            continue
        await git.advance("study", candidate.revision, main)
        main = candidate.revision
    return main, stale


@pytest.mark.parametrize("seed", range(6))
async def test_everything_at_once_converges_and_survives_a_restart(start, rooms, seed):
    rng = random.Random(seed)
    end = rng.choice(["\n", "\r\n"])
    text = "".join(f"line {i} \u00e9\U0001f600{end}" for i in range(60))
    merged, typed, on_dev = {}, [], set()

    async def agent(git, author, number):
        for turn in range(3):
            base = await git.head("study", rng.choice(["main", "dev"]))
            lines = (await git.read("study", base, "a.txt")).decode().split(end)
            mark = f"{author}-{number}-{turn}"
            lines[rng.randrange(len(lines) - 1)] += mark
            proposal = new_proposal_id()
            edit = NewText(path="a.txt", text=end.join(lines))
            try:
                await git.propose(proposal, "study", base, [edit], author, mark)
                await git.merge(proposal)
            except Stale:
                continue
            merged[proposal] = mark

    async def person(room):
        for turn in range(10):
            mark = f"<typed {turn}>"
            await room.type(f"line {rng.randrange(60)}", mark)
            typed.append(mark)

    async with start() as git:
        base = await git.create("study", {"a.txt": text.encode()}, EVE, "import")
        room = await rooms.enter(git, "study", "a.txt")
        await asyncio.gather(*(agent(git, a, n) for n, a in enumerate((ADA, BOB))), person(room))
        live = (await git.read_live("study", "a.txt")).decode()
        assert live == str(room.text).replace("\n", end)
        for mark in [*merged.values(), *typed]:
            assert live.count(mark) == 1
        out = rng.sample(sorted(merged), k=min(2, len(merged)))
        for proposal in out:
            await git.revert(proposal)
        main, stale = await promoted(git, sorted(merged.keys() - set(out)), base)
        assert stale <= on_dev
        live = (await git.read_live("study", "a.txt")).decode()
        on_main = (await git.read("study", main, "a.txt")).decode()
        for proposal, mark in merged.items():
            assert (live.count(mark), on_main.count(mark)) == (
                (0, 0) if proposal in out else (1, proposal not in stale)
            )
        assert all(live.count(mark) == 1 for mark in typed)
    async with start() as git:
        assert (await git.read_live("study", "a.txt")).decode() == live
        await git.rollback("study", base, EVE, "all of it")
        back = await git.head("study", "main")
        assert await git.tree("study", back) == await git.tree("study", base)
        live = (await git.read_live("study", "a.txt")).decode()
        assert all(live.count(mark) == 0 for mark in merged.values())
        # Typing that came to main with a proposal made on dev is rolled back with it.
        assert all(live.count(mark) == (mark not in on_main) for mark in typed)
