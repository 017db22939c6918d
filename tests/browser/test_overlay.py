"""Pending edits in JupyterLab: a notebook is typed into while a proposal is accepted by the cell.

`ANGELOS_PICTURE=/tmp/overlay.png pytest tests/browser/test_overlay.py` takes a screenshot.
"""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import expect

from angelos.adapters.host.datadir import DataDir
from angelos.core.permissions import Role
from angelos.core.repository import NewText
from angelos.demo.world import start_agent, start_up
from angelos.testing import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NAMES = ("one", "two", "three", "four")
ATTACK = '<img src=x onerror="window.attacked = 1">'


def cell(name, source):
    return {"cell_type": "raw", "id": name, "metadata": {}, "source": source}


def book(**sources):
    cells = [cell(name, source) for name, source in sources.items()]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


BASE = {name: f"{name}, as it was\n" for name in NAMES}
AGENTS = {
    "one": BASE["one"], "two": f"two by ada {ATTACK}\n", "new": "a new cell by ada\n",
    "three": "three by ada\n",
}  # fmt: skip
"""The fourth cell is deleted."""
TYPED = "all that I type while cells are accepted and rejected stays"
DECISIONS = [
    ("Accept", "three by ada"), ("Accept", "a new cell by ada"), ("Reject", "two by ada"),
]  # fmt: skip


async def opened(browser, url, token):
    """Open the notebook in a browser window of its own; its page."""
    context = await browser.new_context(viewport={"width": 1180, "height": 1000})
    page = await context.new_page()
    await page.goto(f"{url}/lab/tree/study/n.ipynb?reset&token={token}")
    await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=90_000)
    dialog = page.locator(".jp-Dialog")
    await dialog.get_by_role("button", name="No Kernel").click(timeout=60_000)
    await page.locator(".angelos-card").first.wait_for(timeout=60_000)
    return page


async def click(cards, verdict, text):
    """Click a button of the card that has a text."""
    card = cards.filter(has_text=text).first
    await card.get_by_role("button", name=verdict, exact=True).click()


async def sources(study):
    live = json.loads(await study.read_live("n.ipynb"))
    return {c["id"]: "".join(c["source"]) for c in live["cells"]}


async def same(study, expected):
    return await sources(study) == expected


async def test_every_keystroke_survives_while_cells_are_accepted(browser, tmp_path):
    async with AsyncExitStack() as stack:
        world = await start_up(tmp_path / "data", stack)
        system, angelos = DataDir(world.data_dir).system(), world.angelos
        world.repo = "study"
        study = await angelos.repos.create("study", {"n.ipynb": book(**BASE)})
        ada = await start_agent(world, "ada", stack)
        edit = NewText(path="n.ipynb", text=book(**AGENTS))
        proposal = await ada.propose("main", [edit], "Better cells")
        rita = await angelos.people.add("rita", Role.reviewer)
        page = await opened(browser, system.url, rita.token)
        cards = page.locator(".angelos-card")
        assert await cards.count() == 4
        if os.environ.get("ANGELOS_PICTURE"):
            await page.screenshot(path=os.environ["ANGELOS_PICTURE"])
        assert await sources(study) == BASE, "nothing of it is in the notebook"

        await page.locator(".jp-Cell .cm-content").first.click()
        await page.keyboard.press("Control+Home")
        decisions = iter(DECISIONS)
        for number, letter in enumerate(TYPED):
            if number % 12 == 4 and (decision := next(decisions, None)):
                await click(cards, *decision)  # takes the focus from nobody
            await page.keyboard.type(letter)
        await expect(cards).to_have_count(1, timeout=60_000)
        assert await page.evaluate("window.attacked") is None
        await page.locator(".jp-Cell").get_by_text("a new cell by ada").first.wait_for()
        expected = {
            "one": TYPED + BASE["one"], "two": BASE["two"], "new": AGENTS["new"],
            "three": AGENTS["three"], "four": BASE["four"],
        }  # fmt: skip
        await eventually(lambda: same(study, expected), "the notebook as it was decided")
        present = await sources(study)
        assert list(present) == ["one", "two", "new", "three", "four"]
        await expect(cards).to_contain_text("agent/ada")
        await expect(cards).to_contain_text("is deleted")
        # It goes stale under the hands of whoever types into that cell.
        await page.get_by_text(BASE["four"].strip()).first.click()
        await page.keyboard.press("Enter")
        await page.keyboard.type("mine ")
        await cards.filter(has_text="stale").wait_for(timeout=60_000)
        await cards.get_by_role("button", name="Accept", exact=True).click()
        await cards.filter(has_text="changed").wait_for()
        view = await angelos.proposals[proposal.id].view()
        assert view.state not in {"rejected", "promoted"}
        assert "mine" in (await sources(study))["four"]
