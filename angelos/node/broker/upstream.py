"""A connection from the broker to a host; what goes wrong on it is a refusal with its reason."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11

from angelos.core.errors import InvalidInput
from angelos.core.network import NetworkVerdict
from angelos.node.broker.models import BrokerLimits, RequestRefused
from angelos.node.broker.resolver import HostResolver
from angelos.node.broker.wire import ByteStream, PlainWire, TlsWire

_MAX_INFORMATION = 16
"""Answers before the answer: 100 Continue and its like."""
_ERRORS = (OSError, TimeoutError, ssl.SSLError, h11.ProtocolError)


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """Return how hosts are asked for their certificate.

    Raises:
        InvalidInput: The file of further authorities cannot be read.
    """
    context = ssl.create_default_context()
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{authorities} holds no certificates: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class Upstream:
    """Speaks HTTP to a host: one request, one answer."""

    def __init__(self, wire: ByteStream, host: str, limits: BrokerLimits) -> None:
        self._wire = wire
        self._host = host
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head_bytes)

    async def send(self, event: h11.Event) -> None:
        """Send a part of the request; raise `RequestRefused` if it cannot be sent."""
        with _refusing(self._host):
            if data := self._http.send(event):
                await self._wire.send(data)

    async def head(self) -> h11.Response:
        """Return the head of the answer; raise `RequestRefused` if none comes."""
        for _ in range(_MAX_INFORMATION):
            if isinstance(event := await self.next(), h11.Response):
                return event
        raise RequestRefused(
            NetworkVerdict.unreachable, f"{self._host}: it does not come to its answer"
        )

    async def next(self) -> Any:
        """Return the next part of the answer; raise `RequestRefused` if none comes."""
        with _refusing(self._host):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._wire.receive())
            return event


@contextlib.asynccontextmanager
async def connected(
    resolver: HostResolver,
    host: str,
    port: int,
    limits: BrokerLimits,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[PlainWire, ByteStream]]:
    """Connect to a host where the resolver says it is; with `context`, by TLS with its name.

    Yields:
        The wire of the socket, and the one to talk over.

    Raises:
        RequestRefused: It may not be reached, or cannot be.
    """
    sock: socket.socket | None = None
    try:
        with _refusing(host):
            async with asyncio.timeout(limits.connect_s):
                places = await resolver.places(host, port)
                sock = await _first(places)
                plain = PlainWire(sock, limits.idle_s)
                wire: ByteStream = plain
                if context is not None:
                    wire = TlsWire(plain, context, server_side=False, host=host)
                    await wire.handshake()
        yield plain, wire
    finally:
        if sock is not None:
            sock.close()


async def _first(places: tuple[tuple[str, int], ...]) -> socket.socket:
    """Return a socket that is connected to the first of the places that answers."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("it has no address")
    for address, port in places:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(sock, (address, port))
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


@contextlib.contextmanager
def _refusing(host: str) -> Any:
    """Turn what can go wrong on a connection into a refusal."""
    try:
        yield
    except _ERRORS as error:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {error.verify_message}"
        elif isinstance(error, TimeoutError):
            reason = "it does not answer in time"
        else:
            reason = getattr(error, "strerror", None) or str(error) or "it ended the connection"
        raise RequestRefused(NetworkVerdict.unreachable, f"{host}: {reason}") from error
