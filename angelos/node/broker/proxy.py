"""The proxy of one box: what its rules open is passed on, everything else is refused and reported.

    broker = BoxBroker(rules, by, authority, resolver, ...)
    async with broker.serving(listener):       # a socket that listens on the box's own loopback
        ...                                    # the program runs

A box asks in one of two forms. `CONNECT host:port` opens a tunnel: where a rule names paths, the
broker ends the box's TLS itself, with a certificate of the box's own authority, reads each request
and makes a new one to the host; where a rule opens the host as a whole, it compares the name in the
handshake and passes bytes on. `GET http://host/path` is a request without TLS. There is one
connection to a host for each request, to an address that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h11

from angelos.adapters.host.endless import endless
from angelos.core.errors import AngelError, InvalidInput
from angelos.core.facts import NetworkRequested
from angelos.core.ids import PrincipalId
from angelos.core.network import (
    NetworkRule,
    NetworkVerdict,
    find_rule,
    normal_authority,
    normal_host,
    opened,
)
from angelos.node.broker.authority import BoxAuthority
from angelos.node.broker.heads import (
    Origin,
    check_readable,
    head_for_box,
    head_for_host,
    read_request,
)
from angelos.node.broker.models import BrokerLimits, Credential, RequestRefused
from angelos.node.broker.redact import Redactor
from angelos.node.broker.resolver import HostResolver
from angelos.node.broker.upstream import Upstream, connected
from angelos.node.broker.wire import ByteStream, PlainWire, TlsWire, read_hello

log = logging.getLogger(__name__)
Report = Callable[[NetworkRequested, NetworkVerdict], Awaitable[None]]
_MAX_URL = 300
_CUT = "it was cut off"
_TOO_MUCH = "the box has moved as many bytes as it may"
_LINGER_S, _LINGER_PIECES = 1.0, 64
_ACCEPT_PAUSE_S = 0.1
_CODES = {
    NetworkVerdict.malformed: 400,
    NetworkVerdict.limit: 429,
    NetworkVerdict.unresolved: 502,
    NetworkVerdict.unreachable: 502,
}
_CLIENT_ERRORS = (OSError, TimeoutError, ssl.SSLError, h11.ProtocolError)


@dataclass(slots=True)
class _Account:
    """What is known of one request, for its fact."""

    url: str = ""
    method: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    rule: str = ""
    silent: bool = False
    """It is one of many of which the first was reported."""


@dataclass(frozen=True, slots=True)
class _Tunnel:
    """One connection of the box, and the HTTP that is spoken on it."""

    below: PlainWire
    wire: ByteStream
    http: h11.Connection
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """What the boxes of a node share to reach the network."""

    resolver: HostResolver
    context: ssl.SSLContext
    credentials: Mapping[str, Credential]
    limits: BrokerLimits = field(default_factory=BrokerLimits)


class BoxBroker:
    """Answers what one box asks of the network."""

    def __init__(
        self,
        rules: Sequence[NetworkRule],
        by: PrincipalId,
        authority: BoxAuthority,
        outside: Outside,
        report: Report,
    ) -> None:
        """Open what `rules` say, for `by`; every request is given to `report`."""
        self._rules = tuple(rules)
        self._by = by
        self._authority = authority
        self._outside = outside
        self._limits = outside.limits
        self._report = report
        self._requests = self._bytes = 0
        self._reports: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Accept connections; at the end close them, and report what they had asked for."""
        listener.setblocking(False)  # noqa: FBT003
        accepting = endless("broker of a box", lambda: self._accept(listener))
        try:
            yield
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            listener.close()
            await asyncio.gather(*self._reports, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(self._limits.connections)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    sock, _ = await loop.sock_accept(listener)
                except OSError as error:  # the node has no descriptor left: connections go on
                    log.warning("A connection of a box cannot be accepted: %s", error)
                    room.release()
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
                    continue
                task = group.create_task(self._connection(sock), name="a connection of a box")
                task.add_done_callback(lambda _: room.release())

    async def _connection(self, sock: socket.socket) -> None:
        """Serve one connection; whatever a box sends ends at most that."""
        with sock:
            plain = PlainWire(sock, self._limits.idle_s)
            try:
                await self._talk(_Tunnel(plain, plain, self._http()))
            except _CLIENT_ERRORS as error:
                log.info("A connection of a box has ended: %s", error)
            except Exception:
                log.exception("A connection of a box has failed")

    def _http(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)

    async def _talk(self, tunnel: _Tunnel) -> None:
        """Answer request after request."""
        while True:
            account = _Account()
            try:
                request = await self._next_request(tunnel, account)
                if request is None:
                    return
                self._admit(account)
                if request.method == b"CONNECT" and tunnel.origin is None:
                    await self._connect(tunnel, request, account)
                    return
                await self._exchange(tunnel, request, account)
            except RequestRefused as refusal:
                await self._refuse(tunnel, account, refusal)
                return
            if tunnel.http.our_state is not h11.DONE or tunnel.http.their_state is not h11.DONE:
                return
            tunnel.http.start_next_cycle()

    def _admit(self, account: _Account) -> None:
        """Count what a box asks, read or not; of what is too much, the first is reported."""
        self._requests += 1
        over = self._requests - self._limits.requests
        if over > 0:
            account.url, account.silent = "many requests", over > 1
            raise RequestRefused(
                NetworkVerdict.limit, f"{self._limits.requests} requests were made already"
            )

    async def _next_request(self, tunnel: _Tunnel, account: _Account) -> h11.Request | None:
        async with asyncio.timeout(self._limits.idle_s):
            while True:
                try:
                    event = tunnel.http.next_event()
                except h11.RemoteProtocolError as error:
                    self._admit(account)
                    raise RequestRefused(NetworkVerdict.malformed, str(error)) from error
                if isinstance(event, h11.Request):
                    return event
                if event is not h11.NEED_DATA:
                    return None
                tunnel.http.receive_data(await tunnel.wire.receive())

    # -- tunnels -------------------------------------------------------------------------

    async def _connect(self, tunnel: _Tunnel, request: h11.Request, account: _Account) -> None:
        account.method = "CONNECT"
        target = request.target.decode("ascii", "replace")
        account.url = target
        try:
            host, port = normal_authority(target, 0)
        except InvalidInput as error:
            raise RequestRefused(NetworkVerdict.malformed, str(error)) from error
        kind = opened(self._rules, host, port) if port else None
        if kind is None:
            account.rule = str(NetworkRule("https", host, port or 443, ("GET", "HEAD"), "/"))
            raise RequestRefused(NetworkVerdict.no_rule, f"no rule opens {host}:{port}")
        http = tunnel.http
        await tunnel.wire.send(http.send(h11.Response(status_code=200, headers=[])) or b"")
        if http.trailing_data[0]:
            await self._account(account, NetworkVerdict.malformed, "it spoke before its turn")
            return
        if kind == "tls":
            await self._pass_on(tunnel.below, host, port, account)
        else:
            await self._terminate(tunnel.below, host, port, account)

    async def _terminate(self, plain: PlainWire, host: str, port: int, account: _Account) -> None:
        """End the TLS of the box here, and read what it asks."""
        context = self._authority.context(host)
        wire = TlsWire(plain, context, server_side=True)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await wire.handshake()
        except (OSError, TimeoutError) as error:  # an SSLError is an OSError
            if wire.tls in self._authority.misnamed:
                verdict, reason = NetworkVerdict.other_host, "the TLS handshake names another host"
            else:
                verdict, reason = NetworkVerdict.malformed, f"no TLS: {error}"
            await self._account(account, verdict, reason)
            return
        await self._talk(_Tunnel(plain, wire, self._http(), ("https", host, port)))

    async def _pass_on(self, plain: PlainWire, host: str, port: int, account: _Account) -> None:
        """Carry bytes of a host that is open as a whole, once its handshake names it."""
        account.rule = str(NetworkRule("tls", host, port))
        try:
            async with asyncio.timeout(self._limits.connect_s):
                name, hello = await read_hello(plain)
            if normal_host(name) != host:
                raise RequestRefused(  # noqa: TRY301
                    NetworkVerdict.other_host, f"the TLS handshake names {name[:100]}"
                )
            outside = self._outside
            async with connected(outside.resolver, host, port, self._limits) as (far, _):
                await self._splice(plain, far, hello, account)
        except RequestRefused as refusal:
            await self._account(account, refusal.verdict, str(refusal))
        except (InvalidInput, ssl.SSLError, TimeoutError) as error:
            await self._account(account, NetworkVerdict.malformed, str(error) or "no TLS handshake")
        except BaseException:
            await self._account(account, NetworkVerdict.allowed, _CUT)
            raise
        else:
            await self._account(account, NetworkVerdict.allowed)

    async def _splice(
        self, near: PlainWire, far: PlainWire, hello: bytes, account: _Account
    ) -> None:
        """Carry bytes both ways until both ends have finished, or nothing moves for long."""
        loop = asyncio.get_running_loop()
        moved = loop.time()

        async def carry(source: PlainWire, sink: PlainWire, count: Callable[[int], None]) -> None:
            nonlocal moved
            while True:
                try:
                    data = await source.receive()
                except TimeoutError:
                    if loop.time() - moved < self._limits.idle_s:
                        continue  # the other direction has moved
                    raise
                moved = loop.time()
                if not data:
                    with contextlib.suppress(OSError):
                        sink.finish()
                    return
                self._count(len(data))
                count(len(data))
                await sink.send(data)

        def sent(size: int) -> None:
            account.sent += size

        def received(size: int) -> None:
            account.received += size

        await far.send(hello)
        sent(len(hello))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(carry(near, far, sent))
                group.create_task(carry(far, near, received))
        except ExceptionGroup as group:
            if any(isinstance(error, RequestRefused) for error in group.exceptions):
                raise RequestRefused(NetworkVerdict.limit, _TOO_MUCH) from None
            # else one end is away, and the tunnel is over

    # -- requests ------------------------------------------------------------------------

    async def _exchange(self, tunnel: _Tunnel, request: h11.Request, account: _Account) -> None:
        """Carry one request out and its answer back."""
        account.method = request.method.decode("ascii", "replace")[:32]
        account.url = _url(tunnel.origin, request)
        wanted = read_request(request, tunnel.origin, self._limits)
        account.url = f"{wanted.scheme}://{wanted.host}:{wanted.port}{wanted.target.path}"
        rule = find_rule(self._rules, wanted)
        if rule is None:
            account.rule = str(wanted.rule)
            raise RequestRefused(
                NetworkVerdict.no_rule, f"no rule opens {wanted.method} {account.url[:_MAX_URL]}"
            )
        account.rule = str(rule)
        credential = self._outside.credentials[rule.credential] if rule.credential else None
        context = self._outside.context if wanted.scheme == "https" else None
        resolver, limits = self._outside.resolver, self._limits
        try:
            async with connected(resolver, wanted.host, wanted.port, limits, context) as (_, wire):
                host = Upstream(wire, wanted.host, limits)
                await host.send(head_for_host(request, wanted, credential))
                await self._send_body(tunnel, host, account)
                await self._answer(tunnel, host, account, credential)
        except RequestRefused as refusal:
            if tunnel.http.our_state is h11.SEND_RESPONSE:
                raise  # the box is told
            await self._account(account, refusal.verdict, str(refusal))
        except BaseException:
            await self._account(account, NetworkVerdict.allowed, _CUT)
            raise
        else:
            await self._account(account, NetworkVerdict.allowed)

    async def _send_body(self, tunnel: _Tunnel, host: Upstream, account: _Account) -> None:
        while True:
            if tunnel.http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await tunnel.wire.send(tunnel.http.send(go_on) or b"")
            try:
                event = tunnel.http.next_event()
            except h11.RemoteProtocolError as error:
                raise RequestRefused(NetworkVerdict.malformed, str(error)) from error
            if event is h11.NEED_DATA:
                tunnel.http.receive_data(await tunnel.wire.receive())
            elif isinstance(event, h11.Data):
                account.sent += len(event.data)
                if account.sent > self._limits.request_bytes:
                    raise RequestRefused(
                        NetworkVerdict.limit, f"it has over {self._limits.request_bytes} bytes"
                    )
                self._count(len(event.data))
                await host.send(h11.Data(data=event.data))
            else:
                await host.send(h11.EndOfMessage())
                return

    async def _answer(
        self, tunnel: _Tunnel, host: Upstream, account: _Account, credential: Credential | None
    ) -> None:
        redactor = Redactor(credential.value.encode()) if credential is not None else None
        head = await host.head()
        account.status = head.status_code
        answer = head_for_box(head)
        if redactor is not None:
            check_readable(head)
            headers = [(name, redactor.clean(value)) for name, value in answer.headers]
            answer = h11.Response(status_code=head.status_code, headers=headers)
        await self._say(tunnel, answer)
        while isinstance(event := await host.next(), h11.Data):
            account.received += len(event.data)
            self._count(len(event.data))
            data = bytes(event.data)
            if piece := redactor.take(data) if redactor is not None else data:
                await self._say(tunnel, h11.Data(data=piece))
        if redactor is not None and (rest := redactor.rest()):
            await self._say(tunnel, h11.Data(data=rest))
        await self._say(tunnel, h11.EndOfMessage())

    async def _say(self, tunnel: _Tunnel, event: h11.Event) -> None:
        if data := tunnel.http.send(event):
            await tunnel.wire.send(data)

    # -- refusals and facts --------------------------------------------------------------

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.total_bytes:
            raise RequestRefused(NetworkVerdict.limit, _TOO_MUCH)

    async def _refuse(self, tunnel: _Tunnel, account: _Account, refusal: RequestRefused) -> None:
        """Report a refusal and tell the box, unless its answer has begun."""
        http = tunnel.http
        if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        await self._account(account, refusal.verdict, str(refusal))
        hint = f" A rule that allows it: {account.rule}" if account.rule else ""
        text = f"AngelOS refused this request ({refusal.verdict}): {refusal}.{hint}\n".encode()
        reason = str(refusal).encode("ascii", "replace")[:200].decode()
        head = h11.Response(
            status_code=_CODES.get(refusal.verdict, 403),
            reason="".join(c if c.isprintable() else "?" for c in reason),
            headers=[
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(text))),
                ("X-AngelOS-Verdict", refusal.verdict),
                ("Connection", "close"),
            ],
        )
        events: tuple[Any, ...] = (head, h11.Data(data=text), h11.EndOfMessage())
        if account.method == "HEAD":
            events = (head, h11.EndOfMessage())
        for event in events:
            await self._say(tunnel, event)
        await _linger(tunnel.below)

    async def _account(self, account: _Account, verdict: NetworkVerdict, reason: str = "") -> None:
        """Report a request; it is reported also if the box ends meanwhile."""
        if account.silent:
            return
        fact = NetworkRequested(
            by=self._by,
            method=account.method,
            url=account.url[:_MAX_URL],
            status=account.status,
            sent=account.sent,
            received=account.received,
            allows=account.rule[:_MAX_URL],
            reason=reason[:_MAX_URL],
        )

        async def tell() -> None:
            try:
                await self._report(fact, verdict)
            except AngelError as error:
                log.warning("A request of a box was not reported: %s", error)

        task = asyncio.create_task(tell(), name="report of a request")
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        await asyncio.shield(task)


def _url(origin: Origin | None, request: h11.Request) -> str:
    """Return for a fact what a head asks for, read or not; never its query."""
    target = request.target.decode("ascii", "replace").partition("?")[0]
    return f"{origin[0]}://{origin[1]}:{origin[2]}{target}" if origin is not None else target


async def _linger(wire: PlainWire) -> None:
    """Read for a moment what a box still sends: else the kernel would drop our answer with it."""
    with contextlib.suppress(OSError, TimeoutError):
        wire.finish()
        async with asyncio.timeout(_LINGER_S):
            for _ in range(_LINGER_PIECES):
                if not await wire.receive():
                    return
