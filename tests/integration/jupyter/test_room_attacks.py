"""What no editor sends to a room: bytes that are no message, floods, invented names, silence."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from jupyter_server.services.events.handlers import SubscribeWebsocket
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupyter_server_ydoc.handlers import YDocWebSocketHandler
from pycrdt import Doc, Map, create_sync_message, create_update_message
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from angelos.client.rooms import RoomClient
from angelos.testing import eventually
from jupyter_ext.rooms.handler import MAX_READ_ONLY_BYTES

UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "eHh4eHh4eHh4eHh4eHh4eA==",
}  # fmt: skip


async def room_of(served, path) -> str:
    """Return the address of a document's room."""
    answer = await served.ask(
        f"/api/collaboration/session/{path}", method="PUT", json={"format": "text", "type": "file"}
    )
    known = json.loads(answer.body)
    room = f"text:file:{known['fileId']}"
    return f"/api/collaboration/room/{room}?sessionId={known['sessionId']}"


@asynccontextmanager
async def connected(served, path, token):
    """A WebSocket of a document's room, and nothing that speaks its protocol."""
    link = await websocket_connect(
        HTTPRequest(
            f"ws{served.url[4:]}{await room_of(served, path)}",
            headers={"Authorization": f"token {token}"},
        )
    )
    try:
        yield link
    finally:
        here = link.close_code is None
        link.close()
        if here:
            await ended(link)


async def ended(link) -> tuple[int, str]:
    async with asyncio.timeout(20):
        while await link.read_message() is not None:
            pass
    return link.close_code, link.close_reason


async def rooms(served) -> dict:
    return json.loads((await served.ask("/angelos/api/rooms")).body)


@pytest.mark.parametrize("token", ["t-viewer", "t-researcher"])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"\0\x09",
        b"\0\2",
        b"\1",
        b"\2\4save",
        b"\2\xff\xff",
        b"\2\2\xff\xfe",
        "text",
    ],
    ids=repr,
)
async def test_bytes_that_are_no_message_end_the_connection_and_say_so(
    served, path, token, message
):
    before = served.said().count("Traceback")
    async with RoomClient(served.url, "t-owner", path) as other:
        async with connected(served, path, token) as link:
            await link.write_message(message, binary=isinstance(message, bytes))
            assert await ended(link) == (1007, "This is no message of the room's protocol.")
        await other.insert(0, "x")
    assert served.said().count("Traceback") == before


MASK = bytes(4)
FORBIDDEN = {
    "unmasked": (b"\x81\x02hi", 1002),
    "16 bits for 2 bytes": (b"\x81\xfe\x00\x02" + MASK + b"hi", 1002),
    "64 bits for 2 bytes": (b"\x82\xff" + bytes(7) + b"\x02" + MASK + b"hi", 1002),
    "not UTF-8": (b"\x81\x82" + MASK + b"\xff\xfe", 1007),
    "close code 999": (b"\x88\x82" + MASK + b"\x03\xe7", 1002),
    "close code 1006": (b"\x88\x82" + MASK + b"\x03\xee", 1002),
    "close reason": (b"\x88\x83" + MASK + b"\x03\xe8\xff", 1007),
    "reserved bit": (b"\xc1\x82" + MASK + b"hi", 1002),
}


async def test_every_websocket_of_the_server_ends_with_the_code_of_what_was_forbidden(served, path):
    """Jupyter's own and ours; that of kernels has no protocol of its own either (below)."""
    host, port = served.url.removeprefix("http://").partition("/")[0].split(":")
    targets = ["/angelos/api/events", "/api/events/subscribe", await room_of(served, path)]
    for target in targets:
        for name, (data, code) in FORBIDDEN.items():
            reader, writer = await asyncio.open_connection(host, int(port))
            fields = {"Host": f"{host}:{port}", "Authorization": "token t-owner", **UPGRADE}
            head = "".join(f"{field}: {value}\r\n" for field, value in fields.items())
            writer.write(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())
            async with asyncio.timeout(20):
                assert b" 101 " in await reader.readuntil(b"\r\n\r\n"), target
                writer.write(data)
                first, size = 0, 0
                while first & 15 != 8:
                    first, size = await reader.readexactly(2)
                    if size > 125:
                        size = int.from_bytes(
                            await reader.readexactly(2 if size == 126 else 8), "big"
                        )
                    payload = await reader.readexactly(size)
            assert int.from_bytes(payload[:2], "big") == code, (target, name)
            writer.close()
            await writer.wait_closed()


