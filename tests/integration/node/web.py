"""A host of the web on loopback, with TLS and an authority of its own, as the broker meets it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from angelos.core.facts import NetworkRequested
from angelos.core.ids import PrincipalId
from angelos.core.network import NetworkVerdict, parse_rules
from angelos.node.broker.authority import BoxAuthority
from angelos.node.broker.models import BrokerLimits, Credential, NetworkConfig
from angelos.node.broker.proxy import BoxBroker, Outside
from angelos.node.broker.resolver import HostResolver, Lookup
from angelos.node.broker.upstream import client_context

ADA = PrincipalId("agent/ada")
Answer = Callable[[bytes, bytes], bytes]
"""Turns the head of a request and its body into a whole answer."""


def page(text: bytes = b"hello", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(text), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + text


@dataclass
class WebHost:
    """One server; `pages` by path, and what it was asked."""

    name: str
    port: int
    authority: BoxAuthority
    pages: dict[str, bytes | Answer] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            body = b""
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    body = await reader.readexactly(int(line.split(b":")[1]))
            path = head.split(b" ")[1].decode().partition("?")[0]
            answer = self.pages.get(path, page(b"not here", status=b"404 Not Found"))
            writer.write(answer if isinstance(answer, bytes) else answer(head, body))
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def web_host(name: str = "index.test", *, tls: bool = True) -> AsyncIterator[WebHost]:
    """Serve on a free port of loopback."""
    authority = BoxAuthority("the internet")
    host = WebHost(name, 0, authority)
    context = authority.context(name) if tls else None
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=context)
    host.port = server.sockets[0].getsockname()[1]
    async with server:
        yield host


def config_for(
    folder: Path, *hosts: WebHost, credentials: tuple[Credential, ...] = ()
) -> NetworkConfig:
    """List hosts as an operator would, and trust their authorities."""
    bundle = folder / "authorities.pem"
    bundle.write_bytes(b"".join(host.authority.pem for host in hosts))
    listed = {host.name: f"127.0.0.1:{host.port}" for host in hosts}
    return NetworkConfig(hosts=listed, authorities=bundle, credentials=credentials)


@dataclass
class BrokerAtHand:
    """A broker without a box: a test speaks to it as a box would."""

    port: int
    authority: BoxAuthority
    facts: list[tuple[NetworkRequested, NetworkVerdict]]

    @property
    def verdicts(self) -> list[str]:
        return [verdict.value for _, verdict in self.facts]

    async def say(self, data: bytes, *, connect: str = "", tls: str | None = None) -> bytes:
        """Send bytes and return everything that comes back.

        With `connect` they go through a tunnel, with `tls` in TLS that names this host (empty: no
        name). The answer to a refused tunnel is returned.
        """
        return await asyncio.to_thread(self._say, data, connect, tls)

    def _say(self, data: bytes, connect: str, tls: str | None) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            if connect:
                sock.sendall(f"CONNECT {connect} HTTP/1.1\r\nHost: {connect}\r\n\r\n".encode())
                head = b""
                while b"\r\n\r\n" not in head and (piece := sock.recv(65_536)):
                    head += piece
                if b" 200 " not in head.partition(b"\r\n")[0]:
                    return head + _rest(sock)
            try:
                if tls is None:
                    sock.sendall(data)
                    return _rest(sock)
                context = ssl.create_default_context(cadata=self.authority.pem.decode())
                context.check_hostname = False
                with context.wrap_socket(sock, server_hostname=tls or None) as inner:
                    inner.sendall(data)
                    return _rest(inner)
            except (ConnectionError, ssl.SSLError):
                return b""


def _rest(sock: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := sock.recv(65_536):
            answer += piece
    return answer


@contextlib.asynccontextmanager
async def broker_at_hand(
    rules: list[str],
    config: NetworkConfig,
    *,
    lookup: Lookup | None = None,
    limits: BrokerLimits | None = None,
) -> AsyncIterator[BrokerAtHand]:
    """Serve on loopback what a box would reach on its own."""
    facts: list[tuple[NetworkRequested, NetworkVerdict]] = []

    async def report(fact: NetworkRequested, verdict: NetworkVerdict) -> None:
        facts.append((fact, verdict))

    resolver = HostResolver(config.hosts, lookup)
    outside = Outside(
        resolver,
        client_context(config.authorities),
        {credential.name: credential for credential in config.credentials},
        limits or config.limits,
    )
    authority = BoxAuthority("task-1")
    broker = BoxBroker(parse_rules(rules), ADA, authority, outside, report)
    listener = socket.create_server(("127.0.0.1", 0))
    at_hand = BrokerAtHand(listener.getsockname()[1], authority, facts)
    try:
        async with broker.serving(listener):
            yield at_hand
    finally:
        resolver.close()
