"""The cases of Autobahn's fuzzing client, sections 1 to 7 and 9, written anew over a bare socket.

`autobahntestsuite` needs Python 2. Each case says what is sent and what has to come back, as its
specification does (crossbar.io/autobahn, "WebSocket test suite"); a server that may choose between
failing fast and failing at the end of a message fails at the end here (non-strict in Autobahn).
"""

from __future__ import annotations

import asyncio
import os
import struct

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.util import _websocket_mask
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from angelos.adapters.net.frame_loop import FrameLoopHandler

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 2**20


class Echo(FrameLoopHandler, WebSocketHandler):
    """Answers what it gets, as Autobahn's echo server."""

    max_message_size = 32 * MIB

    def on_message(self, message):
        self.write_message(message, binary=isinstance(message, bytes))


@pytest.fixture
async def port():
    server = HTTPServer(Application([("/", Echo)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield sockets[0].getsockname()[1]
    server.stop()
    await server.close_all_connections()


def frame(opcode, payload=b"", *, fin=True, rsv=0):
    size = len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size > 65_535:
        head += struct.pack("!BQ", 0x80 | 127, size)
    elif size > 125:
        head += struct.pack("!BH", 0x80 | 126, size)
    else:
        head += bytes([0x80 | size])
    key = os.urandom(4)
    return head + key + _websocket_mask(key, payload)


def parts(opcode, *payloads):
    """A message in as many frames."""
    last = len(payloads) - 1
    return b"".join(
        frame(CONTINUATION if n else opcode, payload, fin=n == last)
        for n, payload in enumerate(payloads)
    )


def closing(code=1000, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def text(payload):
    return (TEXT, payload)


HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()
END = closing()
OK = 1000
CASES = {}
"""Name -> (what is sent, messages that come back, the close code)."""


def case(name, sent, answers=(), code=OK, pieces=0):
    CASES[name] = (sent if code != OK or sent.endswith(END) else sent + END, answers, code, pieces)


for section, opcode in (("1.1", TEXT), ("1.2", BINARY)):
    for number, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
        case(f"{section}.{number}", frame(opcode, b"*" * size), [(opcode, b"*" * size)])
    case(f"{section}.8", frame(opcode, b"*" * 65_536), [(opcode, b"*" * 65_536)], pieces=997)

BYTES = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
case("2.1", frame(PING), [(PONG, b"")])
case("2.2", frame(PING, b"Hello, world!"), [(PONG, b"Hello, world!")])
case("2.3", frame(PING, BYTES), [(PONG, BYTES)])
case("2.4", frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)])
case("2.5", frame(PING, b"\xfe" * 126), code=1002)
case("2.6", frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)], pieces=1)
case("2.7", frame(PONG))
case("2.8", frame(PONG, b"unsolicited"))
case("2.9", frame(PONG, b"unsolicited") + frame(PING, b"ping"), [(PONG, b"ping")])
TEN = [b"payload-%d" % n for n in range(10)]
case("2.10", b"".join(frame(PING, p) for p in TEN), [(PONG, p) for p in TEN])
case("2.11", b"".join(frame(PING, p) for p in TEN), [(PONG, p) for p in TEN], pieces=1)

SMALL = b"small payload"
case("3.1", frame(TEXT, SMALL, rsv=1), code=1002)
case("3.2", frame(TEXT, SMALL) + frame(TEXT, SMALL, rsv=2) + frame(PING), [text(SMALL)], 1002)
case("3.3", frame(TEXT, SMALL) + frame(TEXT, SMALL, rsv=3) + frame(PING), [text(SMALL)], 1002, 7)
case("3.4", frame(TEXT, SMALL) + frame(TEXT, SMALL, rsv=4) + frame(PING), [text(SMALL)], 1002, 1)
case("3.5", frame(BINARY, BYTES, rsv=5), code=1002)
case("3.6", frame(PING, SMALL, rsv=6), code=1002)
case("3.7", frame(CLOSE, b"", rsv=7), code=1002)

for section, first in (("4.1", 3), ("4.2", 11)):
    for number in range(1, 6):
        opcode = first + number - 1
        before = [text(SMALL)] if number > 2 else []
        sent = b"".join(frame(TEXT, SMALL) for _ in before)
        sent += frame(opcode, SMALL if number % 2 == 0 else b"") + frame(PING)
        case(f"{section}.{number}", sent, before, 1002, 1 if number == 4 else 0)

ONE, TWO, THREE, FOUR = b"fragment1", b"fragment2", b"fragment3", b"fragment4"
PINGED = (PONG, b"ping")
case("5.1", frame(PING, ONE, fin=False) + frame(CONTINUATION, TWO), code=1002)
case("5.2", frame(PONG, ONE, fin=False) + frame(CONTINUATION, TWO), code=1002)
for number, pieces in ((3, 0), (4, 9), (5, 1)):
    case(f"5.{number}", parts(TEXT, ONE, TWO), [text(ONE + TWO)], pieces=pieces)
