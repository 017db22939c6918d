"""Opening a WebSocket so that it never stays open with nobody to close it.

link = await dial(HTTPRequest("wss://127.0.0.1:8443/x", ssl_options=context), ping_interval=20)
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect


async def dial(request: HTTPRequest, **options: Any) -> WebSocketClientConnection:
    """Return an open WebSocket; `options` and errors are those of `websocket_connect`.

    Tornado goes on connecting when its caller is cancelled: what then comes is closed.
    """
    connecting = asyncio.ensure_future(websocket_connect(request, **options))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_not_wanted)
        raise


def hang_up(link: WebSocketClientConnection) -> None:
    """Say goodbye and close the connection now; Tornado would wait for the other's goodbye."""
    stream = getattr(link.protocol, "stream", None)
    link.close()
    if stream is not None:
        stream.close()


def _not_wanted(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        hang_up(connecting.result())
