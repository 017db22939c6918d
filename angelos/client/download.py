"""A long answer piece by piece: neither end ever holds more than a few of them.

    async with aclosing(download(transport, "/audit/export")) as pieces:
        async for piece in pieces:
            file.write(piece)

The next piece is read from the network only when the last one was taken. An answer that breaks off
is an error, never a short answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable

from tornado.httpclient import HTTPRequest, HTTPResponse

from angelos.adapters.net.dial import caller
from angelos.client.transport import CONNECT_S, Transport, problem_of
from angelos.core.errors import DeadlineExceeded

STALL_S = 300.0
"""How long the server may take for the next piece; the first needs a checkpoint to be signed."""
_ANY_SIZE = 2**62
_MAX_PROBLEM_BYTES = 1_000_000


async def download(transport: Transport, path: str) -> AsyncGenerator[bytes, None]:
    """Yield the body of the answer to GET a path below the API, as it comes.

    Args:
        transport: The server, and the caller.
        path: A path below the API, quoted by `segments`.

    Raises:
        AngelError: The one that the server answered with.
        DeadlineExceeded: No piece came for five minutes.
        Unavailable: The answer broke off.
    """
    reading = _Reading()
    request = HTTPRequest(
        transport.address(path),
        headers=transport.headers,
        connect_timeout=CONNECT_S,
        request_timeout=0,  # as long as it goes on
        follow_redirects=False,
        ssl_options=transport.tls,
        streaming_callback=reading.take,
        header_callback=reading.head,
    )
    async with caller(_ANY_SIZE, transport.socket) as http:
        asking = asyncio.create_task(transport.send(request, http), name=f"download {path}")
        asking.add_done_callback(reading.over)
        try:
            problem = b""
            while (piece := await reading.next()) is not None:
                if reading.good:
                    yield piece
                elif len(problem) < _MAX_PROBLEM_BYTES:
                    problem += piece
            status = (await asking).code
            if not reading.good:
                raise problem_of(status, problem, f"GET {path}")
        finally:
            reading.stop()
            asking.cancel()
            await asyncio.wait([asking])


class _Reading:
    """Hands each piece over from the network's reader to the iterator."""

    def __init__(self) -> None:
        self.good = False
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._taken: asyncio.Future[None] | None = None
        self._over = self._stopped = False

    def head(self, line: str) -> None:
        if line.startswith("HTTP/"):
            self.good = line.split(" ", 2)[1].startswith("2")

    def take(self, piece: bytes) -> Awaitable[None] | None:
        """Keep a piece; Tornado (from 6.6 on) awaits the answer before it reads the next one."""
        if self._stopped:
            return None
        self._pieces.append(piece)
        self._news.set()
        self._taken = asyncio.get_running_loop().create_future()
        return self._taken

    def over(self, _: asyncio.Task[HTTPResponse]) -> None:
        self._over = True
        self._news.set()

    async def next(self) -> bytes | None:
        while not self._pieces:
            if self._over:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._news.wait()
            except TimeoutError as error:
                raise DeadlineExceeded(f"Nothing more came within {STALL_S:g} s.") from error
        piece = self._pieces.popleft()
        self._go_on()
        return piece

    def stop(self) -> None:
        self._stopped = True
        self._pieces.clear()
        self._go_on()

    def _go_on(self) -> None:
        if not self._pieces and self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
