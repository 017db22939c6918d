"""The peer's end of a channel: a WebSocket over mutual TLS that reconnects on its own.

    async with connect_channel(identity.hub_url, context, SystemClock(), info={...}) as channel:
        await channel.send([FactReport(fact.id, encode(fact))])
        for item in await channel.recv():
            ...

Under TLS 1.3 the client finishes its handshake before the server has checked the certificate. So a
refused client believes for a moment that it is connected; only the hub's welcome proves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketError, WebSocketHandler

from angelos.adapters.net.dial import alert_of, dial, hang_up, problem_of
from angelos.adapters.net.frame_loop import ClientConnection, FrameLoop
from angelos.adapters.net.link import Link
from angelos.core.channel import FATAL, Config, End, Machine
from angelos.core.errors import AngelError, Forbidden, InvalidInput, Unauthenticated, Unavailable
from angelos.core.frame_codecs import MSGPACK, FrameCodec
from angelos.core.frames import MAX_FRAME_BYTES, EndCode
from angelos.core.ids import PrincipalId
from angelos.core.ports import Clock

log = logging.getLogger(__name__)
CHANNEL_PATH = "/angelos/channel"
CLOSED = 4000
"""The WebSocket close code of both ends; the reason is an `EndCode`."""
_HUB = PrincipalId("system/hub")
_TICK_S = 1.0
_GOODBYE_S = 1.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 5.0
_DIAL_S = 30.0
_EXPIRED_S = 60.0
_ALERT_EVERY_S = 15.0
_ALERT_EXPIRED = "SSLV3_ALERT_CERTIFICATE_EXPIRED"
"""OpenSSL's name of TLS alert 45 (RFC 8446, section 6.2); only the hub can have sent it."""


def connect_channel(  # noqa: PLR0913 - what a channel is made of
    url: str,
    ssl_context: ssl.SSLContext,
    clock: Clock,
    *,
    info: dict[str, str] | None = None,
    config: Config | None = None,
    patience_s: float | None = 30.0,
    session: str = "",
    codec: FrameCodec = MSGPACK,
) -> ClientChannel:
    """Return a channel to the hub at `url` (`https://host:port`), to be used with `async with`.

    Entering waits for the hub's welcome: it raises `Unauthenticated` when the hub refuses the
    peer, and `Unavailable` when there is no connection within `patience_s`. A connection that is
    lost later is made again, however long that takes: only a refusal by the hub itself, in a
    problem document or a goodbye, ends the channel, and a certificate that it calls expired twice.

    Args:
        url: the hub's address.
        ssl_context: the peer's certificate and the CA to trust.
        clock: time for pings and time-outs.
        info: what the peer reports about itself (role, tier, pid).
        config: windows and times of the protocol.
        patience_s: how long to wait for the first welcome; None for as long as it takes.
        session: the id of this life of the peer; a random one if empty.
        codec: how frames are written.

    Raises:
        InvalidInput: `url` is not an https address.
    """
    if not url.startswith("https://"):
        raise InvalidInput(f"{url!r} is not the https address of a hub.")
    machine = Machine(session or secrets.token_hex(16), config)
    address = "wss" + url.removeprefix("https").rstrip("/") + CHANNEL_PATH
    return ClientChannel(machine, clock, address, ssl_context, info or {}, patience_s, codec)


class SocketWire:
    """A `Wire` on an open WebSocket, client's or handler's."""

    def __init__(
        self,
        socket: ClientConnection | WebSocketHandler,
        protocol: FrameLoop,
        codec: FrameCodec = MSGPACK,
    ) -> None:
        self._socket = socket
        self._protocol = protocol
        self.codec = codec

    def data_of(self, message: str | bytes) -> bytes:
        """Return the bytes of a message; one of the wrong type is no frame, and has none."""
        if isinstance(message, str):
            return message.encode() if self.codec.text else b""
        return b"" if self.codec.text else message

    def write(self, data: bytes) -> None:
        """Send one message; a full buffer closes the connection."""
        try:
            self._protocol.send(data, text=self.codec.text)
        except WebSocketClosedError:
            self.close(EndCode.lost, "The other end is not there any more.")

    def close(self, code: str, reason: str) -> None:
        """Close with `code` as the reason."""
        del reason  # the protocol's own goodbye has it
        self._socket.close(CLOSED, code)


