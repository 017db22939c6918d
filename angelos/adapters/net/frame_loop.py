"""Tornado's WebSocket with a lean and strict frame loop; the one file that uses its private parts.

Tornado reads each frame in up to four awaits and answers most violations of RFC 6455 by cutting
the connection. Here the callback of the socket reads, all frames are parsed in place and handled
there unless a handler has to be waited for, what is written
within one turn of the event loop leaves in one write (the first after a pause at once), and a
violation is answered by its close code: 1002 (protocol), 1003 (data of a kind that is not read),
1007 (not UTF-8), 1009 (too big).

    install()                                        # every server handler of this process
    class Echo(FrameLoopHandler, WebSocketHandler): ...    # or one of them
    link = await connect(HTTPRequest("wss://127.0.0.1:8443/x"))
    link.protocol.send(b"at once, or with what else this turn of the loop sends")

What is relied upon of Tornado (`tests/unit/adapters/test_frame_loop.py` fails when it changes):
`WebSocketProtocol13._receive_frame_loop`, `_run_callback`, `_abort`, `_send_pong`, `_compressor`,
`_decompressor`, `_write_frame`, `get_websocket_protocol` of handler and client, and of the stream
`_handle_read`, `_read_future`, `_read_buffer_size`, `_add_io_state`, `_check_closed`,
`_connecting`, `writing`, `write_to_fd`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import Awaitable
from typing import Any, cast

from tornado.httpclient import HTTPRequest, _RequestProxy
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamBufferFullError, StreamClosedError
from tornado.util import _websocket_mask  # pyright: ignore[reportPrivateImportUsage]
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketProtocol,
    WebSocketProtocol13,
    _DecompressTooLargeError,
)

log = logging.getLogger(__name__)
PROTOCOL_ERROR, UNSUPPORTED, NOT_UTF8, TOO_BIG = 1002, 1003, 1007, 1009
_LARGEST = 128 * 1024
_READS = 8
"""So many reads follow each other before others have their turn."""
_RECORD = 16_000
"""Less than a full TLS record: there is no more."""
_TOGETHER = 64 * 1024
"""So many bytes leave at once, whatever else this turn of the event loop sends."""
_QUIET_S = 0.0003
"""After so long without a message the next leaves at once."""
_LINGER_S, _CLOSE_S = 1.0, 5.0
_LINGER_BYTES = 4 * 1024 * 1024
_SMALL, _WIDE = 126, 65536
_CONTROL, _FIN, _RSV, _RSV1 = 0x8, 0x80, 0x70, 0x40
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_APPLICATION_CODES = range(3000, 5000)
_two_bytes = struct.Struct("!H").unpack_from
_eight_bytes = struct.Struct("!Q").unpack_from


class _Violation(Exception):
    """The other end broke RFC 6455."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class FrameLoop(WebSocketProtocol13):
    """The protocol of one connection, at either end of it."""

    # A dictionary of more than 30 keys is not shared with other instances and takes 1.5 KB more. So
    # Tornado's attributes have slots, too; one that it may add finds its place in the dictionary.
    __slots__ = (
        "_compression_options",
        "_compressor",
        "_decompressor",
        "_final_frame",
        "_fragmented_message_buffer",
        "_fragmented_message_opcode",
        "_frame_compressed",
        "_frame_length",
        "_frame_mask",
        "_frame_opcode",
        "_masked_frame",
        "_message_bytes_in",
        "_message_bytes_out",
        "_paused",
        "_pending",
        "_pending_bytes",
        "_pending_pong",
        "_ping_coroutine",
        "_pong_future",
        "_received_pong",
        "_rest",
        "_sent_at",
        "_waiting",
        "_wire_bytes_in",
        "_wire_bytes_out",
        "_written",
        "client_terminated",
        "close_code",
        "close_reason",
        "handler",
        "mask_outgoing",
        "params",
        "server_terminated",
        "stream",
    )
    _paused: asyncio.Future[Awaitable[None] | None]

    def __init__(self, *args: Any, **options: Any) -> None:
        self._pending: list[bytes] | None = None
        self._pending_bytes = 0
        self._sent_at = float("-inf")
        self._written: asyncio.Future[None] | None = None
        self._rest = bytearray()
        """The beginning of a frame."""
        super().__init__(*args, **options)

    # -- writing ------------------------------------------------------------------------------

    def send(self, data: bytes, *, text: bool = False) -> None:
        """Send one message, together with whatever else is sent in this turn of the event loop.

        Raises:
            WebSocketClosedError: The connection is closed, or closing.
        """
        if self.server_terminated or self.stream.closed():
            raise WebSocketClosedError
        frame = self._frame(_FIN | (_TEXT if text else _BINARY), data)
        loop = asyncio.get_running_loop()
        if self._pending is None:
            self._pending, self._pending_bytes = frame, 0
            quiet = loop.time() - self._sent_at > _QUIET_S
            if not quiet:
                loop.call_soon(self._flush)
        else:
            self._pending += frame
            quiet = False
        self._pending_bytes += len(data)
        if quiet or self._pending_bytes > _TOGETHER:
            self._flush()
            self._sent_at = loop.time()

    def write_message(
        self,
        message: str | bytes | dict[str, Any],
        binary: bool = False,  # noqa: FBT001, FBT002 - Tornado's signature
    ) -> asyncio.Future[None]:
        """Send one message, and return a future that is done when the next may be sent.

        What the system does not take at once is waited for; so a caller that waits for each
        message holds few of them.
        """
        if self._compressor is not None or isinstance(message, dict):
            return super().write_message(message, binary)
        data = message.encode() if isinstance(message, str) else message
        self.send(data, text=not binary)
        if self._written is not None and not self._written.done():
            draining = asyncio.ensure_future(self.drain())
            # Who does not wait for it learns of a lost connection by its end, not by a log entry.
            draining.add_done_callback(lambda done: done.cancelled() or done.exception())
            return draining
        return _done()

    async def drain(self) -> None:
        """Wait until what was sent has left this process."""
        self._flush()
        if self._written is not None:
            try:
                await self._written
            except StreamClosedError:
                raise WebSocketClosedError from None

    def _frame(self, first: int, data: bytes) -> list[bytes]:
        size, masked = len(data), 0x80 if self.mask_outgoing else 0
        if size < _SMALL:
            head = bytes((first, size | masked))
        elif size < _WIDE:
            head = struct.pack("!BBH", first, 126 | masked, size)
        else:
            head = struct.pack("!BBQ", first, 127 | masked, size)
        if not masked:
            return [head, data]
        mask = _random_mask()
        return [head, mask, _websocket_mask(mask, data)]

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        data = b"".join(pending)
        try:
            taken = self._write_now(data)
            self._written = None
            if taken < len(data):
                rest = memoryview(data)[taken:]
                self._written = cast("asyncio.Future[None]", self.stream.write(rest))
        except StreamClosedError:
            self._abort()
        except StreamBufferFullError:
            path = getattr(getattr(self.handler, "request", None), "path", "the other end")
            log.warning("A client of %s does not read and is disconnected", path)
            self._abort()

    def _write_now(self, data: bytes) -> int:
        """Write what the system takes at once and return how many bytes that was.

        Tornado's `write` makes a future and two callbacks for it, whether somebody waits or not.
        """
        stream = cast("Any", self.stream)
        stream._check_closed()  # noqa: SLF001
        if stream.writing() or stream._connecting:  # noqa: SLF001
            return 0  # nothing overtakes what waits
        taken, view = 0, memoryview(data)
        try:
            while taken < len(data) and (count := stream.write_to_fd(view[taken:])):
                taken += count
        except BlockingIOError:
            pass
        except OSError as error:
            stream.close(exc_info=error)
            raise StreamClosedError(real_error=error) from None
        return taken

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:  # noqa: FBT001 - Tornado's signature
        self._flush()  # nothing overtakes what was sent before
        return super()._write_frame(fin, opcode, data, flags)

    # -- reading ------------------------------------------------------------------------------

    async def _receive_frame_loop(self) -> None:
        try:
            await self._receive()
        except OSError:  # closed; a TLS record that was spoilt on its way raises an SSLError
            self._abort()
        except _Violation as violation:
            await self._fail(violation)
        finally:
            self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    async def _receive(self) -> None:
        while not self.client_terminated:
            size: int = self.stream._read_buffer_size  # noqa: SLF001
            if size:  # Tornado has read it, while a message was being handled
                chunk = bytearray(size)
                count = await cast("Any", self.stream.read_into(chunk, partial=True))
                handling = self._feed(chunk, count)
            else:
                handling = await self._reading()
            while handling is not None:
                await handling
                handling = self._feed(_chunk, 0)

    async def _reading(self) -> Awaitable[None] | None:
        """Handle frames in the callback of the socket, until one is to be waited for."""
        stream = cast("Any", self.stream)
        stream._check_closed()  # noqa: SLF001
        self._paused = paused = asyncio.get_running_loop().create_future()
        stream._read_future = paused  # noqa: SLF001 - ended by Tornado when it closes
        stream._handle_read = self._readable  # noqa: SLF001
        try:
            stream._add_io_state(stream.io_loop.READ)  # noqa: SLF001
            return await paused
        finally:
            del stream._handle_read  # noqa: SLF001
            if stream._read_future is paused:  # noqa: SLF001
                stream._read_future = None  # noqa: SLF001

    def _readable(self) -> None:
        """Read and handle what is there: no task has to wake up for it."""
        for _ in range(_READS):
            if self._paused.done() or self._read() < _RECORD:
                return

    def _read(self) -> int:
        """Read once, handle the frames that came, and return how many bytes there were."""
        try:
            count = self.stream.read_from_fd(_chunk)
        except OSError as error:
            self.stream.close(exc_info=error)
            return 0
        if count is None:
            return 0
        if not count:
            self.stream.close()
            return 0
        try:
            handling = self._feed(_chunk, count)
        except _Violation as violation:
            if not self._paused.done():  # it is, if the connection was closed meanwhile
                self._paused.set_exception(violation)
            return 0
        if (handling is not None or self.client_terminated) and not self._paused.done():
            self._paused.set_result(handling)
        return count

    def _feed(self, data: bytearray, count: int) -> Awaitable[None] | None:
        """Handle the frames in `data[:count]`; return what to wait for before the others."""
        if self._rest:
            self._rest += memoryview(data)[:count]
            used, handling = self._consume(self._rest, len(self._rest))
            del self._rest[:used]
        else:
            used, handling = self._consume(data, count)
            if used < count:
                self._rest += memoryview(data)[used:count]
        return handling

    def _consume(self, data: bytearray, end: int) -> tuple[int, Awaitable[None] | None]:
        """Handle whole frames of `data[:end]`, as far as none is to be waited for.

        Returns how many bytes they had, and what to wait for.
        """
        position, handling = 0, None
        while handling is None and end - position >= 2 and not self.client_terminated:  # noqa: PLR2004 - a frame's head
            first, second = data[position], data[position + 1]
            size, start = second & 0x7F, position + 2
            if size >= _SMALL:
                width = 2 if size == _SMALL else 8
                if end - start < width:
                    break
                size = (_two_bytes if width == 2 else _eight_bytes)(data, start)[0]  # noqa: PLR2004
                start += width
                self._check_size(size, width)
            self._check_head(first, second, size)
            if not self.mask_outgoing:  # this end is the server: what comes is masked
                start += 4
            if end - start < size:
                break
            payload = bytes(memoryview(data)[start : start + size])
            if not self.mask_outgoing:
                payload = _websocket_mask(bytes(data[start - 4 : start]), payload)
            position = start + size
            handling = self._take(first, payload)
        return position, handling

    def _check_size(self, size: int, width: int) -> None:
        if size < (_SMALL if width == 2 else _WIDE) or size >= 2**63:  # noqa: PLR2004
            raise _Violation(PROTOCOL_ERROR, "a length in a longer form than it needs")

    def _check_head(self, first: int, second: int, size: int) -> None:
        """Refuse a frame by its first bytes, before its payload is there."""
        opcode = first & 0x0F
        if bool(second & 0x80) is self.mask_outgoing:
            raise _Violation(PROTOCOL_ERROR, "a frame that is not masked as it must be")
        if first & _RSV and (
            first & _RSV != _RSV1 or self._decompressor is None or opcode not in {_TEXT, _BINARY}
        ):
            raise _Violation(PROTOCOL_ERROR, "a reserved bit")
        if opcode & _CONTROL:
            if opcode not in {_CLOSE, _PING, _PONG}:
                raise _Violation(PROTOCOL_ERROR, "an unknown opcode")
            if not first & _FIN or size >= _SMALL:
                raise _Violation(PROTOCOL_ERROR, "a control frame in parts, or too long")
            return
        if opcode > _BINARY:
            raise _Violation(PROTOCOL_ERROR, "an unknown opcode")
        if (opcode == _CONTINUATION) is (self._fragmented_message_buffer is None):
            raise _Violation(PROTOCOL_ERROR, "parts of messages out of order")
        if size + len(self._fragmented_message_buffer or b"") > self.params.max_message_size:
            raise _Violation(TOO_BIG, "the message is too big")

    def _take(self, first: int, payload: bytes) -> Awaitable[None] | None:
        """Handle one frame; return what to wait for before the next."""
        opcode, final = first & 0x0F, first & _FIN
        if opcode & _CONTROL:
            return self._control(opcode, payload)
        if opcode != _CONTINUATION:
            compressed = bool(first & _RSV1)
            if final:
                return self._message(opcode, payload, compressed)
            self._fragmented_message_opcode = cast("Any", opcode)
            self._frame_compressed = compressed
            self._fragmented_message_buffer = bytearray(payload)
            return None
        buffer = cast("bytearray", self._fragmented_message_buffer)
        buffer += payload
        if not final:
            return None
        self._fragmented_message_buffer = None
        opcode = cast("int", self._fragmented_message_opcode)
        return self._message(opcode, bytes(buffer), bool(self._frame_compressed))

    def _message(self, opcode: int, data: bytes, compressed: bool) -> Awaitable[None] | None:  # noqa: FBT001
        if compressed and self._decompressor is not None:
            try:
                data = self._decompressor.decompress(data)
            except _DecompressTooLargeError:
                raise _Violation(TOO_BIG, "the message is too big when decompressed") from None
            except Exception as error:  # zlib's, whatever it is
                raise _Violation(NOT_UTF8, "the message cannot be decompressed") from error
        if opcode == _BINARY:
            return self._run_callback(self.handler.on_message, data)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise _Violation(NOT_UTF8, "the text is not UTF-8") from None
        return self._run_callback(self.handler.on_message, text)

    def _control(self, opcode: int, payload: bytes) -> Awaitable[None] | None:
        if opcode == _PING:
            self._send_pong(payload)
            return self._run_callback(self.handler.on_ping, payload)
        if opcode == _PONG:
            self._received_pong = True
            return self._run_callback(self.handler.on_pong, payload)
        code, reason = goodbye(payload)
        self.client_terminated = True
        self.close_code, self.close_reason = code, reason
        self._flush()
        if self.stream.writing():
            return self._close_when_written(code)
        self.close(code)  # RFC 6455, section 5.5.1: the code is echoed
        return None

    async def _close_when_written(self, code: int | None) -> None:
        """Close once the other end has what was sent before; within bounds, for it may not read."""
        with contextlib.suppress(OSError):  # closed, or the time is over
            async with asyncio.timeout(_CLOSE_S):
                await self.stream.write(b"")  # done when all before it is
        self.close(code)

    async def _fail(self, violation: _Violation) -> None:
        """Say why, and read on for a moment: closing over unread data would reset the line."""
        self.close(violation.code, violation.reason)
        chunk, count = bytearray(_LARGEST), 0
        try:
            async with asyncio.timeout(_LINGER_S):
                while count < _LINGER_BYTES:
                    count += await self.stream.read_into(chunk, partial=True)
        except OSError:  # closed, or the time is over
            pass
        finally:
            self._abort()


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def goodbye(payload: bytes) -> tuple[int | None, str | None]:
    """Return the code and reason of a close frame; raise if it may not be sent."""
    if not payload:
        return None, None
    if len(payload) == 1:
        raise _Violation(PROTOCOL_ERROR, "a close code of one byte")
    code = _two_bytes(payload)[0]
    if code not in _CLOSE_CODES and code not in _APPLICATION_CODES:
        raise _Violation(PROTOCOL_ERROR, f"the close code {code}")
    try:
        return code, payload[2:].decode() or None
    except UnicodeDecodeError:
        raise _Violation(NOT_UTF8, "a close reason that is not UTF-8") from None