def test_no_websocket_of_jupyter_has_a_protocol_of_its_own():
    for handler in (KernelWebsocketHandler, SubscribeWebsocket, YDocWebSocketHandler):
        owner = next(cls for cls in handler.__mro__ if "get_websocket_protocol" in vars(cls))
        assert owner is WebSocketHandler


async def test_an_edit_that_cannot_be_applied_is_told_to_its_author_and_nobody_else(served, path):
    async with RoomClient(served.url, "t-owner", path) as other:
        async with connected(served, path, "t-researcher") as link:
            await link.write_message(create_update_message(b"\1\1\xff\xff\xff"), binary=True)
            code, reason = await ended(link)
        assert code == 1003
        assert "Your last edit cannot be kept" in reason
        await other.insert(0, "x")
        assert served.logged(path) == "xone\ntwo\n"


@pytest.mark.parametrize("name", ["anything", "JupyterLab:another", "a:b"])
async def test_nobody_makes_a_room_by_naming_it(served, name):
    answer = await served.ask(f"/api/collaboration/room/{name}", "t-viewer", headers=UPGRADE)
    assert answer.code == 404
    assert name not in await rooms(served)


async def test_a_request_that_becomes_no_websocket_leaves_no_room(served, path):
    address = await room_of(served, path)
    assert (await served.ask(address, "t-viewer")).code == 400
    room = address.rpartition("/")[2].partition("?")[0]

    async def gone() -> bool:
        return room not in await rooms(served)

    await eventually(gone)


async def test_a_client_that_hangs_up_while_it_is_let_in_leaves_no_room(served, path):
    async with RoomClient(served.url, "t-owner", served.document("other.md")):
        pass  # the first room of a server takes its time
    address = await room_of(served, path)
    room = address.rpartition("/")[2].partition("?")[0]
    made, before = served.said().count("Creating FileLoader"), served.said().count("Traceback")
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        head = [f"GET {address} HTTP/1.1", "Host: 127.0.0.1", "Authorization: token t-viewer"]
        writer.write("\r\n".join([*head, *map(": ".join, UPGRADE.items()), "", ""]).encode())
        await writer.drain()
        writer.transport.abort()
    await eventually(lambda: served.said().count("Creating FileLoader") > made)

    async def gone() -> bool:
        return room not in await rooms(served)

    await eventually(gone)
    assert served.said().count("Traceback") == before


async def test_a_client_that_does_not_read_is_let_go(served):
    path = served.document("long.md", "x" * 999_999 + "\n")
    address = await room_of(served, path)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    head = [f"GET {address} HTTP/1.1", "Host: 127.0.0.1", "Authorization: token t-viewer"]
    writer.write("\r\n".join([*head, *map(": ".join, UPGRADE.items()), "", ""]).encode())
    assert b"101" in await reader.readline()
    asking = create_sync_message(Doc())
    frame = bytes([0x82, 0x80 | len(asking), 0, 0, 0, 0]) + asking  # RFC 6455: binary, masked by 0
    writer.write(frame * 100)  # what do you have? a hundred times a megabyte
    await eventually(lambda: "does not read and is disconnected" in served.said())
    writer.close()


async def test_a_reader_who_floods_is_let_go(served, path):
    async with connected(served, path, "t-viewer") as link:
        page = Doc()
        said: list[bytes] = []
        page.observe(lambda event: said.append(bytes(event.update)))
        mine = page.get("mine", type=Map)
        for number in range(6):
            mine[str(number)] = "x" * (MAX_READ_ONLY_BYTES // 5)
            await link.write_message(create_update_message(said[-1]), binary=True)
        code, reason = await ended(link)
    assert code == 1003
    assert "You may only read here" in reason
