"""Whoever is removed or quarantined is out of every open WebSocket at once."""

from __future__ import annotations

import asyncio
import json

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from angelos.client.rooms import RoomClient
from angelos.core.errors import Unavailable

API = "/angelos/api"
LEAVING = [("t-leaving", "/people/lea", "DELETE"), ("t-rogue", "/quarantine/rob", "POST")]


async def connect(served, path, token=None, **headers):
    if token:
        headers["Authorization"] = f"token {token}"
    return await websocket_connect(HTTPRequest(f"ws{served.url[4:]}{path}", headers=headers))


async def ended(link) -> tuple[int, str]:
    async with asyncio.timeout(20):
        while await link.read_message() is not None:
            pass
    link.close()
    return link.close_code, link.close_reason


@pytest.mark.parametrize(("token", "away", "method"), LEAVING)
async def test_whoever_goes_is_out(served, path, token, away, method):
    login = await served.ask(f"/lab?token={token}", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    other = await connect(served, f"{API}/events?kinds=task.accepted", "t-viewer")
    # Filters leave out the fact that ends it, and it has everything still to read.
    events = await connect(served, f"{API}/events?subject=task-none", token)
    by_cookie = await connect(served, f"{API}/events?subject=task-none", Cookie=cookies)
    started = await served.ask("/api/kernels", token, "POST", json={})
    kernel = json.loads(started.body)["id"]
    channels = await connect(served, f"/api/kernels/{kernel}/channels?session_id=s", token)
    async with (
        RoomClient(served.url, "t-owner", path) as stays,
        RoomClient(served.url, token, path) as goes,
    ):
        await goes.insert(0, "x")
        assert (await served.ask(f"{API}{away}", method=method)).code == 200
        for link in (events, by_cookie, channels):
            code, reason = await ended(link)
            assert code == 1008
            assert "was " in reason
        with pytest.raises(Unavailable, match="was "):
            await goes.wait_for(lambda _: False)
        await stays.insert(1, "y")
        assert served.logged(path) == "xyone\ntwo\n"
    listed = f"/api/kernels/{kernel}"
    async with asyncio.timeout(20):  # a person's kernels end with them
        while (await served.ask(listed)).code != 404:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await served.ask(f"{API}/say/task-after", method="POST")
    while json.loads(await other.read_message())["subject"] != "task-after":
        pass
    other.close()
    await ended(other)


async def signed_in(served, token):
    """Return the headers that a browser sends after it signed in."""
    login = await served.ask(f"/lab?token={token}", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    return {"Cookie": cookies, "Referer": served.url}


@pytest.mark.parametrize("token", ["t-owner", "t-researcher"])
async def test_signing_out_ends_every_copy_of_the_cookie_and_what_it_opened(served, token):
    first, copy = await signed_in(served, token), await signed_in(served, token)
    events = await connect(served, f"{API}/events?subject=task-none", Cookie=copy["Cookie"])
    assert (await served.ask(f"{API}/echo/x", None, headers=copy)).code == 200
    elsewhere = first | {"Sec-Fetch-Site": "cross-site"}
    assert (await served.ask("/logout", None, headers=elsewhere)).code == 403
    assert (await served.ask(f"{API}/echo/x", None, headers=copy)).code == 200, "others cannot"
    assert (await served.ask("/logout", None, headers=first)).code == 200
    code, reason = await ended(events)
    assert (code, "logged-out" in reason) == (1008, True)
    for headers in (first, copy):
        assert (await served.ask(f"{API}/echo/x", None, headers=headers)).code == 401
    again = await signed_in(served, token)
    assert (await served.ask(f"{API}/echo/x", None, headers=again)).code == 200
