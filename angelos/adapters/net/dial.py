"""Outgoing connections that end when their caller is cancelled.

Tornado's own go on after that, until an answer or a time-out comes.

    link = await dial(HTTPRequest("wss://127.0.0.1:8443/x", ssl_options=context), ping_interval=20)
    async with caller(max_body=1_000_000) as http:
        answer = await http.fetch(HTTPRequest("https://127.0.0.1:8443/x"), raise_error=False)
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient
from tornado.websocket import WebSocketClientConnection

from angelos.adapters.net.frame_loop import ClientConnection, connect
from angelos.core.errors import AngelError, Unavailable, from_problem

_ALERT_S = 2.0


async def dial(request: HTTPRequest, unix_socket: str = "", **options: Any) -> ClientConnection:
    """Return an open WebSocket; `options` and errors are those of Tornado's `websocket_connect`.

    With `unix_socket` it leads there, whatever the request's host. If the caller is
    cancelled meanwhile, the connection is closed as soon as it is there.
    """
    if unix_socket:
        options["resolver"] = _UnixResolver(unix_socket)
    connecting = asyncio.ensure_future(connect(request, **options))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_discard)
        raise


def hang_up(link: WebSocketClientConnection) -> None:
    """Close a WebSocket at once; Tornado would wait for the other end's close frame."""
    stream = getattr(link.protocol, "stream", None)
    link.close()
    if stream is not None:
        stream.close()


def _discard(connecting: asyncio.Future[ClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        hang_up(connecting.result())


@asynccontextmanager
async def caller(max_body: int, unix_socket: str = "") -> AsyncGenerator[Caller, None]:
    """Yield a client for one request after the other; on leaving, its connection is closed.

    Answers of more than `max_body` bytes are refused. With `unix_socket` every request leads there.
    """
    http = Caller(max_body, unix_socket)
    try:
        yield http
    finally:
        http.hang_up()


class Caller:
    """An HTTP client of Tornado's that can hang up."""

    def __init__(self, max_body: int, unix_socket: str = "") -> None:
        self._line = _Line(_UnixResolver(unix_socket) if unix_socket else None)
        http = SimpleAsyncHTTPClient(force_instance=True, max_body_size=max_body)
        self._http = cast("SimpleAsyncHTTPClient", http)
        self._http.tcp_client.close()
        self._http.tcp_client = self._line

    async def fetch(self, request: HTTPRequest, *, raise_error: bool = True) -> HTTPResponse:
        """Send a request and return its answer, as `AsyncHTTPClient.fetch` does."""
        asking = asyncio.ensure_future(self._http.fetch(request, raise_error=raise_error))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Shielded, since a cancelled fetch would log the request's error; so take it here.
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def hang_up(self) -> None:
        """Close the connection, and with it a request in progress."""
        self._line.hang_up()
        self._http.close()


class _Line(TCPClient):
    """Tornado's client, which cannot close its connection; this one remembers the last."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        super().__init__(resolver=resolver)
        self._stream: IOStream | None = None
        self._hung_up = False

    async def connect(self, *args: Any, **kwargs: Any) -> IOStream:
        self._stream = await super().connect(*args, **kwargs)
        if self._hung_up:
            self._stream.close()
            raise StreamClosedError
        return self._stream

    def hang_up(self) -> None:
        self._hung_up = True
        if self._stream is not None:
            self._stream.close()


class _UnixResolver(Resolver):
    """Finds one Unix socket, whatever host is asked for."""

    def initialize(self, path: str = "") -> None:
        """Lead to `path`."""
        self._path = path

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """Return the socket's address."""
        del host, port, family
        return [(socket.AF_UNIX, self._path)]


async def alert_of(url: str, context: ssl.SSLContext) -> str:
    """Return OpenSSL's name of the TLS alert with which a server refuses our certificate, or "".

    Under TLS 1.3 the alert comes after the client's handshake. Whoever writes before it has read
    learns only that the connection is closed, so this one only reads.
    """
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_ALERT_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port, ssl=context, server_hostname=parts.hostname
            )
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return error.reason or ""
    except (OSError, TimeoutError):
        pass
    return ""


def problem_of(error: HTTPClientError) -> AngelError:
    """Return the error that a refused request's problem document describes."""
    body = error.response.body if error.response is not None else b""
    try:
        problem = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return Unavailable(f"No usable answer: {error.message} ({error.code}).")
    return from_problem(problem)
