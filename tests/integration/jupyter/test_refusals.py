"""Whatever Jupyter's door refuses is recorded, whichever handler refuses it."""

from __future__ import annotations

import json

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

API = "/angelos/api"


async def refused(served):
    return json.loads((await served.ask(f"{API}/refused")).body)


async def signed_in(served, token):
    login = await served.ask(f"/lab?token={token}", None)
    return "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))


@pytest.mark.parametrize(
    ("method", "path", "token", "principal"),
    [
        ("POST", f"{API}/prepend?path=a&text=b", "t-viewer", "person/vera"),  # a role
        ("PUT", "/api/contents/x.txt", "t-viewer", "person/vera"),  # Jupyter's authorizer
        ("POST", "/api/kernels", "t-viewer", "person/vera"),
        ("POST", "/lab/api/workspaces/x", "t-viewer", "person/vera"),  # asks no authorizer
        ("GET", f"{API}/status", "wrong", "system/anonymous"),  # a token
        ("GET", "/api/contents", None, "system/anonymous"),
    ],
)
async def test_a_refused_call_is_recorded(served, method, path, token, principal):
    before = len(await refused(served))
    answer = await served.ask(path, token, method, body=b"{}" if method != "GET" else None)
    assert answer.code in {401, 403, 405}, answer.body
    if answer.code != 405:
        (refusal,) = (await refused(served))[before:]
        assert (refusal["principal"], refusal["door"]) == (principal, "jupyter")
        assert refusal["act"].startswith(f"{method} ")
        assert "text=b" not in json.dumps(refusal)


async def test_a_missing_xsrf_token_is_recorded(served):
    cookie = await signed_in(served, "t-researcher")
    before = len(await refused(served))
    answer = await served.ask(f"{API}/echo/x", None, "POST", headers={"Cookie": cookie}, body=b"{}")
    assert answer.code == 403
    (refusal,) = (await refused(served))[before:]
    assert refusal["principal"] == "person/rosa"


async def test_a_refused_socket_is_recorded(served):
    before = len(await refused(served))
    with pytest.raises(HTTPClientError):
        await websocket_connect(HTTPRequest(f"ws{served.url[4:]}{API}/events"))
    (refusal,) = (await refused(served))[before:]
    assert (refusal["principal"], refusal["code"]) == ("system/anonymous", "unauthenticated")
