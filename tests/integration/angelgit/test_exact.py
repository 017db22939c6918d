"""What is written is what somebody wrote: line merges as expected, or refused, never mixed."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.documents.edits import lines
from angelos.angelgit.merge.three_way import merge_text
from angelos.core.errors import Conflict, InvalidInput, Stale
from angelos.core.ids import new_proposal_id
from angelos.core.repository import NewText

from .conftest import ADA, BOB, EVE, document

NUMBERS = itertools.count()


@pytest.fixture
def promote(git, put):
    """Propose, merge and promote a new text; main's revision."""

    async def promote(base, path, text, author=ADA, repo="study"):
        candidate = await git.candidate(await put(base, path, text, author, repo))
        await git.advance(repo, candidate.revision, candidate.main)
        return candidate.revision

    return promote


async def both(git, repo, path):
    main = await git.head(repo, "main")
    return (await git.read_live(repo, path)).decode(), (await git.read(repo, main, path)).decode()


async def test_a_base_from_before_a_rollback_is_merged_as_text(git, promote):
    first = await git.create("r", {"a.py": b"return 1\n"}, EVE, "import")
    await promote(first, "a.py", "return 2\n", repo="r")
    await git.rollback("r", first, EVE, "health")
    await promote(first, "a.py", "return 3\n", repo="r")
    assert await both(git, "r", "a.py") == ("return 3\n", "return 3\n")
    await git.rollback("r", first, EVE, "again")
    assert await both(git, "r", "a.py") == ("return 1\n", "return 1\n")
    await promote(first, "a.py", "return 1\nreturn 4\n", repo="r")
    await git.rollback("r", first, EVE, "and again")
    await promote(first, "a.py", "return 5\n", BOB, repo="r")
    assert await both(git, "r", "a.py") == ("return 5\n", "return 5\n")


async def test_a_deletion_is_rebased_too(git, promote):
    first = await git.create("r", {"a.txt": b"one\ntwo\n"}, EVE, "import")
    await promote(first, "a.txt", "one\n", repo="r")
    await git.rollback("r", first, EVE, "health")
    proposal = await promote(first, "a.txt", "one\n", BOB, repo="r")
    assert await both(git, "r", "a.txt") == ("one\n", "one\n")
    forth = await git.rollback("r", first, EVE, "again")
    await git.rollback("r", proposal, EVE, "it was not that")
    assert await both(git, "r", "a.txt") == ("one\n", "one\n")
    assert await git.read("r", forth, "a.txt") == b"one\ntwo\n"


async def test_a_notebooks_cell_from_before_a_rollback_is_merged_as_text(git, promote):
    def book(*sources):
        cells = [
            {"id": f"c{i}", "cell_type": "code", "source": source, "metadata": {}, "outputs": [],
             "execution_count": None}
            for i, source in enumerate(sources)
        ]  # fmt: skip
        return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})

    first = await git.create("r", {"n.ipynb": book("return 1", "x").encode()}, EVE, "import")
    for proposed in (book("return 2", "x"), book("return 3"), book("return 4", "x", "y")):
        await promote(first, "n.ipynb", proposed, repo="r")
        assert await both(git, "r", "n.ipynb") == (canonical("n.ipynb", proposed),) * 2
        await git.rollback("r", first, EVE, "health")


async def test_a_rebased_proposal_is_taken_out_again(git, promote, put, rooms):
    first = await git.create("r", {"a.py": b"a\nreturn 1\nb\n"}, EVE, "import")
    await promote(first, "a.py", "a\nreturn 2\nb\n", repo="r")
    await git.rollback("r", first, EVE, "health")
    room = await rooms.enter(git, "r", "a.py")
    mine = await put(first, "a.py", "a\nreturn 3\nb\n", repo="r")
    await room.type("b\n", "typed\n")
    await git.revert(mine)
    assert str(room.text) == "a\nreturn 1\ntyped\nb\n"
    assert await both(git, "r", "a.py") == (str(room.text), "a\nreturn 1\nb\n")


async def test_a_candidate_is_refused_when_a_rollback_came_between(git, promote, put):
    first = await git.create("r", {"a.py": b"1\n2\n3\n"}, EVE, "import")
    second = await promote(first, "a.py", "1\ntwo\n3\n", repo="r")
    mine = await put(second, "a.py", "1\n2!two\n3\n", repo="r")
    await git.rollback("r", first, EVE, "health")
    with pytest.raises(Stale) as caught:
        await git.candidate(mine)
    assert caught.value.extra["conflicts"][0]["yours"] == "2!two\n"
    assert await git.read("r", await git.head("r", "main"), "a.py") == b"1\n2\n3\n"


