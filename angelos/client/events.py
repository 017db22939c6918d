"""Follow the journal over a WebSocket: resumable, bounded, reconnected after the link breaks.

    async for fact in follow(transport, after=START, kinds=("task.finished",)):
        ...

After a reconnection it goes on from the last offset that it yielded, so that nothing is skipped or
doubled when the server was restarted meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection

from angelos.adapters.net.dial import dial, hang_up
from angelos.client.transport import CONNECT_S, Transport, problem_of, unreachable
from angelos.core.errors import AngelError, Forbidden, InvalidInput, Unauthenticated, Unavailable
from angelos.core.facts import Fact, from_json
from angelos.core.frame_codecs import JSON
from angelos.core.ids import Offset

log = logging.getLogger(__name__)
MAX_FACT_BYTES = 16_000_000
PING_S = 20.0
PATIENCE_S = 60.0
"""How long it tries to reach a lost server before it gives up."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 2.0
_EPOCH_HEADER = "Angelos-Journal-Epoch"
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_FINAL = range(4000, 5000)  # close codes of our own: the hub ended it for good


async def follow(
    transport: Transport,
    after: Offset,
    kinds: Collection[str] = (),
    subject: str = "",
    patience_s: float = PATIENCE_S,
) -> AsyncGenerator[Fact, None]:
    """Yield facts as the journal gets them, oldest first, for ever.

    Args:
        transport: The server, and the caller.
        after: The offset of the last fact that is known already.
        kinds: Only facts of these kinds; by default of all.
        subject: Only facts about this subject; by default about any.
        patience_s: How long to try to reach a lost server.

    Raises:
        HistoryLost: `after` is of another journal, or what followed it was trimmed.
        Forbidden: The server refuses the caller, or ended the stream for good.
        Unauthenticated: The token or certificate is void.
        Unavailable: The server cannot be reached for `patience_s` seconds.
    """
    loop = asyncio.get_running_loop()
    pause, lost_at, epoch = _FIRST_PAUSE_S, None, ""
    while True:
        try:
            link = await _connect(transport, after, kinds, subject, epoch)
        except Unavailable:
            lost_at = loop.time() if lost_at is None else lost_at
            if loop.time() - lost_at > patience_s:
                raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_S)
            continue
        epoch = epoch or (link.headers or {}).get(_EPOCH_HEADER, "")
        try:
            async for fact in _facts_of(link):
                if fact.offset:
                    after = fact.offset
                pause, lost_at = _FIRST_PAUSE_S, None
                yield fact
            _raise_if_final(link)
        finally:
            hang_up(link)
        lost_at = loop.time() if lost_at is None else lost_at
        if loop.time() - lost_at > patience_s:
            raise Unavailable(f"{transport.url} keeps closing the stream of events.")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LAST_PAUSE_S)


async def _facts_of(link: WebSocketClientConnection) -> AsyncGenerator[Fact, None]:
    while (message := await link.read_message()) is not None:
        if _is_notice(message):
            log.warning("Facts that do not last were lost: %s", message)
        else:
            yield _decode(message)


async def _connect(
    transport: Transport, after: Offset, kinds: Collection[str], subject: str, epoch: str
) -> WebSocketClientConnection:
    address = transport.address(
        "/events",
        {"after": after, "kinds": ",".join(sorted(kinds)), "subject": subject, "epoch": epoch},
    )
    request = HTTPRequest(
        "ws" + address.removeprefix("http"),
        headers=transport.headers,
        connect_timeout=CONNECT_S,
        request_timeout=CONNECT_S,
        ssl_options=transport.tls,
    )
    try:
        return await dial(
            request,
            transport.socket,
            max_message_size=MAX_FACT_BYTES,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            subprotocols=[JSON.subprotocol],
        )
    except HTTPClientError as error:
        body = error.response.body if error.response is not None else b""
        if error.code in {401, 403}:
            cls = Unauthenticated if error.code == 401 else Forbidden  # noqa: PLR2004
            raise (problem_of(error.code, body, "GET /events") if body else cls()) from error
        if error.code >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
            raise Unavailable(f"{transport.url} answered with {error.code}.") from error
        raise problem_of(error.code, body or b"", "GET /events") from error
    except OSError as error:
        raise unreachable(transport.url, error) from error


def _is_notice(message: str | bytes) -> bool:
    text = message if isinstance(message, bytes) else message.encode()
    return text.startswith(b'{"notice":')


def _decode(message: str | bytes) -> Fact:
    try:
        return from_json(message)
    except InvalidInput as error:
        raise AngelError(f"An event could not be read: {error.detail}") from error


def _raise_if_final(link: WebSocketClientConnection) -> None:
    code, reason = link.close_code or 0, link.close_reason or ""
    if code == _POLICY_VIOLATION or code in _FINAL:
        raise Forbidden(reason or f"The server ended the stream of events ({code}).")
