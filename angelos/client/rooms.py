r"""Live documents: what a person at the keyboard does, without a browser.

It speaks what JupyterLab speaks: a session (HTTP PUT), then the y-protocol over the room's
WebSocket. It needs pycrdt, which `angelos[server]` installs, and nothing of the server's code.

    async with RoomClient("http://127.0.0.1:8888", token, "study/notes.md") as room:
        await room.insert(0, "# Notes\n")   # returns when the server has it durably
        await room.wait_for(lambda text: "agent" in text)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

import pycrdt
from pycrdt import Decoder, Doc, Text, YMessageType, YSyncMessageType
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from angelos.adapters.net.dial import caller, dial
from angelos.core.errors import NotFound, Unavailable

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
GOODBYE_S = 5.0
HTTP_MISSING = 404
CLOSED_MISSING = 4404
"""Jupyter's close code for a file that is not there."""


class RoomClient:
    """One open text document; use it with `async with`."""

    def __init__(self, server_url: str, token: str, path: str, timeout: float = 30.0) -> None:
        """Name the document; nothing is sent yet.

        Args:
            server_url: The server's address.
            token: A person's token.
            path: The document's path as JupyterLab shows it, such as `study/notes.md`.
            timeout: Seconds that bound every wait for the server.
        """
        self._url = server_url.rstrip("/")
        self._headers = {"Authorization": f"token {token}"}
        self._path = path
        self._timeout = timeout
        self._doc: Doc[Text] = Doc()
        self._source = self._doc.get("source", type=Text)
        self._changed = asyncio.Condition()
        self._server: Doc[Text] = Doc()
        """Only what came from the server: what it sent back of our own edits, it has stored."""
        self._synced = False
        self._ended = ""
        self._socket: WebSocketClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def text(self) -> str:
        """The document as this client sees it now."""
        return str(self._source)

    async def __aenter__(self) -> Self:
        """Open the room and return once its text is here."""
        try:
            async with asyncio.timeout(self._timeout):
                self._socket = await self._connect(await self._session())
            self._reader = asyncio.create_task(self._read(self._socket), name=f"room {self._path}")
            await self._socket.write_message(pycrdt.create_sync_message(self._doc), binary=True)
            await self._wait(lambda: self._synced)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the room."""
        await self._close()

    async def insert(self, index: int, text: str) -> None:
        """Type text; return when the server has it durably.

        The server sends an update of a managed document to everybody, its author included, only
        once it is in the log. For any other file it sends it at once.

        Args:
            index: The character before which the text is inserted.
            text: What is typed.

        Raises:
            Unavailable: The room is closed.
            TimeoutError: The server did not answer in time.
        """
        position = len(self.text[:index].encode())  # pycrdt counts bytes of UTF-8
        updates: list[bytes] = []
        subscription = self._doc.observe(lambda event: updates.append(bytes(event.update)))
        self._source.insert(position, text)
        self._doc.unobserve(subscription)
        if self._socket is None:
            raise Unavailable(f"The room of {self._path} is not open.")
        clock = clock_of(self._doc.get_state(), self._doc.client_id)
        try:
            for update in updates:
                await self._socket.write_message(pycrdt.create_update_message(update), binary=True)
        except WebSocketClosedError as error:
            raise Unavailable(f"The room of {self._path} was closed.") from error
        await self._wait(lambda: clock_of(self._server.get_state(), self._doc.client_id) >= clock)

    async def wait_for(self, predicate: Callable[[str], bool]) -> str:
        """Wait until the document's text is as expected.

        Args:
            predicate: Called with the text after each change.

        Returns:
            The text for which it holds.

        Raises:
            Unavailable: The room is closed.
            TimeoutError: It did not hold in time.
        """
        await self._wait(lambda: predicate(self.text))
        return self.text

    # -- the wire ---------------------------------------------------------------------------

    async def _session(self) -> dict[str, str]:
        request = HTTPRequest(
            f"{self._url}/api/collaboration/session/{quote(self._path)}",
            method="PUT",
            headers=self._headers,
            body=json.dumps({"format": "text", "type": "file"}),
        )
        async with caller(MAX_MESSAGE_BYTES) as http:
            answer = await http.fetch(request, raise_error=False)
        if answer.code == HTTP_MISSING:
            raise NotFound(f"The server has no file {self._path}.")
        if answer.error is not None:
            raise Unavailable(f"No room for {self._path}: {answer.code} {answer.reason}.")
        return json.loads(answer.body)

    async def _connect(self, session: dict[str, str]) -> WebSocketClientConnection:
        room = f"{session['format']}:{session['type']}:{session['fileId']}"
        query = urlencode({"sessionId": session["sessionId"]})
        address = self._url.replace("http", "ws", 1)
        request = HTTPRequest(
            f"{address}/api/collaboration/room/{room}?{query}", headers=self._headers
        )
        try:
            return await dial(request, max_message_size=MAX_MESSAGE_BYTES)
        except HTTPClientError as error:
            if error.code == HTTP_MISSING:
                raise NotFound(f"The server has no file {self._path}.") from error
            raise Unavailable(f"No room for {self._path}: {error}.") from error

    async def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._reader is not None:  # it ends when the server has said goodbye too
            _, late = await asyncio.wait([self._reader], timeout=GOODBYE_S)
            for reader in late:
                reader.cancel()
                await asyncio.wait([reader])

    async def _read(self, socket: WebSocketClientConnection) -> None:
        while (message := await socket.read_message()) is not None:
            if isinstance(message, bytes) and message[:1] == bytes([YMessageType.SYNC]):
                await self._on_sync(socket, message[1:])
        async with self._changed:
            self._ended = socket.close_reason or f"closed ({socket.close_code})"
            self._changed.notify_all()

    async def _on_sync(self, socket: WebSocketClientConnection, message: bytes) -> None:
        reply = pycrdt.handle_sync_message(message, self._doc)
        if reply is not None:
            await socket.write_message(reply, binary=True)
        async with self._changed:
            self._synced |= message[0] == YSyncMessageType.SYNC_STEP2
            if message[0] != YSyncMessageType.SYNC_STEP1:
                self._server.apply_update(pycrdt.read_message(message[1:]))
            self._changed.notify_all()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(self._timeout), self._changed:
            await self._changed.wait_for(lambda: bool(self._ended) or condition())
        if condition():
            return
        if self._socket is not None and self._socket.close_code == CLOSED_MISSING:
            raise NotFound(f"The server has no file {self._path}.")
        raise Unavailable(f"The room of {self._path} was closed: {self._ended}.")


def clock_of(state: bytes, client_id: int) -> int:
    """Return how many of a client's operations a state vector covers."""
    decoder = Decoder(state)
    clocks = {}
    for _ in range(decoder.read_var_uint()):
        client = decoder.read_var_uint()
        clocks[client] = decoder.read_var_uint()
    return clocks.get(client_id, 0)
