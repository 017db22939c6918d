"""A person in JupyterLab: sees a node, a running task and a waiting approval, and clicks Approve.

`ANGELOS_PICTURE=1 pytest tests/browser/test_dashboard.py` also takes the README's screenshot.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient

from angelos.adapters.host.datadir import DataDir
from angelos.client import Angelos
from angelos.core.errors import AngelError
from angelos.core.messages import Limits
from angelos.core.permissions import Role
from angelos.core.repository import NewText
from angelos.demo import patches, study
from angelos.demo.world import World, start_agent, start_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "dashboard.png"
SIZE = {"width": 1180, "height": 1000}
ATTACK = '<img src=x onerror="window.attacked = 1">'
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code", "id": "dashboard", "metadata": {}, "execution_count": None,
            "outputs": [], "source": "from angelos.dashboard import Dashboard\n\nDashboard()",
        }
    ],
    "metadata": {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
        }
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip
TRAINING = """
import time
for step in range(600):
    print(f"step {step:3}  loss {2.4 / (1 + step / 7):.4f}", flush=True)
    time.sleep(0.3)
"""


async def waiting_proposal(world: World, stack: AsyncExitStack) -> str:
    """Let an agent propose what a person has to agree to, and wait until it does wait."""
    lines = study.ANGELOS_TOML.splitlines(keepends=True)
    world.files[study.POLICY] = "".join(line for line in lines if "notebook" not in line)
    await world.angelos.repos.create(world.repo, world.files)
    ada = await start_agent(world, "ada", stack)
    path = study.PROTECTED
    edit = NewText(path=path, text=patches.looser_tolerance(world.files[path]))
    proposal = await ada.propose("main", [edit], "Allow a looser tolerance")
    view = await world.settled(proposal.id)
    assert view.state == "waiting", (view.reason, view.steps)
    return view.id


async def notebook_url(world: World, name: str, token: str = "") -> str:
    """Put the notebook into the workspace and return where a person opens it."""
    system = DataDir(world.data_dir).system()
    answer = await AsyncHTTPClient().fetch(
        f"{system.url}/api/contents/{name}.ipynb",
        method="PUT",
        headers={"Authorization": f"token {system.token}"},
        body=json.dumps({"type": "notebook", "format": "json", "content": NOTEBOOK}),
    )
    assert answer.code in {200, 201}
    return f"{system.url}/lab/workspaces/{name}/tree/{name}.ipynb?token={token or system.token}"


async def open_dashboard(page, url: str):
    """Open the notebook, run its cell and return the dashboard."""
    await page.goto(url)
    await page.get_by_text("| Idle").wait_for(timeout=60_000)
    await page.locator(".jp-Notebook .jp-InputArea-editor").first.click()
    await page.keyboard.press("Shift+Enter")
    root = page.locator(".ad-root")
    await root.wait_for(timeout=60_000)
    return root


async def test_a_click_on_approve_moves_main(browser, tmp_path):
    async with AsyncExitStack() as stack:
        world = await start_up(tmp_path / "data", stack)
        proposal = await waiting_proposal(world, stack)
        before = await world.main()
        limits = Limits(wall_s=200, cpu_s=60)
        task = await world.angelos.tasks.start(TRAINING, label="train", limits=limits)
        page = await browser.new_page(viewport=SIZE)
        streams = []
        page.on(
            "websocket",
            lambda socket: streams.append(socket.url) if "/api/events" in socket.url else None,
        )
        root = await open_dashboard(page, await notebook_url(world, "dashboard"))
        await root.get_by_text("exec1", exact=True).wait_for()
        await root.get_by_text("Allow a looser tolerance").first.wait_for()
        await root.get_by_text("+TOLERANCE").wait_for()
        await root.get_by_text("step   3").wait_for()
        if os.environ.get("ANGELOS_PICTURE"):
            await take_picture(page)
        await root.get_by_role("button", name="Approve: Allow a looser tolerance").click()
        await world.settled(proposal, ("approved", "testing", "promoted"))
        await world.fact("branch.advanced", f"{world.repo}:main", before=before)
        assert await world.main() != before
        await root.get_by_text("Nothing waits for you.").wait_for()
        await root.get_by_text("✓ promoted").wait_for()
        await task.cancel()
        await world.angelos.tasks.run(f"print({ATTACK!r})", label=ATTACK)
        await root.get_by_text(ATTACK).first.wait_for()
        assert await root.locator("img").count() == 0
        assert await page.evaluate("window.attacked") is None
        view = await world.angelos.proposals[proposal].view()
        assert view.approvals == ("person/owner",)
        await two_people_agree(world, browser, root)
        await survives_a_restart(world, page, streams)


async def two_people_agree(world: World, browser, root) -> None:
    """A change of the rules: each of two people clicks in a browser of their own."""
    rhea = await world.angelos.people.add("rhea", Role.researcher)
    vera = await world.angelos.people.add("vera", Role.reviewer)
    rules = (await world.text("angelos.toml")).replace("timeout_s = 60", "timeout_s = 61")
    async with Angelos.connect(world.data_dir, rhea.token) as angelos:
        edit = NewText(path="angelos.toml", text=rules)
        proposal = await angelos.repos[world.repo].propose(
            [edit], base="main", message="A second more"
        )
    view = await world.settled(proposal.id)
    assert (view.state, view.needs) == ("waiting", 2), view
    before = await world.main()
    agree = "Approve: A second more"
    await root.get_by_role("button", name=agree).click()
    await world.fact("proposal.approved", proposal.id, actor="person/owner")
    assert await world.main() == before
    context = await browser.new_context(viewport=SIZE)
    hers = await open_dashboard(
        await context.new_page(), await notebook_url(world, "hers", vera.token)
    )
    await hers.get_by_role("button", name=agree).click()
    await world.fact("branch.advanced", f"{world.repo}:main", before=before)
    view = await world.angelos.proposals[proposal.id].view()
    assert set(view.approvals) == {"person/owner", "person/vera"}
    await context.close()


async def restart_hub(world: World) -> None:
    """Kill the server, of which the hub is a part, and wait until another one has its place."""
    data = DataDir(world.data_dir)
    pid = next(p.pid for p in data.processes() if p.name == "server")
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while {p.name: p.pid for p in data.processes()}["server"] == pid:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def survives_a_restart(world: World, page, streams: list[str]) -> None:
    """Restart the hub: the dashboard goes on by itself, although its kernel ended with it."""
    assert streams, "the page has a stream of events of its own"
    before = len(streams)
    await page.evaluate("window.neverReloaded = true")
    await restart_hub(world)
    async with asyncio.timeout(90):
        while True:
            try:
                async with Angelos.connect(world.data_dir) as angelos:
                    await angelos.tasks.run("print(1)", label="after the restart")
                break
            except AngelError:
                await asyncio.sleep(0.5)
    root = page.locator(".ad-root")
    await root.get_by_text("after the restart").wait_for(timeout=90_000)
    await root.get_by_text("connected · isolation").wait_for(timeout=90_000)
    assert await page.evaluate("window.neverReloaded")
    assert len(streams) > before


async def take_picture(page) -> None:
    """Save what the README shows: JupyterLab without its side bar, the dashboard in full."""
    news = page.get_by_role("button", name="No", exact=True)
    if await news.count():
        await news.click()
    await page.keyboard.press("Control+b")
    await asyncio.sleep(1.5)  # until JupyterLab has moved its panels; it does not say when
    await page.screenshot(path=PICTURE)
