"""A viewer in JupyterLab: sees what others type, and is told that nothing of theirs is saved.

`ANGELOS_PICTURE=/tmp/read_only.png pytest tests/browser/test_read_only.py` takes a screenshot.
"""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack

import pytest

from angelos.adapters.host.datadir import DataDir
from angelos.client.rooms import RoomClient
from angelos.core.permissions import Role
from angelos.demo.world import start_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CELL = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Notes"}
BOOK = {"cells": [CELL], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
TOLD = "You may only read here. What you typed was not saved."


async def test_what_a_viewer_types_is_not_taken_and_they_see_that(browser, tmp_path):
    async with AsyncExitStack() as stack:
        world = await start_up(tmp_path / "data", stack)
        angelos, system = world.angelos, DataDir(world.data_dir).system()
        study = await angelos.repos.create(
            "study", {"notes.md": "one\ntwo\n", "b.ipynb": json.dumps(BOOK)}
        )
        vera = await angelos.people.add("vera", Role.viewer)
        page = await browser.new_page(viewport={"width": 1180, "height": 700})
        dialog = page.locator(".jp-Dialog")
        url = f"{system.url}/lab/tree/study/notes.md?reset&token={vera.token}"
        await page.goto(url)
        line = page.locator(".cm-line").first
        await line.get_by_text("one").wait_for(timeout=60_000)
        async with RoomClient(system.url, system.token, "study/notes.md") as owner:
            await owner.insert(0, "typed by the owner, ")
            await line.get_by_text("typed by the owner, one").wait_for()
            assert await dialog.count() == 0  # JupyterLab's own words are not theirs
            await line.click()
            await page.keyboard.type("lost ")
            await dialog.get_by_text(TOLD).wait_for()
            if os.environ.get("ANGELOS_PICTURE"):
                await page.screenshot(path=os.environ["ANGELOS_PICTURE"])
            await page.wait_for_timeout(3000)  # the page connects again meanwhile
            assert await dialog.count() == 1
            async with page.expect_navigation():
                await dialog.get_by_role("button", name="Reload").click()
            await line.get_by_text("typed by the owner, one").wait_for(timeout=60_000)
            assert "lost" not in await page.locator(".cm-content").inner_text()
            await owner.insert(0, "and ")
            await line.get_by_text("and typed by the owner, one").wait_for()
            assert owner.text == "and typed by the owner, one\ntwo\n"
        assert await study.read_live("notes.md") == owner.text.encode()


async def test_a_viewer_may_open_a_notebook_and_is_told_once_they_type(browser, tmp_path):
    async with AsyncExitStack() as stack:
        world = await start_up(tmp_path / "data", stack)
        system = DataDir(world.data_dir).system()
        study = await world.angelos.repos.create("study", {"b.ipynb": json.dumps(BOOK)})
        before = await study.read_live("b.ipynb")
        vera = await world.angelos.people.add("vera", Role.viewer)
        page = await browser.new_page(viewport={"width": 1180, "height": 700})
        await page.goto(f"{system.url}/lab/tree/study/b.ipynb?reset&token={vera.token}")
        cell = page.locator(".jp-Notebook .jp-Cell").first
        await cell.wait_for(timeout=60_000)
        dialog = page.locator(".jp-Dialog")
        await dialog.get_by_role("button", name="No Kernel").click()
        await page.wait_for_timeout(3000)  # what JupyterLab writes by itself is not theirs
        assert await dialog.count() == 0
        await cell.click()
        await page.keyboard.press("Enter")
        await cell.locator(".cm-content").click()
        await page.keyboard.type("lost ")
        await dialog.get_by_text(TOLD).wait_for()
        assert await study.read_live("b.ipynb") == before
