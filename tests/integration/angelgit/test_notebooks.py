"""Notebooks: cells merge by id, outputs stay, rooms of Jupyter read the same document."""

from __future__ import annotations

import json

import pycrdt
import pytest
from jupyter_ydoc import YNotebook

from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.documents.edits import unified_diff
from angelos.core.errors import InvalidInput, Stale
from angelos.core.ids import new_proposal_id
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff

from .conftest import ADA, BOB, EVE, document

OUT = [{"output_type": "stream", "name": "stdout", "text": "1\n2\n"}]


def cell(cell_id, source, **more):
    return {
        "id": cell_id, "cell_type": "code", "source": source, "metadata": {}, "outputs": [],
        "execution_count": None, **more,
    }  # fmt: skip


def book(*cells):
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


A, B, C = cell("a", "x = 1\n", outputs=OUT, execution_count=1), cell("b", "y"), cell("c", "z")


def sources(content: bytes) -> dict[str, str]:
    return {c["id"]: "".join(c["source"]) for c in json.loads(content)["cells"]}


@pytest.fixture
async def nb(git):
    return await git.create("nb", {"n.ipynb": book(A, B, C).encode()}, EVE, "import")


async def test_two_agents_edit_different_cells(git, nb, put, tmp_path):
    await put(nb, "n.ipynb", book({**A, "source": "x = 2\n"}, B, C), repo="nb")
    await put(nb, "n.ipynb", book(A, B, {**C, "source": "Z"}), BOB, repo="nb")
    content = await git.read_live("nb", "n.ipynb")
    assert sources(content) == {"a": "x = 2\n", "b": "y", "c": "Z"}
    assert "".join(json.loads(content)["cells"][0]["outputs"][0]["text"]) == "1\n2\n"
    assert (tmp_path / "ws/nb/n.ipynb").read_bytes() == content
    with pytest.raises(Stale) as caught:
        await put(nb, "n.ipynb", book({**A, "source": "x = 3\n"}, B, C), BOB, repo="nb")
    assert caught.value.extra["conflicts"][0]["cell"] == "a"


async def test_a_deletion_that_does_not_fit_main_is_stale_with_its_texts(git, nb, put):
    edited = await put(nb, "n.ipynb", book({**A, "source": "x = 2\n"}, B, C), repo="nb")
    gone, dev = new_proposal_id(), await git.head("nb", "dev")
    await git.propose(gone, "nb", dev, [DeleteFile(path="n.ipynb")], BOB, "gone")
    await git.merge(gone)
    await git.revert(edited)
    with pytest.raises(Stale, match="changed on main") as caught:
        await git.candidate(gone)
    (conflict,) = caught.value.extra["conflicts"]
    assert ("x = 2" in conflict["base"], "x = 1" in conflict["theirs"]) == (True, True)


async def test_one_adds_a_cell_while_another_deletes_one(git, nb, put):
    new = cell("new", "n")
    added = await put(nb, "n.ipynb", book(A, new, B, C), repo="nb")
    await put(nb, "n.ipynb", book(A, B), BOB, repo="nb")
    assert list(sources(await git.read_live("nb", "n.ipynb"))) == ["a", "new", "b"]
    candidate = await git.candidate(added)
    only = await git.read("nb", candidate.revision, "n.ipynb")
    assert list(sources(only)) == ["a", "new", "b", "c"]
    await git.revert(added)
    assert list(sources(await git.read_live("nb", "n.ipynb"))) == ["a", "b"]


async def test_a_diff_of_the_canonical_text_is_an_edit(git, nb):
    before = (await git.read("nb", nb, "n.ipynb")).decode()
    diff = unified_diff(before, canonical("n.ipynb", book(A, {**B, "source": "why"}, C)), "n.ipynb")
    proposal = new_proposal_id()
    await git.propose(proposal, "nb", nb, [UnifiedDiff(path="n.ipynb", diff=diff)], ADA, "why")
    await git.merge(proposal)
    assert sources(await git.read_live("nb", "n.ipynb"))["b"] == "why"
    bad = [NewText(path="n.ipynb", text="{}")]
    with pytest.raises(InvalidInput, match="not a"):
        await git.propose(new_proposal_id(), "nb", nb, bad, ADA, "why")


async def test_a_room_that_runs_a_cell_and_an_agent_that_edits_it(git, nb, put, rooms):
    room = await rooms.enter(git, "nb", "n.ipynb")
    notebook, news = YNotebook(room.doc), []
    room.doc.observe(lambda event: news.append(bytes(event.update)))
    # As Jupyter does when it opens a file that nobody has signed, and when a cell runs.
    for index in range(3):
        notebook.ycells[index]["metadata"]["trusted"] = False
    notebook.ycells[1]["execution_count"] = 7
    notebook.ycells[1]["outputs"].append(pycrdt.Map({"output_type": "stream", "name": "stdout"}))
    notebook.ycells[1]["outputs"][0]["text"] = pycrdt.Text("ran\n")
    while news:
        await git.ingest(document(git, "nb", "n.ipynb"), news.pop(0), EVE)
    await put(nb, "n.ipynb", book(A, {**B, "source": "print('ran')"}, C), repo="nb")
    theirs = notebook.get()["cells"][1]
    assert (theirs["source"], theirs["execution_count"]) == ("print('ran')", 7)
    saved = json.loads(await git.read_live("nb", "n.ipynb"))["cells"][1]
    assert saved["outputs"][0]["text"] == ["ran\n"]
    assert "trusted" not in saved["metadata"]


async def test_an_odd_document_is_set_right_and_blocks_nothing(git, put, rooms):
    files = {"n.ipynb": book(A).encode(), "a.txt": b"one\n"}
    base = await git.create("two", files, EVE, "import")
    room = await rooms.enter(git, "two", "n.ipynb")
    news = []
    room.doc.observe(lambda event: news.append(bytes(event.update)))
    room.doc.get("cells", type=pycrdt.Array).append("no cell")
    room.doc.get("cells", type=pycrdt.Array).append(pycrdt.Map({"source": "no type"}))
    while news:
        await git.ingest(document(git, "two", "n.ipynb"), news.pop(0), EVE)
    await put(base, "a.txt", "two\n", repo="two")
    assert await git.read_live("two", "a.txt") == b"two\n"
    cells = json.loads(await git.read_live("two", "n.ipynb"))["cells"]
    assert [(cell["cell_type"], cell["source"]) for cell in cells[1:]] == [("raw", ["no type"])]
    await put(base, "n.ipynb", book(B), repo="two")
    assert "no type" in (await git.read_live("two", "n.ipynb")).decode()