for number, pieces in ((6, 0), (7, 9), (8, 1)):
    sent = frame(TEXT, ONE, fin=False) + frame(PING, b"ping") + frame(CONTINUATION, TWO)
    case(f"5.{number}", sent, [PINGED, text(ONE + TWO)], pieces=pieces)
for number, fin, pieces in (
    (9, True, 0), (10, True, 9), (11, True, 1), (12, False, 0), (13, False, 9), (14, False, 1),
):  # fmt: skip
    sent = frame(CONTINUATION, b"non-continuation payload", fin=fin) + frame(TEXT, SMALL)
    case(f"5.{number}", sent, code=1002, pieces=pieces)
case(
    "5.15", parts(TEXT, ONE, TWO) + frame(CONTINUATION, THREE, fin=False) + frame(TEXT, FOUR),
    [text(ONE + TWO)], 1002,
)  # fmt: skip
for number, fin in ((16, False), (17, True)):
    sent = frame(CONTINUATION, ONE, fin=fin) + parts(TEXT, TWO, ONE)
    case(f"5.{number}", sent * 2, code=1002)
case("5.18", frame(TEXT, ONE, fin=False) + frame(TEXT, TWO), code=1002)
for number, pieces in ((19, 0), (20, 11)):
    sent = (
        frame(TEXT, ONE, fin=False) + frame(CONTINUATION, TWO, fin=False) + frame(PING, b"ping")
        + frame(CONTINUATION, THREE, fin=False) + frame(CONTINUATION, FOUR, fin=False)
        + frame(PING, b"ping") + frame(CONTINUATION, b"fragment5")
    )  # fmt: skip
    whole = ONE + TWO + THREE + FOUR + b"fragment5"
    case(f"5.{number}", sent, [PINGED, PINGED, text(whole)], pieces=pieces)

case("6.1.1", frame(TEXT), [text(b"")])
case("6.1.2", parts(TEXT, b"", b"", b""), [text(b"")])
case("6.1.3", parts(TEXT, b"", b"middle frame payload", b""), [text(b"middle frame payload")])
case("6.2.1", frame(TEXT, HELLO), [text(HELLO)])
case("6.2.2", parts(TEXT, HELLO[:14], HELLO[14:]), [text(HELLO)])
case("6.2.3", parts(TEXT, *(HELLO[n : n + 1] for n in range(len(HELLO)))), [text(HELLO)])
KOSME = "κόσμε".encode()
case("6.2.4", parts(TEXT, *(KOSME[n : n + 1] for n in range(len(KOSME)))), [text(KOSME)])
BROKEN = KOSME + b"\xed\xa0\x80" + b"edited"
case("6.3.1", frame(TEXT, BROKEN), code=1007)
case("6.3.2", parts(TEXT, *(BROKEN[n : n + 1] for n in range(len(BROKEN)))), code=1007)
HIGH = KOSME + b"\xf4\x90\x80\x80" + b"edited"
for number, cut in ((1, 12), (2, 12), (3, 11), (4, 11)):
    case(f"6.4.{number}", parts(TEXT, HIGH[:cut], HIGH[cut : cut + 1], HIGH[cut + 1 :]), code=1007)

