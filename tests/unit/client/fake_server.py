"""A small Tornado application that speaks like the real server, for tests of the client."""

from __future__ import annotations

import asyncio
import socket
from typing import ClassVar

import msgspec
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from angelos.client import Angelos
from angelos.core import errors
from angelos.core.ids import offset_key

RESULT = {
    "status": "ok", "exit_code": 0, "stdout": "ab", "stderr": "", "duration_s": 0.1,
    "node": "exec1", "tier": "full", "evidence": {},
}  # fmt: skip


class World:
    """What the handlers saw and what they shall say."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, bytes]] = []
        self.answers: dict[str, tuple[int, bytes] | list[tuple[int, bytes]]] = {}
        """By method and path; of several, each is given once and the last one ever after."""
        self.facts: list[dict[str, object]] = []
        self.drop_after: list[int] = []
        """For each connection: how many facts it gets before it is cut."""
        self.followed: list[str] = []
        self.refuse_events = 0
        self.close_code = 1011
        self.open_events: asyncio.Event | None = None
        """If there is one, a link is opened when it is set."""
        self.answer_now: asyncio.Event | None = None
        """If there is one, requests are answered when it is set."""
        self.asked = False
        self.closed = asyncio.Event()
        self.hung_up = asyncio.Event()
        """Set when somebody goes before the answer."""

    def fact(self, offset: str, kind: str, **data: object) -> None:
        self.facts.append(
            {
                "id": f"fact-{offset}",
                "at": 1.0,
                "actor": "node/exec1",
                "kind": kind,
                "subject": "task-1",
                "data": data,
                "offset": offset,
            }
        )

    def answer(self, request: str) -> tuple[int, bytes]:
        answer = self.answers[request]
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def sent(self) -> list[str]:
        """Return the requests in order, without their bodies."""
        return [f"{name}?{query}" if query else name for name, query, *_ in self.requests]

    def body(self, number: int = -1) -> dict[str, object]:
        """Return what a request held; by default the last one."""
        return msgspec.json.decode(self.requests[number][3])

    def proposal(self, **changes: object) -> bytes:
        view = {
            "id": "prop-1", "repo": "study", "base": "b" * 64, "author": "agent/ada",
            "message": "why", "digest": "d" * 64, "state": "testing", "reason": "", "changes": [],
        }  # fmt: skip
        return msgspec.json.encode(view | changes)

    def task(self, **changes: object) -> bytes:
        view = {
            "id": "task-1", "state": "accepted", "by": "person/owner", "node": "exec1",
            "label": "", "at": 1.0, "offset": "5-0",
        }  # fmt: skip
        return msgspec.json.encode(view | changes)


class Api(RequestHandler):
    world: ClassVar[World]

    async def _answer(self) -> None:
        path = self.request.path.removeprefix("/angelos/api")
        token = self.request.headers.get("Authorization", "")
        self.world.requests.append(
            (f"{self.request.method} {path}", self.request.query, token, self.request.body)
        )
        if self.world.answer_now is not None:
            await self.world.answer_now.wait()
        code, body = self.world.answer(f"{self.request.method} {path}")
        self.set_status(code)
        self.write(body)

    get = post = put = delete = _answer

    def on_connection_close(self) -> None:
        self.world.hung_up.set()


class Events(WebSocketHandler):
    world: ClassVar[World]

    async def prepare(self) -> None:
        self.world.asked = True
        if self.world.open_events is not None:
            await self.world.open_events.wait()
        if self.world.refuse_events:
            self.set_status(self.world.refuse_events)
            self.finish(errors.Forbidden("not you").problem())

    def open(self) -> None:
        after = self.get_query_argument("after")
        self.world.followed.append(after)
        kinds = [kind for kind in self.get_query_argument("kinds", "").split(",") if kind]
        left = self.world.drop_after.pop(0) if self.world.drop_after else -1
        for fact in self.world.facts:
            if offset_key(fact["offset"]) <= offset_key(after):
                continue
            if kinds and fact["kind"] not in kinds:
                continue
            if left == 0:
                self.close(self.world.close_code, "cut")
                return
            left -= 1
            self.write_message(msgspec.json.encode(fact))
        if left >= 0:
            self.close(self.world.close_code, "cut")

    def on_close(self) -> None:
        self.world.closed.set()


@pytest.fixture
async def world():
    world = World()
    api = type("BoundApi", (Api,), {"world": world})
    events = type("BoundEvents", (Events,), {"world": world})
    app = Application([("/angelos/api/events", events), ("/angelos/api/.*", api)])
    server = HTTPServer(app)
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    server.add_sockets(sockets)
    world.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    yield world
    server.stop()
    await server.close_all_connections()


@pytest.fixture
async def angelos(world):
    async with Angelos(world.url, token="secret") as client:
        yield client
