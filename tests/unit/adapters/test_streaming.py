"""Long answers over HTTP: piece by piece, never a beginning that looks like all of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from angelos.adapters.net.http import Answer, mount, send
from angelos.client import Angelos
from angelos.core.errors import Tampered, Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import Route
from angelos.testing import eventually

OWNER = Principal(id=PrincipalId("person/owner"), role=Role.admin)
PIECE = b"x" * 100_000


class World:
    def __init__(self) -> None:
        self.made = 0
        self.closed = asyncio.Event()

    def route(self, path, pieces):
        async def handler(_):
            return pieces()

        return Route(
            "GET", path, Permission.audit_read, handler, response=bytes,
            media_type="application/jsonl",
        )  # fmt: skip

    async def all(self):
        for i in range(50):
            yield b"%d\n" % i

    async def refused(self):
        raise Tampered("Entry 7 was changed.", hint="Restore it.")
        yield b""

    async def broken(self):
        yield b"begun\n"
        raise Tampered("Entry 7 was changed.")

    async def endless(self):
        try:
            while True:
                self.made += 1
                yield PIECE
        finally:
            self.closed.set()

    async def empty(self):
        return
        yield b""


@pytest.fixture
async def world():
    world = World()
    names = ("all", "refused", "broken", "endless", "empty")
    routes = [world.route(f"/{name}", getattr(world, name)) for name in names]

    async def owner(_):
        return OWNER

    server = HTTPServer(Application(mount(routes, owner)))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    async with Angelos(f"http://127.0.0.1:{sockets[0].getsockname()[1]}") as world.angelos:
        yield world
    server.stop()
    await server.close_all_connections()


async def test_all_pieces_come_in_order(world):
    got = b"".join([piece async for piece in world.angelos.download("/all")])
    assert got == b"".join(b"%d\n" % i for i in range(50))
    assert [piece async for piece in world.angelos.download("/empty")] == []


async def test_what_goes_wrong_at_once_is_the_servers_own_error(world):
    with pytest.raises(Tampered, match="Entry 7") as caught:
        await anext(world.angelos.download("/refused"))
    assert caught.value.hint == "Restore it."


async def test_an_answer_that_breaks_off_is_an_error(world, caplog):
    with pytest.raises(Unavailable):
        assert [piece async for piece in world.angelos.download("/broken")] == []
    assert "failed on its way" in caplog.text


async def test_a_reader_who_does_not_read_holds_the_writer_up(world):
    async with aclosing(world.angelos.download("/endless")) as pieces:
        await anext(pieces)
        seen = -1
        while seen != world.made:  # until the sockets' buffers are full
            seen = world.made
            for _ in range(200):
                await asyncio.sleep(0)
        # Some megabytes lie in the kernel and in both ends' buffers; it does not go on for ever.
        assert world.made * len(PIECE) < 64_000_000
        for _ in range(100):
            await anext(pieces)
        await eventually(lambda: world.made > seen)
    async with asyncio.timeout(20):
        await world.closed.wait()  # whoever leaves early hangs up, and no more is made


async def test_the_next_piece_is_made_when_the_last_one_has_gone_out():
    class Handler:
        def __init__(self):
            self.out, self.go = [], asyncio.Event()

        def write(self, piece):
            self.out.append(piece)

        async def flush(self):
            await self.go.wait()

        def finish(self, *rest):
            self.out.append(b"end")

    async def more():
        for piece in (b"2", b"3"):
            asked.append(piece)
            yield piece

    asked, handler = [], Handler()
    sending = asyncio.create_task(send(handler, Answer(200, "x", b"1", more()), "GET /x"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (handler.out, asked) == ([b"1"], [])
    handler.go.set()
    await sending
    assert handler.out == [b"1", b"2", b"3", b"end"]