VALID = {
    "6.5": ["κόσμε", "hello world", "\x00", "\x7f"],
    "6.7": ["\x00", "\x80", "\u0800", "\U00010000"],
    "6.9": ["\x7f", "\u07ff", "\uffff", "\U0010ffff"],
    "6.11": ["\ud7ff", "\ue000", "\ufffd", "\U0010ffff", "\x00"],
    "6.22": [
        c for plane in range(17) for c in (chr(plane << 16 | 0xFFFE), chr(plane << 16 | 0xFFFF))
    ],
    "6.23": [chr(0xFFF9 + n) for n in range(7)],
}
INVALID = {
    "6.6": [KOSME[:n] for n in range(len(KOSME)) if KOSME[n] & 0xC0 == 0x80],
    "6.8": [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
    "6.10": [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    "6.12": [b"\x80", b"\xbf"],
    "6.13": [b"\xf4\x90\x80\x80", *(b"\x80\xbf" * n for n in range(1, 4))],
    "6.14": [
        bytes([n]) + b" "
        for n in (*range(0xC0, 0xE0), *range(0xE0, 0xF0), *range(0xF0, 0xF8), *range(0xF8, 0xFE))
    ],
    "6.15": [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"],
    "6.16": [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"],
    "6.17": [b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80"],
    "6.18": [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    "6.19": [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf"],
    "6.20": [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf"],
    "6.21": [
        b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xed\xa0\x80", b"\xed\xad\xbf",
        b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf",
    ],
}  # fmt: skip
for section, texts in VALID.items():
    for number, word in enumerate(texts, 1):
        case(f"{section}.{number}", frame(TEXT, word.encode()), [text(word.encode())])
for section, words in INVALID.items():
    for number, word in enumerate(words, 1):
        case(f"{section}.{number}", frame(TEXT, word), code=1007)

case("7.1.1", frame(TEXT, SMALL), [text(SMALL)])
case("7.1.2", END + END)
case("7.1.3", END + frame(PING))
case("7.1.4", END + frame(TEXT, SMALL))
case("7.1.5", frame(TEXT, ONE, fin=False) + END + frame(CONTINUATION, TWO))
case("7.1.6", frame(TEXT, b"*" * 256 * 1024) + END + frame(PING), [text(b"*" * 256 * 1024)])
case("7.3.1", frame(CLOSE), code=None)
case("7.3.2", frame(CLOSE, b"x"), code=1002)
case("7.3.3", closing(), code=1000)
case("7.3.4", closing(1000, b"Hello World!"))
case("7.3.5", closing(1000, b"*" * 123))
case("7.3.6", closing(1000, b"*" * 124), code=1002)
case("7.5.1", closing(1000, BROKEN), code=1007)
VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
for number, code in enumerate(VALID_CODES, 1):
    case(f"7.7.{number}", closing(code), code=code)
ILLEGAL_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
for number, code in enumerate(ILLEGAL_CODES, 1):
    case(f"7.9.{number}", closing(code), code=1002)
case("7.13.1", closing(5000), code=1002)
case("7.13.2", frame(CLOSE, struct.pack("!H", 65_535)), code=1002)

for section, opcode in (("9.1", TEXT), ("9.2", BINARY)):
    for number, size in enumerate((65_536, 262_144, MIB, 4 * MIB, 8 * MIB, 16 * MIB), 1):
        case(f"{section}.{number}", frame(opcode, b"*" * size), [(opcode, b"*" * size)])
for section, opcode in (("9.3", TEXT), ("9.4", BINARY)):
    for number, size in enumerate((64, 256, 1024, 4096, 16_384, 65_536, 262_144, MIB, 4 * MIB), 1):
        total = MIB if size < 4096 else 4 * MIB  # Autobahn has 4 MiB always
        sent = parts(opcode, *[b"*" * size] * (total // size))
        case(f"{section}.{number}", sent, [(opcode, b"*" * total)])
for section, opcode in (("9.5", TEXT), ("9.6", BINARY)):
    for number, pieces in enumerate((64, 128, 256, 512, 1024, 2048), 1):
        size = MIB if pieces > 512 else MIB // 8  # Autobahn has 1 MiB always
        case(f"{section}.{number}", frame(opcode, b"*" * size), [(opcode, b"*" * size)], OK, pieces)
for section, opcode in (("9.7", TEXT), ("9.8", BINARY)):
    for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
        count = 1000 if size < 1024 else 200  # Autobahn has 1,000 always
        case(
            f"{section}.{number}",
            frame(opcode, b"*" * size) * count,
            [(opcode, b"*" * size)] * count,
        )


async def opened(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * MIB)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def send(writer, data, pieces):
    step = pieces or len(data)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await (writer.drain() if start % 65_536 == 0 else asyncio.sleep(0))


async def receive(reader, writer):
    """Return every frame that comes and the close code; the connection has to end."""
    frames = []
    while True:
        first, size = await reader.readexactly(2)
        assert first & 0xF0 == 0x80, "whole frames without reserved bits"
        assert not size & 0x80, "a server does not mask"
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        payload = await reader.readexactly(size)
        if first & 15 == CLOSE:
            writer.write_eof()
            assert await reader.read() == b"", "nothing comes after a close frame"
            return frames, struct.unpack("!H", payload[:2])[0] if payload else None
        frames.append((first & 15, payload))


@pytest.mark.parametrize("section", sorted({name.split(".")[0] for name in CASES}))
async def test_autobahn(port, section):
    failed = {}
    for name, (sent, answers, code, pieces) in CASES.items():
        if name.split(".")[0] != section:
            continue
        reader, writer = await opened(port)
        try:
            async with asyncio.timeout(60):
                _, outcome = await asyncio.gather(
                    send(writer, sent, pieces), receive(reader, writer), return_exceptions=True
                )
        finally:
            writer.transport.abort()
        if outcome != (list(answers), code):
            failed[name] = outcome if isinstance(outcome, Exception) else outcome[1]
    assert not failed


def test_every_case_is_there():
    sections = {name.rpartition(".")[0] for name in CASES if name.count(".") == 2}
    assert {f"9.{n}" for n in range(1, 9)} <= sections
    assert {f"6.{n}" for n in (*range(1, 24),)} <= sections
    assert {f"7.{n}" for n in (1, 3, 5, 7, 9, 13)} <= sections
    assert {f"7.9.{n}" for n in range(1, 10)} <= {*CASES}
    assert len(CASES) >= 247, "as many as Autobahn runs against a server without compression"
