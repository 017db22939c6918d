"""Bytes over a socket, plain or inside TLS, each step within a time.

TLS runs over buffers in memory (`ssl.MemoryBIO`) and not over asyncio's transports, so that what a
client says before its handshake is neither lost nor guessed: the broker reads the name that a
handshake asks for with OpenSSL, from bytes that it then passes on unchanged.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol

PIECE = 65_536
_MAX_HELLO = 65_536


class ByteStream(Protocol):
    """A connection that bytes go over, both ways."""

    async def receive(self) -> bytes:
        """Return bytes as they come, empty at the end."""
        ...

    async def send(self, data: bytes) -> None:
        """Return when the bytes are with the kernel."""
        ...


class PlainWire:
    """A socket. Each step gives way once: asyncio itself does not while the other end is ready."""

    def __init__(self, sock: socket.socket, patience_s: float) -> None:
        """Take a connected socket, on which each step may take `patience_s`."""
        sock.setblocking(False)  # noqa: FBT003
        self._sock = sock
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()

    async def receive(self) -> bytes:
        """Return bytes as they come, empty at the end."""
        async with asyncio.timeout(self._patience_s):
            await asyncio.sleep(0)  # before the step, so that no byte is lost if it is cancelled
            return await self._loop.sock_recv(self._sock, PIECE)

    async def send(self, data: bytes) -> None:
        """Return when the bytes are with the kernel."""
        async with asyncio.timeout(self._patience_s):
            await asyncio.sleep(0)
            await self._loop.sock_sendall(self._sock, data)

    def finish(self) -> None:
        """Tell the other end that nothing more is sent."""
        self._sock.shutdown(socket.SHUT_WR)


class TlsWire:
    """TLS over a socket; `handshake` comes first."""

    def __init__(
        self,
        below: PlainWire,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        host: str | None = None,
    ) -> None:
        """Speak TLS; as a client, with `host` and no other."""
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=host
        )

    async def handshake(self) -> None:
        """Agree on keys; raise `ssl.SSLError` if that cannot be done."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        """Return bytes as they come, empty at the end; raise `ssl.SSLError` if it was cut off."""
        while True:
            try:
                return self.tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes) -> None:
        """Return when the bytes are with the kernel."""
        for start in range(0, len(data), PIECE):
            self.tls.write(data[start : start + PIECE])
            await self._flush()

    async def _fill(self) -> None:
        data = await self._below.receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._below.send(data)


async def read_hello(wire: ByteStream) -> tuple[str, bytes]:
    """Return the name that a client's TLS handshake asks for, and the bytes that say it.

    Args:
        wire: Where the handshake comes from; nothing is answered.

    Raises:
        ssl.SSLError: It is no handshake, or asks for no name.
    """
    names: list[str | None] = []

    def on_name(_: object, name: str | None, __: object) -> int:
        names.append(name)
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = on_name  # pyright: ignore[reportAttributeAccessIssue]
    incoming = ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    hello = b""
    while not names:
        data = await wire.receive()
        hello += data
        if not data or len(hello) > _MAX_HELLO:
            raise ssl.SSLError("there is no TLS handshake")
        incoming.write(data)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            if not names:
                raise
    if not names[0]:
        raise ssl.SSLError("the TLS handshake names no host")
    return names[0], hello
