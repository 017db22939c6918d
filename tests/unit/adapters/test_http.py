"""Routes on Tornado: whatever comes in, a clear answer goes out and nothing is kept in memory."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest
import tornado.httpserver
import tornado.netutil
from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import Application

from angelos.adapters.net.http import Answer, NoSuchRoute, answer, compile_path, mount
from angelos.core.errors import Stale, Unauthenticated, from_problem
from angelos.core.ids import PrincipalId
from angelos.core.messages import Input
from angelos.core.openapi import openapi_route
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import Call, Nothing, Route

VIEWER = Principal(id=PrincipalId("person/vera"), role=Role.viewer)
LIMIT = 200_000


class Wish(Input, frozen=True):
    name: str
    count: int = 1


async def wish(call: Call[Wish]) -> dict:
    return {"name": call.body.name, "params": dict(call.params), "query": dict(call.query)}


async def explode(call: Call[Nothing]) -> dict:
    msg = "secret detail"
    raise RuntimeError(msg)


async def stale(call: Call[Nothing]) -> dict:
    raise Stale("lines 3-4 changed", hint="Read again.", conflicts=[{"path": "a.py"}])


async def raw(call: Call[Nothing]) -> bytes:
    return b"\x00raw"


def routes() -> list[Route]:
    p = Permission
    found = [
        Route("POST", "/things/{thing}", p.status_read, wish, request=Wish, status=201,
              response=dict, query=("wait",), max_body=LIMIT, summary="Wish"),
        Route("GET", "/things/special", p.status_read, raw,
              media_type="application/octet-stream", summary="Raw"),
        Route("GET", "/things/{thing}", p.status_read, stale, summary="Stale"),
        Route("GET", "/explode", p.status_read, explode, summary="Explode"),
        Route("POST", "/manage", p.people_manage, wish, request=Wish, summary="Manage"),
        Route("GET", "/open", p.anyone, raw, media_type="text/plain", summary="Open"),
    ]  # fmt: skip
    return [*found, openapi_route(found)]


async def principal_of(request) -> Principal | None:
    who = request.headers.get("X-Who", "vera")
    if who == "revoked":
        raise Unauthenticated("The certificate is revoked.")
    return None if who == "nobody" else VIEWER


@pytest.fixture
async def url():
    application = Application(
        mount(routes(), principal_of),
        default_handler_class=NoSuchRoute,
        default_handler_args={"principal_of": principal_of},
        log_function=lambda _: None,
    )
    server = tornado.httpserver.HTTPServer(application, max_body_size=1000)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    server.stop()
    await server.close_all_connections()


async def ask(url: str, path: str, method: str = "GET", **how):
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(
            HTTPRequest(f"{url}/angelos/api{path}", method, allow_nonstandard_methods=True, **how),
            raise_error=False,
        )
    finally:
        client.close()


async def test_a_good_request(url):
    got = await ask(url, "/things/a%2Fb?wait=3", "POST", body='{"name":"x"}')
    assert got.code == 201
    assert msgspec.json.decode(got.body) == {
        "name": "x", "params": {"thing": "a/b"}, "query": {"wait": "3"},
    }  # fmt: skip
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["Cache-Control"] == "no-store"
    assert "Server" not in got.headers


async def test_a_path_without_parameters_comes_first(url):
    assert (await ask(url, "/things/special")).body == b"\x00raw"


@pytest.mark.parametrize(
    ("path", "method", "how", "status", "code"),
    [
        ("/things/a", "POST", {"body": "{"}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": '{"name":"x","more":1}'}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": '{"name":7}'}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": '{"name":"x","count":"1"}'}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": ""}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": b"\xff\xfe"}, 400, "invalid-input"),
        ("/things/a", "POST", {"body": b"[" * 100_000}, 400, "invalid-input"),
        ("/things/a?other=1", "POST", {"body": '{"name":"x"}'}, 400, "invalid-input"),
        ("/things/a?wait=1&wait=2", "POST", {"body": '{"name":"x"}'}, 400, "invalid-input"),
        ("/things/a%00b", "POST", {"body": '{"name":"x"}'}, 400, "invalid-input"),
        ("/things/%ff", "POST", {"body": '{"name":"x"}'}, 400, "invalid-input"),
        ("/things/a", "GET", {}, 409, "stale"),
        ("/nothing", "GET", {}, 404, "not-found"),
        ("/things/a/b", "GET", {}, 404, "not-found"),
        ("/things/a", "DELETE", {}, 405, "method-not-allowed"),
        ("/things/a", "BREW", {}, 405, "method-not-allowed"),
        ("/manage", "POST", {"body": "{}"}, 403, "forbidden"),
        ("/things/special", "GET", {"headers": {"X-Who": "nobody"}}, 401, "unauthenticated"),
        ("/things/special", "GET", {"headers": {"X-Who": "revoked"}}, 401, "unauthenticated"),
        ("/nothing", "GET", {"headers": {"X-Who": "revoked"}}, 401, "unauthenticated"),
        ("/things/a", "POST", {"body": b"x" * (LIMIT + 1)}, 413, "too-large"),
        ("/manage", "POST", {"body": b"x" * 100_000_000}, 403, "forbidden"),
    ],
)
async def test_bad_requests_get_a_problem_with_a_stable_code(url, path, method, how, status, code):
    got = await ask(url, path, method, **how)
    assert got.code == status
    assert got.headers["Content-Type"] == "application/problem+json"
    problem = msgspec.json.decode(got.body)
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["trace"] == got.headers["X-Trace-Id"]
    assert from_problem(problem).code == code
    assert (status == 405) == ("Allow" in got.headers)  # RFC 9110, section 15.5.6


async def test_a_refused_method_names_the_others(url):
    assert (await ask(url, "/things/a", "PUT")).headers["Allow"] == "GET, POST"


async def test_an_unexpected_error_tells_nothing_but_where_to_look(url, caplog):
    with caplog.at_level(logging.ERROR):
        got = await ask(url, "/explode")
    assert got.code == 500
    assert b"secret" not in got.body
    problem = msgspec.json.decode(got.body)
    assert problem["code"] == "internal"
    (record,) = [r for r in caplog.records if problem["trace"] in r.getMessage()]
    assert "secret detail" in str(record.exc_info)


async def test_what_anyone_may_needs_nobody(url):
    assert (await ask(url, "/open", headers={"X-Who": "nobody"})).code == 200
    assert (await ask(url, "/openapi.json", headers={"X-Who": "nobody"})).code == 200


@pytest.mark.parametrize(
    "header", ["Content-Length: 20000000000", "Transfer-Encoding: chunked"], ids=["told", "chunked"]
)
async def test_a_huge_body_is_not_read(url, header):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /angelos/api/things/a HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
    sent = 0

    async def flood() -> None:
        nonlocal sent
        block = b"x" * 65536
        if "chunked" in header:
            block = b"10000\r\n" + block + b"\r\n"
        try:
            while sent < 100_000_000:
                writer.write(block)
                await writer.drain()
                sent += len(block)
        except ConnectionError:
            pass

    flooding = asyncio.create_task(flood())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"413" in head.split(b"\r\n")[0]
    await flooding
    assert sent < 50_000_000  # the connection ended long before
    writer.close()


# -- without a server ------------------------------------------------------------------------


async def test_answer_never_raises_and_is_what_jupyter_mounts() -> None:
    route = routes()[0]
    good = await answer(route, VIEWER, {"thing": "a"}, {}, b'{"name":"x"}')
    assert isinstance(good, Answer)
    assert good.status == 201
    assert (await answer(route, None, {"thing": "a"}, {}, b"")).status == 401
    assert (await answer(route, VIEWER, {"thing": "a"}, {"wait": [b"\xff"]}, b"")).status == 400
    assert (await answer(route, VIEWER, {"thing": "a"}, {}, b"x" * (LIMIT + 1))).status == 413


async def test_cancellation_passes_through() -> None:
    async def hang(call: Call[Nothing]) -> None:
        await asyncio.Event().wait()

    route = Route("GET", "/hang", Permission.anyone, hang)
    task = asyncio.create_task(answer(route, None, {}, {}, b""))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_paths_become_anchored_patterns() -> None:
    route = Route("GET", "/a.b/{one}/c/{two}", Permission.anyone, raw)
    assert compile_path(route) == r"/angelos/api/a\.b/(?P<one>[^/]+)/c/(?P<two>[^/]+)"


def test_the_same_operation_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="twice"):
        mount([routes()[0], routes()[0]], principal_of)
