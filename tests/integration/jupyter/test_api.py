"""The control API behind Jupyter's sign-in, and Jupyter's own API under our roles."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from angelos.core.routes import MAX_BODY_BYTES
from angelos.testing import eventually

API = "/angelos/api"


def problem(answer) -> dict:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return json.loads(answer.body)


async def test_a_route_answers_who_asked(served):
    owner = json.loads((await served.ask(f"{API}/echo/a%20b")).body)
    assert owner == {"by": "person/owner", "role": "admin", "what": "a b"}
    rosa = json.loads((await served.ask(f"{API}/echo/x", "t-researcher")).body)
    assert (rosa["by"], rosa["role"]) == ("person/rosa", "researcher")


async def test_jupyter_says_who_asked(served):
    answer = await served.ask("/api/me", "t-researcher")
    assert json.loads(answer.body)["identity"]["username"] == "rosa"


@pytest.mark.parametrize(
    ("path", "method", "token", "code"),
    [
        ("/echo/x", "GET", None, "unauthenticated"),
        ("/echo/x", "GET", "wrong", "unauthenticated"),
        ("/no/such", "GET", None, "unauthenticated"),
        ("/no/such", "GET", "t-owner", "not-found"),
        ("", "GET", "t-owner", "not-found"),
        ("/", "POST", "t-owner", "not-found"),
        ("/echo/x", "DELETE", "t-owner", "method-not-allowed"),
        ("/echo/x", "POST", "t-viewer", "forbidden"),
        ("/echo/x?unknown=1", "GET", "t-owner", "invalid-input"),
        ("/fail", "GET", "t-owner", "invalid-input"),
        ("/events", "GET", None, "unauthenticated"),
    ],
)
async def test_errors_are_problems_with_stable_codes(served, path, method, token, code):
    answer = await served.ask(f"{API}{path}", token, method)
    body = problem(answer)
    assert (body["code"], body["status"]) == (code, answer.code)
    assert body["trace"] == answer.headers["X-Trace-Id"]


async def test_a_huge_body_is_refused_before_it_is_read(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    head = [
        f"POST {API}/echo/x HTTP/1.1", "Host: 127.0.0.1", "Authorization: token t-owner",
        f"Content-Length: {MAX_BODY_BYTES + 1}",
    ]  # fmt: skip
    writer.write("\r\n".join([*head, "", ""]).encode())
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert said.startswith(b"HTTP/1.1 413")
    assert b'"code":"too-large"' in said


async def test_malformed_json_is_named(served):
    answer = await served.ask(f"{API}/echo/x", method="POST", body=b"{")
    assert problem(answer)["code"] == "invalid-input"


async def test_openapi_lists_the_routes_for_anybody(served):
    answer = await served.ask(f"{API}/openapi.json", None)
    assert answer.code == 200
    assert any("echo" in path for path in json.loads(answer.body)["paths"])


async def test_a_cookie_needs_the_xsrf_token_and_a_token_does_not(served):
    login = await served.ask("/lab?token=t-researcher", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    assert "username-" in cookies
    plain = await served.ask(f"{API}/echo/x", None, "POST", headers={"Cookie": cookies}, body=b"{}")
    assert problem(plain)["code"] == "forbidden"
    page = await served.ask("/login", None, headers={"Cookie": ""})
    xsrf = next(c for c in page.headers.get_list("Set-Cookie") if c.startswith("_xsrf"))
    value = xsrf.partition(";")[0].partition("=")[2]
    both = re.sub(r"_xsrf=[^;]*;? ?", "", cookies) + f"; _xsrf={value}"
    sent = await served.ask(
        f"{API}/echo/x", None, "POST", body=b"{}",
        headers={"Cookie": both, "X-XSRFToken": value.strip('"')},
    )  # fmt: skip
    assert sent.code == 200, sent.body
    assert json.loads(sent.body)["by"] == "person/rosa"


async def test_a_person_signs_in_on_the_login_page(served):
    page = await served.ask("/login", None)
    xsrf = next(c for c in page.headers.get_list("Set-Cookie") if c.startswith("_xsrf"))
    value = xsrf.partition(";")[0].partition("=")[2]
    for password, code in (("t-viewer", 302), ("nobody's", 401)):
        answer = await served.ask(
            "/login", None, "POST", body=f"password={password}&_xsrf={value}",
            headers={
                "Cookie": f"_xsrf={value}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )  # fmt: skip
        assert answer.code == code


@pytest.mark.parametrize(
    ("method", "path", "viewer", "researcher"),
    [
        ("GET", "/api/contents/study", 200, 200),
        ("PUT", "/api/contents/new.txt", 403, 201),
        ("GET", "/api/kernels", 200, 200),
        ("POST", "/api/kernels", 403, 201),
        ("POST", "/api/terminals", 403, 404),  # they would run in no box
        ("GET", "/api/kernelspecs", 200, 200),
        ("GET", "/api/status", 200, 200),
        ("GET", "/api/nbconvert", 200, 200),
        ("GET", "/nbconvert/html/none.ipynb", 403, 404),  # it runs programs over the file
        ("POST", "/api/shutdown", 403, 403),
    ],
)
async def test_jupyters_own_resources_follow_the_roles(served, method, path, viewer, researcher):
    body = {"type": "file", "format": "text", "content": "x"} if "contents" in path else None
    more = {"json": body} if method == "PUT" else {}
    for token, code in (("t-viewer", viewer), ("t-researcher", researcher)):
        answer = await served.ask(path, token, method, **more)
        assert answer.code == code, answer.body
        if method == "POST" and code in {200, 201}:
            known = json.loads(answer.body)
            name = known.get("id") or known["name"]
            assert (await served.ask(f"{path}/{name}", token, "DELETE")).code == 204


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("PUT", "/{}", {"type": "file", "format": "text", "content": "gone"}),
        ("DELETE", "/study", None),
        ("PATCH", "/study", {"path": "other"}),
        ("PATCH", "/scratch.txt", {"path": "{}"}),
        ("POST", "/{}/checkpoints/checkpoint", None),
        ("PUT", "/study/../{}", {"type": "file", "format": "text", "content": "gone"}),
    ],
)
async def test_nobody_writes_a_managed_document_past_its_room(served, path, method, below, body):
    if body and body.get("path") == "{}":
        body = {"path": path}
    more = {"json": body} if body else {}
    answer = await served.ask("/api/contents" + below.format(path), method=method, **more)
    # A path with `..` in it reads as a hidden one, which nobody writes.
    assert answer.code == (403 if ".." in below else 409), answer.body
    says = r"is hidden" if ".." in below else r"study(/.*)? is managed by AngelOS"
    assert re.search(says, json.loads(answer.body)["message"])
    assert (served.workspace / path).read_text() == "one\ntwo\n"


@pytest.mark.parametrize("body", ["[]", "null", '"x"', '{"path": 1}', "{"])
async def test_a_rename_without_a_name_is_the_callers_mistake(served, path, body):
    answer = await served.ask(f"/api/contents/{path}", "t-researcher", "PATCH", body=body)
    assert answer.code == 400, answer.body


SETTINGS = "/lab/api/settings/@jupyterlab/apputils-extension:themes"


@pytest.mark.parametrize(
    ("method", "path", "body", "researcher"),
    [
        ("PUT", SETTINGS, {"raw": "{}"}, 204),
        ("PUT", "/lab/api/workspaces/w", {"data": {}, "metadata": {"id": "w"}}, 204),
        ("DELETE", "/lab/api/workspaces/w", None, 204),
        ("POST", "/lab/api/extensions", {"cmd": "none", "extension_name": "x"}, 422),
    ],
)
async def test_a_viewer_writes_nothing_of_jupyterlabs_own(served, method, path, body, researcher):
    more = {"json": body} if body else {}
    if method == "DELETE":  # there has to be one
        made = {"data": {}, "metadata": {"id": path.rpartition("/")[2]}}
        assert (await served.ask(path, "t-researcher", "PUT", json=made)).code == 204
    for token, code in (("t-viewer", 403), ("t-researcher", researcher)):
        answer = await served.ask(path, token, method, **more)
        assert answer.code == code, answer.body
    assert (await served.ask(SETTINGS, "t-viewer")).code == 200


async def test_files_that_nobody_manages_are_written_as_ever(served, path):
    body = {"type": "file", "format": "text", "content": "mine"}
    for method, where, more, code in (
        ("PUT", "study/scratch-a.txt", {"json": body}, 201),
        ("PUT", "study/scratch-a.txt", {"json": body}, 200),
        ("PATCH", "study/scratch-a.txt", {"json": {"path": "study/scratch-b.txt"}}, 200),
        ("DELETE", "study/scratch-b.txt", {}, 204),
    ):
        answer = await served.ask(f"/api/contents/{where}", "t-researcher", method, **more)
        assert answer.code == code, (where, answer.body)


async def test_a_fork_of_a_managed_document_is_refused(served, path):
    session = await served.ask(
        f"/api/collaboration/session/{path}", method="PUT", json={"format": "text", "type": "file"}
    )
    room = f"text:file:{json.loads(session.body)['fileId']}"
    answer = await served.ask(f"/api/collaboration/fork/{room}", method="PUT", json={})
    assert answer.code == 409


async def test_a_viewer_has_the_server_keep_no_copies(served, path):
    timeline = f"/api/collaboration/timeline/{path}?format=text&type=file"
    assert (await served.ask(timeline, "t-viewer")).code == 403
    assert (await served.ask(timeline, "t-researcher")).code == 404  # nobody has it open


async def leave(link) -> None:
    link.close()
    while await link.read_message() is not None:
        pass


async def test_a_reader_that_has_left_is_not_held(served):
    url = f"ws{served.url[4:]}{API}/events"
    headers = {"Authorization": "token t-owner"}
    for _ in range(20):
        socket = await websocket_connect(
            HTTPRequest(url, headers=headers), subprotocols=["angelos.json"]
        )
        socket.close()

    async def left():
        answer = await served.ask(f"{API}/event-handlers")
        return json.loads(answer.body)["count"] == 0

    await eventually(left, "readers that are let go of")


async def test_events_come_in_order_and_resume_by_offset(served):
    for what in ("task-a", "task-b"):
        answer = await served.ask(f"{API}/say/{what}", method="POST")
        assert answer.code == 200, answer.body
    headers = {"Authorization": "token t-viewer"}
    url = f"ws{served.url[4:]}{API}/events"
    first = await websocket_connect(HTTPRequest(f"{url}?kinds=task.accepted", headers=headers))
    facts = [json.loads(await first.read_message()) for _ in range(2)]
    assert [fact["subject"] for fact in facts] == ["task-a", "task-b"]
    await served.ask(f"{API}/say/task-c", method="POST")
    third = json.loads(await first.read_message())
    assert third["subject"] == "task-c"
    await leave(first)
    query = f"?after={facts[0]['offset']}&subject=task-c&kinds=task.accepted"
    again = await websocket_connect(HTTPRequest(url + query, headers=headers))
    assert json.loads(await again.read_message()) == third
    await leave(again)


UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "eHh4eHh4eHh4eHh4eHh4eA==",
}  # fmt: skip


@pytest.mark.parametrize("query", ["after=x", "kinds=none", "other=1", "after=0-0&after=0-1"])
async def test_events_refuse_what_they_do_not_know(served, query):
    answer = await served.ask(f"{API}/events?{query}", headers=UPGRADE)
    assert problem(answer)["code"] == "invalid-input"


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [("GET", "/events", UPGRADE), ("GET", "/events", {}), ("POST", "/echo/x", {})],
)
async def test_a_cookie_is_nothing_from_a_page_of_another_origin(served, method, path, more):
    login = await served.ask("/lab?token=t-researcher", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    headers = {"Cookie": cookies, "Origin": "http://elsewhere.example", **more}
    answer = await served.ask(f"{API}{path}", None, method, headers=headers)
    assert (answer.code, problem(answer)["code"]) == (403, "forbidden")


async def test_a_removed_person_is_out_at_once_with_token_and_cookie(served):
    login = await served.ask("/lab?token=t-guest", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    headers = {"Cookie": cookies, "Referer": served.url}
    assert (await served.ask(f"{API}/echo/x", None, headers=headers)).code == 200
    assert (await served.ask(f"{API}/people/gus", method="DELETE")).code == 200
    assert (await served.ask(f"{API}/echo/x", "t-guest")).code == 401
    for _ in range(30):
        if (await served.ask(f"{API}/echo/x", None, headers=headers)).code == 401:
            break
    else:
        await asyncio.sleep(1.1)  # the list of people is cached for a second
        assert (await served.ask(f"{API}/echo/x", None, headers=headers)).code == 401


@pytest.fixture
async def away(served):
    """A database of people that does not answer."""
    login = await served.ask("/lab?token=t-researcher", None)
    cookies = "; ".join(c.partition(";")[0] for c in login.headers.get_list("Set-Cookie"))
    assert (await served.ask(f"{API}/database/away", method="POST")).code == 200
    yield {"Cookie": cookies, "Referer": served.url}
    assert (await served.ask(f"{API}/database/back", method="POST")).code == 200


@pytest.mark.parametrize(
    "path", [f"{API}/echo/x", f"{API}/events", "/api/contents", "/lab", "/api/kernels"]
)
async def test_who_cannot_be_looked_up_is_told_so_and_keeps_the_cookie(served, away, path):
    await eventually_away(served, away)
    for token, headers in ((None, away), ("t-researcher", {})):
        answer = await served.ask(path, token, headers=headers)
        assert answer.code == 503, answer.body
        assert b"PostgreSQL does not answer." in answer.body
        assert not [c for c in answer.headers.get_list("Set-Cookie") if "username-" in c]
    assert (await served.ask(f"{API}/echo/x")).code == 200, "the owner is the server's own"


async def test_the_login_page_is_there_while_nobody_can_be_looked_up(served, away):
    await eventually_away(served, away)
    page = await served.ask("/login", None, headers=away)
    assert page.code == 200
    assert not [c for c in page.headers.get_list("Set-Cookie") if "username-" in c]
    page = await served.ask("/login", None)
    xsrf = next(c for c in page.headers.get_list("Set-Cookie") if c.startswith("_xsrf"))
    value = xsrf.partition(";")[0].partition("=")[2]
    for password, code in (("t-researcher", 503), ("t-owner", 302)):
        answer = await served.ask(
            "/login", None, "POST", body=f"password={password}&_xsrf={value}",
            headers={
                "Cookie": f"_xsrf={value}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )  # fmt: skip
        assert answer.code == code, answer.body


async def eventually_away(served, cookie) -> None:
    """Wait until the list of people, which is kept for a second, is asked for again."""

    async def asked() -> bool:
        return (await served.ask(f"{API}/echo/x", None, headers=cookie)).code != 200

    await eventually(asked)


@pytest.mark.parametrize("token", ["t-viewer", "t-owner"])
@pytest.mark.parametrize("path", ["/lab", "/tree/study", "/no/such/page"])
async def test_no_page_carries_the_servers_token(served, path, token):
    answer = await served.ask(path, token)
    body = answer.body.decode()
    assert answer.code in {200, 302, 404}
    assert "t-owner" not in body
    assert path != "/lab" or '"token": ""' in body