class ClientChannel(Link):
    """A `Link` that owns the task which keeps it connected; see `connect_channel`."""

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        address: str,
        context: ssl.SSLContext,
        info: dict[str, str],
        patience_s: float | None,
        codec: FrameCodec,
    ) -> None:
        super().__init__(_HUB, machine, clock)
        self._codec = codec
        self._address = address
        self._context = context
        self._info = info
        self._patience_s = patience_s
        self._task: asyncio.Task[None] | None = None
        self._error: AngelError | None = None
        self._welcomed = False
        self._expired_since: float | None = None
        self._ask_alert_at = float("-inf")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_connected(), name=f"channel {self._address}")
        try:
            async with asyncio.timeout(self._patience_s):
                await self.up.wait()
        except TimeoutError:
            await self._stop()
            raise self._error or Unavailable(f"{self._address} did not welcome us.") from None
        except BaseException:
            await self._stop()
            raise
        if self.ended is not None:
            await self._stop()
            raise self._error or refusal(self.ended)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, reason: str = "") -> None:
        """Close the connection with a goodbye and end the task."""
        self.end(EndCode.shutdown, reason)
        await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep_connected(self) -> None:
        failures = 0
        while self.ended is None:
            self._welcomed = False
            await self._try_connection()
            if self.ended is not None:
                return
            failures = 0 if self._welcomed else failures + 1
            pause = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 10))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _try_connection(self) -> None:
        """Carry one connection from its dial to its end; finish if the hub refused it."""
        self.last_end = None
        try:
            await self._one_connection()
        except (Unauthenticated, Forbidden) as error:
            self._error = error
            self.finish(End(EndCode.unauthenticated, str(error)))
        except Exception as error:
            # Whatever it is: a forwarder that closes early makes Tornado raise ValueError.
            if not isinstance(error, (OSError, HTTPClientError, WebSocketError, AngelError)):
                log.exception("A connection to %s failed; trying again", self._address)
            self._error = Unavailable(f"{self._address} cannot be reached: {error}")
            if isinstance(error, (ssl.SSLError, ConnectionError, StreamClosedError)):
                await self._check_expired()
        end = self.last_end
        if end is not None and end.by_peer and end.code in FATAL:
            self.finish(end)

    async def _check_expired(self) -> None:
        """Finish if the hub calls the certificate expired, and did so `_EXPIRED_S` ago or before.

        Once proves little: the hub's clock may have jumped, and the certificate may be renewed.
        """
        now = self.clock.monotonic()
        if now < self._ask_alert_at:
            return
        self._ask_alert_at = now + _ALERT_EVERY_S
        if await alert_of(self._address, self._context) != _ALERT_EXPIRED:
            return
        if self._expired_since is None:
            self._expired_since = now
        elif now - self._expired_since >= _EXPIRED_S:
            self._error = Unauthenticated(
                "The hub refuses this certificate: it has expired.",
                hint="Enrol again: ask for a new token and join with it.",
            )
            self.finish(End(EndCode.expired, str(self._error)))

    async def _one_connection(self) -> None:
        wires: list[SocketWire] = []
        closed = asyncio.Event()

        def on_message(data: str | bytes | None) -> None:
            if data is None:
                closed.set()
            if not wires:
                return
            if data is not None:
                self.message(wires[0], wires[0].data_of(data))
            else:  # the socket was closed
                self.lost(wires[0])

        socket = await self._open(on_message)
        wire = SocketWire(socket, socket.protocol, self._codec)
        wires.append(wire)
        try:
            self.connected(wire, lambda now: self.machine.hello(now, self._info))
            while not self.down.is_set():
                try:
                    async with asyncio.timeout(_TICK_S):
                        await self.down.wait()
                except TimeoutError:
                    self.tick()
                if self.machine.phase == "up":
                    self._welcomed, self._expired_since = True, None
        finally:
            self.lost(wire)
            stream = getattr(socket.protocol, "stream", None)
            socket.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await closed.wait()
            if stream is not None:
                stream.close()

    async def _open(self, on_message: Callable[[str | bytes | None], None]) -> ClientConnection:
        """Return an open WebSocket; raise `Unauthenticated` or `Forbidden` when the hub refuses."""
        request = HTTPRequest(
            self._address,
            ssl_options=self._context,
            connect_timeout=10,
            request_timeout=10,
            follow_redirects=False,
        )
        try:
            async with asyncio.timeout(_DIAL_S):
                socket = await dial(
                    request,
                    max_message_size=MAX_FRAME_BYTES,
                    on_message_callback=on_message,
                    subprotocols=[self._codec.subprotocol],
                )
        except HTTPClientError as error:
            raise problem_of(error) from error
        if socket.protocol is None:
            raise StreamClosedError  # in the moment after its handshake
        if socket.selected_subprotocol != self._codec.subprotocol:
            hang_up(socket)
            raise Unavailable(f"The hub does not speak {self._codec.subprotocol}.")
        # Tornado turns it off after the handshake, and Nagle's algorithm would then delay small
        # frames by up to 40 ms.
        socket.protocol.set_nodelay(True)
        return socket


def refusal(end: End) -> AngelError:
    """Return the error for a link that the hub ended for good."""
    text = end.reason or f"The hub ended the channel ({end.code})."
    if end.code in {EndCode.quarantined, EndCode.unauthenticated}:
        return Unauthenticated(text)
    return Unavailable(text, code=end.code)
