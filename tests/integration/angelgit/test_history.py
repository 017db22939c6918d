"""Log, differences, blame, and branches of people and agents, as one reads and makes them."""

from __future__ import annotations

import json

import pytest

from angelos.core.branches import branch_name
from angelos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused, Stale
from angelos.core.facts import BranchAdvanced, Kind
from angelos.core.ids import START, new_proposal_id
from angelos.core.pending import ChangeKind
from angelos.core.repository import NEW, MoveFile, NewText, ProposalOrigin

from .conftest import ADA, BOB, EVE, FILE

BRANCH = branch_name("ada/median")


def book(*sources, output="1"):
    outputs = [{"output_type": "stream", "name": "stdout", "text": output}]
    cells = [
        {"cell_type": "code", "id": f"cell-{i}", "metadata": {}, "execution_count": None,
         "outputs": outputs, "source": source}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def promote(git):
    """Propose and advance `main` to it; the proposal's id and the new `main`."""

    async def promote(*edits, author=ADA, base=None, origin=NEW):
        proposal = new_proposal_id()
        main = await git.head("study", "main")
        await git.propose(proposal, "study", base or main, edits, author, "why", origin)
        candidate = await git.candidate(proposal)
        await git.advance("study", candidate.revision, main)
        return proposal, candidate.revision

    return promote


async def writers(git, path, revision="main"):
    """Return (author, proposal, line) of each line."""
    view = await git.blame("study", revision, path)
    commits = {commit.id: commit for commit in view.commits}
    return [
        (commits[g.commit].authors[0], commits[g.commit].trailer("Proposal"), line.strip())
        for g in view.groups
        for line in g.lines
    ]


async def test_history_is_read_in_pages_and_by_file(git, base, promote):
    revisions = [base]
    for i in range(1, 6):
        path = "a.txt" if i % 2 else "b/b.txt"
        text = (FILE if i % 2 else "b\n") + f"{i}\n"
        revisions.insert(0, (await promote(NewText(path=path, text=text)))[1])
    seen, after = [], ""
    while True:
        page = await git.log("study", "main", after=after, limit=2)
        assert len(page.commits) <= 2
        seen += [commit.id for commit in page.commits]
        if not (after := page.next):
            break
    assert seen == revisions
    only = await git.log("study", "main", path="b/b.txt")
    assert [commit.id for commit in only.commits] == [revisions[1], revisions[3], base]
    from_middle = await git.log("study", revisions[3][:10], limit=1)
    assert from_middle.commits[0].id == revisions[3]
    assert await git.resolve("study", "main~2") == revisions[2]
    # In dev each of them is a merge; all of history is each commit once, children first.
    whole, after = [], ""
    while True:
        page = await git.log("study", "dev", after=after, limit=2, merges=True)
        whole += page.commits
        if not (after := page.next):
            break
    places = {commit.id: place for place, commit in enumerate(whole)}
    assert len(places) == len(whole)
    assert {*revisions} < places.keys()
    assert all(places[parent] > places[c.id] for c in whole for parent in c.parents)
    assert sum(len(commit.parents) > 1 for commit in whole) == 5
    found = await git.log("study", "dev", path="b/b.txt", merges=True)
    assert {revisions[1], revisions[3], base} <= {commit.id for commit in found.commits}
    with pytest.raises(InvalidInput):
        await git.log("study", "dev", after="main", merges=True)
    for wrong in ("main~6", "fade0", "x", "MAIN", "../..", "\ud800"):
        with pytest.raises(NotFound):
            await git.log("study", wrong)


async def test_lines_keep_their_writer_through_moves_merges_and_picks(git, base, promote):
    first, _ = await promote(NewText(path="a.txt", text=FILE.replace("line 3\n", "by ada\n")))
    await promote(MoveFile(path="a.txt", to="c.txt"), author=BOB)
    text = FILE.replace("line 3\n", "by ada\n").replace("line 9\n", "by bob\n")
    second, main = await promote(NewText(path="c.txt", text=text), author=BOB)
    expected = [(EVE, "", f"line {i}") for i in range(1, 21)]
    expected[2], expected[8] = (ADA, first, "by ada"), (BOB, second, "by bob")
    for revision in ("main", "dev"):  # dev has it by a merge of main
        assert await writers(git, "c.txt", revision) == expected
    # Picked by somebody else, from a branch onto main, it still is its writer's.
    await git.create_branch("study", BRANCH, main, ADA)
    edit = NewText(path="c.txt", text=text.replace("line 15\n", "on a branch\n"))
    commit = await git.commit_edits("study", BRANCH, main, [edit], ADA, "Branch")
    draft = await git.pick_draft("study", commit)
    await promote(
        *draft.edits, author=EVE, base=draft.base, origin=ProposalOrigin(picked_from=commit)
    )
    expected[14] = (ADA, "", "on a branch")
    assert await writers(git, "c.txt") == expected
    with pytest.raises(Conflict, match="has all"):
        await git.pick_draft("study", commit)
    pages = [await git.blame("study", "main", "c.txt", after=i, limit=1) for i in range(3)]
    assert [p.groups[0].start for p in pages] == [1, 3, 4]
    assert [p.next for p in pages] == ["1", "2", "3"]
    with pytest.raises(NotFound):
        await git.blame("study", "main", "a.txt")


async def test_notebooks_differ_and_are_blamed_by_cell(git, promote):
    one, two = book("a = 1\nb = 2\n", "c = 3\n"), book("a = 1\nb = 20\n", "c = 3\n", output="2")
    await git.create("study", {"n.ipynb": one.encode(), "a.txt": b"1\n"}, EVE, "import")
    proposal, main = await promote(NewText(path="n.ipynb", text=two))
    page = await git.diff("study", "main~1", "main")
    assert (page.after, [c.path for c in page.changes]) == (main, ["n.ipynb"])
    (change,) = page.changes
    lines, outputs = [hunk for hunk in change.cells if hunk.cell == "cell-0"]
    assert (lines.kind, lines.before, lines.after) == (ChangeKind.text, "b = 2\n", "b = 20\n")
    assert outputs.kind is ChangeKind.outputs
    assert outputs.after.startswith("sha256:")
    assert "-b = 2\n+b = 20\n" in change.diff
    assert "~ outputs sha256:" in change.diff
    assert '"output_type"' not in change.diff
    view = await git.blame("study", "main", "n.ipynb")
    commits = {commit.id: commit.trailer("Proposal") for commit in view.commits}
    assert [(g.cell, g.start, commits[g.commit]) for g in view.groups] == [
        ("cell-0", 1, ""),
        ("cell-0", 2, proposal),
        ("cell-1", 1, ""),
    ]


async def test_differences_come_in_pages(git, base, promote):
    await promote(*(NewText(path=f"d/{i}.txt", text=f"{i}\n") for i in range(5)))
    paths, beyond = [], ""
    while True:
        page = await git.diff("study", base, "main", beyond=beyond, limit=2)
        paths += [change.path for change in page.changes]
        if not (beyond := page.next):
            break
    assert paths == [f"d/{i}.txt" for i in range(5)]
    assert [c.path for c in (await git.diff("study", "", "main", path="d/3.txt")).changes] == [
        "d/3.txt"
    ]
    assert (await git.diff("study", "main", "main")).changes == ()


async def test_a_branch_is_moved_by_its_owner_alone(git, base, promote, journal):
    head = await git.create_branch("study", BRANCH, base, ADA)
    assert await git.create_branch("study", BRANCH, base, ADA) == head  # asked again
    for name, error in (
        (BRANCH, Conflict),  # Bob's
        (branch_name("ada"), Conflict),  # git cannot have both
        (branch_name("main"), Refused),
        (branch_name("proposals/x"), Refused),
    ):
        with pytest.raises(error):
            await git.create_branch("study", name, base, BOB)
    edit = NewText(path="a.txt", text=FILE + "more\n")
    with pytest.raises(Forbidden):
        await git.commit_edits("study", BRANCH, base, [edit], BOB, "no")
    commit = await git.commit_edits("study", BRANCH, base, [edit], ADA, "More")
    with pytest.raises(Conflict) as caught:
        await git.commit_edits("study", BRANCH, base, [edit], ADA, "late")
    assert caught.value.extra["revision"] == commit
    with pytest.raises(Forbidden):
        await git.move_branch("study", BRANCH, base, commit, BOB)
    assert (await git.move_branch("study", BRANCH, base, commit, ADA)).revision == base
    assert await git.resolve("study", "ada/median") == base
    with pytest.raises(Refused):
        await git.move_branch("study", branch_name("dev"), base, base, ADA)
    other = branch_name("bob/x")
    await git.create_branch("study", other, base, BOB)
    names = [b.name for b in await git.list_branches("study")]
    assert names == ["ada/median", "bob/x", "dev", "main"]
    assert [b.name for b in await git.list_branches("study", "bob/x", 1)] == ["dev"]
    for by, error in ((ADA, Forbidden), (BOB, None)):
        if error:
            with pytest.raises(error):
                await git.delete_branch("study", other, base, by)
        else:
            await git.delete_branch("study", other, base, by)
            await git.delete_branch("study", other, base, by)
    with pytest.raises(NotFound):
        await git.resolve("study", "bob/x")
    facts = await journal.read(START, kinds=[Kind.branch_advanced], subject="study:ada/median")
    assert [fact.read(BranchAdvanced).cause for fact in facts] == ["branch", "commit", "move"]


async def test_a_commit_is_picked_onto_another_branch(git, base, promote):
    _, main = await promote(NewText(path="a.txt", text=FILE.replace("line 5\n", "five\n")))
    await git.create_branch("study", BRANCH, base, BOB)
    picked = await git.pick("study", main, BRANCH, BOB)
    commit = await git.commit("study", picked)
    assert (commit.parents, commit.trailer("Picked-From")) == ((base,), main)
    assert b"five" in await git.read("study", picked, "a.txt")
    assert (ADA, "five") in [(a, line) for a, _, line in await writers(git, "a.txt", BRANCH)]
    with pytest.raises(Conflict):
        await git.pick("study", main, BRANCH, BOB)
    edit = NewText(path="a.txt", text=FILE.replace("line 5\n", "fünf\n"))
    await git.commit_edits("study", BRANCH, picked, [edit], BOB, "auf Deutsch")
    with pytest.raises(Stale):
        await git.pick("study", main, BRANCH, BOB)
    for edits in ([], [edit, edit]):
        with pytest.raises(InvalidInput):
            await git.commit_edits("study", BRANCH, picked, edits, BOB, "bad")
