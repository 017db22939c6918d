"""What a page typed into a cell that was deleted meanwhile is live, in the log, and on disk."""

from __future__ import annotations

import json

import pycrdt
import pytest

from angelos.angelgit.documents import notebook

from .conftest import EVE, document


def book(*cells: tuple[str, str]) -> str:
    rows = [
        {"id": id_, "cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None,
         "source": source}
        for id_, source in cells
    ]  # fmt: skip
    body = {"cells": rows, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return notebook.dump(notebook.parse(json.dumps(body), "n.ipynb"))


class Page:
    def __init__(self, updates):
        self.doc = pycrdt.Doc()
        self.cells = self.doc.get("cells", type=pycrdt.Array)
        for update in updates:
            self.doc.apply_update(update)

    def type(self, text: str, at: int) -> bytes:
        before = self.doc.get_state()
        self.cells[0]["source"].insert(at, text)
        return self.doc.get_update(before)


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("kept", [(("b", "B"), ("c", "C"), ("a", "A")), (("b", "B"), ("c", "C"))],
                         ids=["moved", "deleted"])  # fmt: skip
async def test_it_is_seen_over_a_restart_too(start, put, git, kept, restart):
    first = await git.create(
        "nb", {"n.ipynb": book(("a", "A"), ("b", "B"), ("c", "C")).encode()}, EVE, "import"
    )
    id_ = document(git, "nb", "n.ipynb")
    page = Page(await git.room_updates(id_))
    await put(first, "n.ipynb", book(*kept), repo="nb")
    extra = await git.ingest(id_, page.type("x", 0), EVE)
    assert extra
    typed = page.type("y", 1)

    async def sources(git) -> list[str]:
        cells = json.loads(await git.read_live("nb", "n.ipynb"))["cells"]
        return sorted("".join(cell["source"]) for cell in cells)

    if restart:
        async with start() as again:
            await again.ingest(id_, typed, EVE)
            assert await sources(again) == ["B", "C", "xyA"]
        async with start() as again:
            assert await sources(again) == ["B", "C", "xyA"]
    else:
        await git.ingest(id_, typed, EVE)
        await git.ingest(id_, page.doc.get_update(), EVE)  # as when it connects again
        assert await sources(git) == ["B", "C", "xyA"]
