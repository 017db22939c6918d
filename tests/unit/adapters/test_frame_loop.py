"""WebSocket to the letter: what RFC 6455 forbids is answered by its close code, never just cut."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import struct

import pytest
import tornado
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado import speedups
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.iostream import BaseIOStream
from tornado.netutil import bind_sockets
from tornado.util import _websocket_mask
from tornado.web import Application
from tornado.websocket import (
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketProtocol,
    WebSocketProtocol13,
)

from angelos.adapters.net.frame_loop import FrameLoop, FrameLoopHandler, connect, install

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_what_is_relied_upon_of_tornado_is_there():
    """A new Tornado fails here, not in a connection."""
    assert tuple(map(int, tornado.version.split(".")[:2])) == (6, 6)
    for name in ("_receive_frame_loop", "_send_pong", "_write_frame", "close", "ping_interval"):
        assert name in vars(WebSocketProtocol13), name
    for name in ("_run_callback", "_abort"):
        assert name in vars(WebSocketProtocol), name
    fields = {
        "_decompressor", "_fragmented_message_buffer", "_fragmented_message_opcode",
        "_frame_compressed", "_received_pong", "close_code", "close_reason", "mask_outgoing",
        "params",
    }  # fmt: skip
    present = vars(WebSocketProtocol13(None, mask_outgoing=False, params=_Params()))
    assert fields <= present.keys()
    for name in ("_handle_read", "_add_io_state", "_check_closed", "_signal_closed"):
        assert name in vars(BaseIOStream), name
    stream = inspect.getsource(BaseIOStream)
    for name in (
        "_read_future", "_read_buffer_size", "self._handle_read()", "self._connecting",
        "def writing(", "def write_to_fd(",
    ):  # fmt: skip
        assert name in stream, name
    assert speedups.websocket_mask is _websocket_mask, "masks are made in C, or cost 50 times"


class _Params:
    compression_options = None


class Echo(FrameLoopHandler, WebSocketHandler):
    """Answers what it gets; `slow` ones in a coroutine."""

    max_message_size = 100_000
    closed = None

    def on_message(self, message):
        if message == "slow":
            return self._slow()
        self.write_message(message, binary=isinstance(message, bytes))
        return None

    async def _slow(self):
        await asyncio.sleep(0)
        await self.write_message("slow")

    def on_close(self):
        type(self).closed = (self.close_code, self.close_reason)


class Compressed(Echo):
    def get_compression_options(self):
        return {}


@pytest.fixture
async def port():
    server = HTTPServer(Application([("/", Echo), ("/zip", Compressed)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield sockets[0].getsockname()[1]
    server.stop()
    await server.close_all_connections()


@pytest.fixture
async def line(port):
    line = await Line.open(port)
    yield line
    await line.leave()


def frame(opcode, payload=b"", *, mask=True, fin=1, rsv=0, form=0):
    size, bit = len(payload), 0x80 if mask else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if form == 64 or (not form and size > 65_535):
        head += struct.pack("!BQ", 127 | bit, size)
    elif form == 16 or (not form and size > 125):
        head += struct.pack("!BH", 126 | bit, size)
    else:
        head += bytes([size | bit])
    key = os.urandom(4)
    return head + (key + _websocket_mask(key, payload) if mask else payload)


class Line:
    """A socket after the handshake, byte by byte."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def leave(self):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def next(self):
        async with asyncio.timeout(10):
            first, size = await self.reader.readexactly(2)
            assert not size & 0x80, "a server does not mask"
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return first & 15, await self.reader.readexactly(size)

    async def close_code(self):
        opcode, payload = await self.next()
        while opcode != 8:
            opcode, payload = await self.next()
        return struct.unpack("!H", payload[:2])[0] if payload else None


def close(code, reason=b""):
    return frame(8, struct.pack("!H", code) + reason)