class Model:
    """Plain texts: what each revision, `dev` and `main` must hold."""

    def __init__(self, git, repo, room, first, text):
        self.git, self.repo, self.room = git, repo, room
        self.texts = {first: text}
        self.line = [first]
        self.merged: dict[str, tuple[str, str, bool]] = {}
        self.known = set(lines(text))
        self.count = 0

    async def look(self):
        main = await self.git.head(self.repo, "main")
        dev = (await self.git.read_live(self.repo, "a.txt")).decode()
        assert dev == str(self.room.text)
        return dev, (await self.git.read(self.repo, main, "a.txt")).decode()

    def fresh(self, rng):
        self.count += 1
        return rng.choice(["a", "b", f"n{self.count}", f"a {self.count}"]) + "\n"

    async def type(self, rng):
        rows = lines(str(self.room.text))
        at = rng.randint(0, len(rows))
        self.count += 1
        mark = rng.choice([f"<{self.count}>", f"typed {self.count}\n"])
        if at == len(rows):
            mark = f"end {self.count}\n"
        update = []
        doc = self.room.doc
        subscription = doc.observe(lambda event: update.append(bytes(event.update)))
        self.room.text.insert(len("".join(rows[:at]).encode()), mark)
        doc.unobserve(subscription)
        await self.git.ingest(document(self.git, self.repo, "a.txt"), update[0], EVE)
        self.known |= set(lines(str(self.room.text)))

    async def propose(self, rng):
        base = rng.choice(list(self.texts))
        rows = lines(self.texts[base])
        for _ in range(rng.randint(1, 2)):
            at = rng.randint(0, len(rows))
            gone = rng.randint(0, 2)
            rows[at : at + gone] = [self.fresh(rng) for _ in range(rng.randint(0, 2))]
        text = "".join(rows)
        dev, main = await self.look()
        proposal = new_proposal_id()
        # The text of `dev` as it is proposes what `main` lacks of it.
        start = main if text == self.texts[base] and base not in self.line else self.texts[base]
        try:
            await self.git.propose(
                proposal, self.repo, base, [NewText(path="a.txt", text=text)], ADA, "why"
            )
            if rng.random() < 0.5:
                await self.type(rng)
                dev, _ = await self.look()
            revision = await self.git.merge(proposal)
        except InvalidInput:
            assert text == self.texts[base]
            return
        except Stale as refusal:
            evidence = refusal.extra["conflicts"][0]
            assert {"base", "theirs", "yours"} <= evidence.keys()
            assert await self.look() == (dev, main)
            return
        self.known |= set(rows)
        now, same = await self.look()
        assert same == main
        assert now == merge_text(start, dev, text).text
        assert now == text or dev != start
        self.merged[proposal] = (start, text)
        self.texts[revision] = now

    async def promote(self, rng):
        if not self.merged:
            return
        proposal = rng.choice(list(self.merged))
        base, text = self.merged[proposal]
        dev, main = await self.look()
        try:
            candidate = await self.git.candidate(proposal)
        except Stale:
            assert await self.look() == (dev, main)
            return
        await self.git.advance(self.repo, candidate.revision, candidate.main)
        del self.merged[proposal]
        merged, now = await self.look()
        assert now == merge_text(base, main, text).text
        assert merged == merge_text(main, dev, now).text
        self.texts[candidate.revision] = now
        self.line.append(candidate.revision)

    async def rollback(self, rng):
        to = rng.choice(self.line)
        dev, main = await self.look()
        if self.texts[to] == main:
            return
        revision = await self.git.rollback(self.repo, to, EVE, "health")
        now, back = await self.look()
        assert back == self.texts[to]
        merged = merge_text(main, dev, back)
        assert now == merged.woven(force=True)
        self.known |= set(lines(now)) if merged.has_conflicts else set()
        self.texts[revision] = back
        self.line.append(revision)

    async def revert(self, rng):
        if not self.merged:
            return
        proposal = rng.choice(list(self.merged))
        before, after = self.merged[proposal]
        dev, main = await self.look()
        merged = merge_text(after, dev, before)
        try:
            self.texts[await self.git.revert(proposal)] = str(merged.woven())
        except Conflict:
            assert merged.woven() is None
            assert await self.look() == (dev, main)
            return
        del self.merged[proposal]
        now, same = await self.look()
        assert same == main
        assert now == merged.woven()
        self.known |= set(lines(now)) if merged.has_conflicts else set()
        self.texts = {k: v for k, v in self.texts.items() if k in self.line}

    async def check(self):
        for text in await self.look():
            assert set(lines(text)) <= self.known


# Which clients there are is the CRDT's own chance, so hypothesis gives the seed, not each step.
@given(st.integers(0, 2**32))
@settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
async def test_every_write_is_a_line_merge(git, rooms, seed):
    rng = random.Random(seed)
    repo = f"r{next(NUMBERS)}"
    text = "a\nb\nc\nd\ne\n"
    first = await git.create(repo, {"a.txt": text.encode()}, EVE, "import")
    model = Model(git, repo, await rooms.enter(git, repo, "a.txt"), first, text)
    steps = [model.type, *[model.propose] * 3, *[model.promote] * 2, model.rollback, model.revert]
    for step in rng.choices(steps, k=12):
        await step(rng)
        await model.check()
