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
        connecting.add_done_callback(_hang_up)
        raise


def _hang_up(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