FORBIDDEN = {
    "unmasked": (frame(1, b"hi", mask=False), 1002),
    "16 bits for 2 bytes": (frame(1, b"hi", form=16), 1002),
    "64 bits for 2 bytes": (frame(1, b"hi", form=64), 1002),
    "64 bits for 300 bytes": (frame(2, bytes(300), form=64), 1002),
    "63rd bit": (b"\x82\xff" + b"\xff" * 8 + b"mask", 1002),
    "not UTF-8": (frame(1, b"\xff\xfe"), 1007),
    "half a character": (frame(1, "ä".encode()[:1]), 1007),
    "UTF-8 of a surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "reserved bit 1": (frame(2, b"x", rsv=4), 1002),
    "reserved bit 3": (frame(9, b"x", rsv=1), 1002),
    "ping in parts": (frame(9, b"x", fin=0), 1002),
    "long ping": (frame(9, bytes(126)), 1002),
    **{f"opcode {n}": (frame(n, b"x"), 1002) for n in (3, 7, 11, 15)},
    "nothing to continue": (frame(0, b"x"), 1002),
    "a second beginning": (frame(1, b"a", fin=0) + frame(1, b"b"), 1002),
    "too big": (frame(2, bytes(100_001)), 1009),
    "too big in parts": (frame(2, bytes(60_000), fin=0) + frame(0, bytes(60_000)), 1009),
    "huge by its header": (b"\x82\xff" + struct.pack("!Q", 2**40) + b"mask", 1009),
    "close of one byte": (frame(8, b"x"), 1002),
    "close reason": (close(1000, b"\xff"), 1007),
    **{
        f"close {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize(("data", "code"), FORBIDDEN.values(), ids=FORBIDDEN)
async def test_what_is_forbidden_is_closed_with_its_code(line, data, code):
    line.writer.write(data)
    assert await line.close_code() == code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
async def test_a_close_code_that_may_be_sent_is_echoed(line, code):
    line.writer.write(close(code, "tschüß".encode()))
    assert await line.close_code() == code
    assert Echo.closed == (code, "tschüß")


async def test_a_close_without_a_code_is_answered_without_one(line):
    line.writer.write(frame(8))
    assert await line.close_code() is None


async def test_the_reason_arrives_although_more_was_sent(line):
    """A socket closed over unread data would reset the line and take the close frame with it."""
    line.writer.write(frame(1, b"\xff") + b"x" * 1_000_000)
    assert await line.close_code() == 1007
    async with asyncio.timeout(10):
        assert await line.reader.read() == b""


async def test_parts_with_a_ping_between_are_one_message(line):
    for data in (frame(1, "ä".encode()[:1], fin=0), frame(9, b"?"), frame(0, "ä".encode()[1:])):
        line.writer.write(data)
    assert [await line.next(), await line.next()] == [(10, b"?"), (1, "ä".encode())]


async def test_a_handler_may_be_a_coroutine(line):
    line.writer.write(frame(1, b"slow") + frame(1, b"next"))
    assert [await line.next(), await line.next()] == [(1, b"slow"), (1, b"next")]


async def test_messages_of_all_sizes_in_any_pieces(line):
    sizes = [0, 1, 125, 126, 127, 1_023, 1_024, 1_025, 65_535, 65_536, 99_999, 100_000, 5]
    data = b"".join(frame(2, bytes([n % 251]) * n) for n in sizes)
    for start, step in ((0, 1), (40, 7), (1_000, 1_000), (20_000, 9_999), (100_000, 10**6)):
        end = {0: 40, 40: 1_000, 1_000: 20_000, 20_000: 100_000}.get(start, len(data))
        for at in range(start, end, step):
            line.writer.write(data[at : min(at + step, end)])
            await line.writer.drain()
            await asyncio.sleep(0)
    for size in sizes:
        assert await line.next() == (2, bytes([size % 251]) * size)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
async def test_garbage_ends_with_a_code_or_is_waited_for(port, data):
    line = await Line.open(port)
    line.writer.write(data)
    line.writer.write_eof()
    async with asyncio.timeout(10):
        answer = await line.reader.read()
    await line.leave()
    assert answer[:1] in {b"", b"\x88", b"\x8a", b"\x81", b"\x82"}


async def test_both_of_our_ends_with_compression_and_without(port):
    for path in ("", "zip"):
        link = await connect(
            HTTPRequest(f"ws://127.0.0.1:{port}/{path}"),
            compression_options={} if path else None,
        )
        assert isinstance(link.protocol, FrameLoop)
        if path:
            assert link.protocol._decompressor is not None
        await link.write_message("text")
        assert await link.read_message() == "text"
        await link.write_message(bytes(90_000), binary=True)
        assert await link.read_message() == bytes(90_000)
        link.close()


async def test_what_one_turn_sends_arrives_in_order(port):
    link = await connect(HTTPRequest(f"ws://127.0.0.1:{port}/"))
    protocol = link.protocol
    for number in range(200):
        protocol.send(b"%d" % number)
    link.write_message("last")
    assert [await link.read_message() for _ in range(200)] == [b"%d" % n for n in range(200)]
    assert await link.read_message() == "last"
    link.close()
    with pytest.raises(WebSocketClosedError):
        protocol.send(b"late")


async def test_what_comes_while_a_message_is_handled_waits_and_keeps_its_order(line):
    """In one piece or byte by byte: what is behind a slow message is not handled before it."""
    words = [b"slow", b"a", b"slow", b"x" * 70_000, b"slow", b"z"]
    data = b"".join(frame(1, word) for word in words)
    line.writer.write(data)
    assert [(await line.next())[1] for _ in words] == words
    for start in range(0, 40, 3):
        line.writer.write(data[start : start + 3])
        await asyncio.sleep(0)
    line.writer.write(data[42:])
    assert [(await line.next())[1] for _ in words] == words


async def test_a_peer_that_hangs_up_while_a_message_is_handled(port):
    line = await Line.open(port)
    line.writer.write(frame(1, b"slow") * 3 + frame(1, b"half")[:-2])
    await line.next()
    await line.leave()
    again = await Line.open(port)
    again.writer.write(frame(1, b"still there"))
    assert (await again.next())[1] == b"still there"
    await again.leave()


async def test_installed_it_serves_every_handler(monkeypatch):
    stock = WebSocketHandler.get_websocket_protocol
    monkeypatch.setattr(WebSocketHandler, "get_websocket_protocol", stock)
    protocols = []

    class Plain(WebSocketHandler):
        def open(self):
            protocols.append(type(self.ws_connection))

    server = HTTPServer(Application([("/", Plain)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    install()
    install()
    line = await Line.open(sockets[0].getsockname()[1])
    line.writer.write(frame(8))
    assert await line.close_code() is None
    assert protocols == [FrameLoop]
    await line.leave()
    server.stop()
    await server.close_all_connections()
