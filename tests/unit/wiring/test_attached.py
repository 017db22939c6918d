"""The window on a system that runs already: its routes come from the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from angelos.core.errors import Conflict, Forbidden
from angelos.core.ids import PrincipalId
from angelos.core.openapi import document
from angelos.core.permissions import OWNER, Permission, Principal, Role
from angelos.core.routes import Call, Nothing, Route, parse_body, parse_query, render
from angelos.wiring.attached import NoDocuments, NoPeople, routes_of


class Body(msgspec.Struct):
    """A request."""

    code: str


class View(msgspec.Struct):
    """An answer."""

    ok: bool


async def _never(call: Call[Any]) -> Any:
    raise AssertionError(call)


REAL = [
    Route("GET", "/tasks/{task}", Permission.tasks_read, _never, response=View, query=("wait",)),
    Route("POST", "/tasks", Permission.tasks_run, _never, request=Body, response=View, status=202),
    Route(
        "GET", "/repos/{repo}/bundle", Permission.revisions_read, _never,
        response=View, media_type="application/msgpack",
    ),
    Route(
        "GET", "/repos/{repo}/file", Permission.revisions_read, _never,
        response=bytes, media_type="application/octet-stream", query=("path",),
    ),
    Route(
        "GET", "/audit/export", Permission.audit_read, _never,
        response=bytes, media_type="application/jsonl",
    ),
]  # fmt: skip


class Remote:
    """Remembers what it was asked and answers with `answer`."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    async def fetch(self, method: str, path: str, **kwargs: Any) -> bytes:
        self.asked.append((method, path, kwargs))
        return self.answer

    async def download(self, path: str) -> AsyncGenerator[bytes, None]:
        self.asked.append(("download", path, {}))
        for i in range(len(self.answer)):
            yield self.answer[i : i + 1]


def _routes(remote: Remote) -> dict[tuple[str, str], Route]:
    routes = routes_of(document(REAL), remote.fetch, remote.download)
    return {(route.method, route.path): route for route in routes}


def _call(body: Any = None, principal: Principal = OWNER, **params: str) -> Call[Any]:
    return Call(principal=principal, params=params, query={}, body=body)


async def test_what_may_be_of_any_size_is_passed_on_piece_by_piece():
    remote = Remote(b"abc")
    pieces = await _routes(remote)["GET", "/audit/export"].handler(_call())
    assert [piece async for piece in pieces] == [b"a", b"b", b"c"]
    assert remote.asked == [("download", "/audit/export", {})]


def test_each_operation_is_there_with_what_it_takes_and_gives():
    routes = _routes(Remote(b""))
    assert set(routes) == {(r.method, r.path) for r in REAL}
    for real in REAL:
        ours = routes[real.method, real.path]
        assert (ours.status, ours.query, ours.media_type) == (
            real.status, real.query, real.media_type,
        )  # fmt: skip


async def test_the_body_is_passed_on_and_the_answer_comes_back_as_it_is():
    remote = Remote(b'{"ok":true,"later":1}')
    route = _routes(remote)["POST", "/tasks"]
    answer = await route.handler(_call(parse_body(route, b'{"code":"1"}')))
    assert render(route, answer) == b'{"ok":true,"later":1}'
    ((method, path, kwargs),) = remote.asked
    assert (method, path, kwargs["body"]) == ("POST", "/tasks", {"code": "1"})


@pytest.mark.parametrize("path", ["/repos/{repo}/bundle", "/repos/{repo}/file"])
async def test_bytes_stay_bytes(path):
    body = msgspec.msgpack.encode(View(ok=True))
    route = _routes(Remote(body))["GET", path]
    assert render(route, await route.handler(_call(repo="study"))) == body


async def test_a_parameter_stays_in_its_segment_and_waiting_has_time():
    remote = Remote(b"{}")
    route = _routes(remote)["GET", "/tasks/{task}"]
    query = parse_query(route, {"wait": ["5"]})
    call = Call(principal=OWNER, params={"task": "../people"}, query=query, body=Nothing())
    await route.handler(call)
    ((_, path, kwargs),) = remote.asked
    assert path == "/tasks/..%2Fpeople"
    assert kwargs["query"] == {"wait": "5"}
    assert kwargs["patience_s"] > 5
    assert kwargs["body"] is None


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.admin])
async def test_only_the_owner_may_use_it(role):
    somebody = Principal(id=PrincipalId("person/eve"), role=role)
    remote = Remote(b"{}")
    for route in _routes(remote).values():
        with pytest.raises(Forbidden):
            await route.handler(_call({}, somebody, repo="r", task="t"))
    assert remote.asked == []


async def test_live_documents_are_elsewhere_and_nobody_else_signs_in():
    with pytest.raises(Conflict, match="http://there"):
        NoDocuments("http://there").locate("study/a.py")
    assert await NoPeople().authenticate("token") is None
    people = NoPeople()
    (owner,) = await people.list()
    await people.sign_out(OWNER)
    (again,) = await people.list()
    assert (owner.id, owner.role, again.generation) == (OWNER.id, Role.admin, owner.generation + 1)