def _random_mask() -> bytes:
    # RFC 6455, section 10.3: unpredictable to whoever chose the data. 4 KB of randomness at a
    # time cost less than 4 bytes each time.
    global _masks, _mask_at  # noqa: PLW0603
    if _mask_at >= len(_masks):
        _masks, _mask_at = os.urandom(4096), 0
    _mask_at += 4
    return _masks[_mask_at - 4 : _mask_at]


_masks, _mask_at = b"", 0
_chunk = bytearray(_LARGEST)
"""What all connections are read into: none keeps it, for nothing is awaited meanwhile."""


class FrameLoopHandler:
    """Mixed into a `WebSocketHandler`, before it in the bases: its connections use `FrameLoop`."""

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Return the protocol of a new connection."""
        return _replaced(cast("WebSocketHandler", self), super().get_websocket_protocol())  # type: ignore[misc]


def _replaced(
    handler: WebSocketHandler, protocol: WebSocketProtocol | None
) -> WebSocketProtocol | None:
    if type(protocol) is not WebSocketProtocol13:
        return protocol
    return FrameLoop(cast("Any", handler), mask_outgoing=False, params=protocol.params)


_stock = WebSocketHandler.get_websocket_protocol


def install() -> None:
    """Let every WebSocket handler of this process use `FrameLoop`, also others'. Idempotent."""

    def get_websocket_protocol(self: WebSocketHandler) -> WebSocketProtocol | None:
        return _replaced(self, _stock(self))

    WebSocketHandler.get_websocket_protocol = get_websocket_protocol


class ClientConnection(WebSocketClientConnection):
    """Tornado's client connection on `FrameLoop`."""

    protocol: FrameLoop  # pyright: ignore[reportIncompatibleVariableOverride]

    def get_websocket_protocol(self) -> WebSocketProtocol:
        """Return the protocol of the connection."""
        return FrameLoop(cast("Any", self), mask_outgoing=True, params=self.params)


def connect(request: HTTPRequest, **options: Any) -> Awaitable[ClientConnection]:
    """Open a WebSocket; options and errors are those of `tornado.websocket.websocket_connect`."""
    request.headers = HTTPHeaders(request.headers)
    proxied = cast("HTTPRequest", _RequestProxy(request, HTTPRequest._DEFAULTS))  # noqa: SLF001
    connection = ClientConnection(proxied, **options)
    return cast("Awaitable[ClientConnection]", connection.connect_future)
