"""`/api/collaboration/room/...` for managed documents, in front of Jupyter's own handler.

Jupyter's handler joins a room that exists already, so this one only has to open a `ManagedRoom`
first. It also closes what Jupyter leaves open: only a signed-in person who may read gets a room,
pages of other origins are refused, and the edits of a person without `documents:edit` are dropped
with a notice (`read_only.py`). A room is removed only when it is empty (`occupancy.py`), and a
client that does not read is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server_ydoc.handlers import YDocWebSocketHandler
from jupyter_server_ydoc.rooms import DocumentRoom
from jupyter_server_ydoc.utils import (
    LogLevel,
    MessageType,
    decode_file_path,
    room_id_from_encoded_path,
)
from tornado.iostream import IOStream
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError

from angelos.angelgit.documents.crdt import EMPTY
from angelos.core.errors import AngelError, Unavailable
from angelos.core.permissions import Permission
from jupyter_ext.auth.authorizer import refuse_private
from jupyter_ext.auth.identity import principal_of
from jupyter_ext.rooms.messages import (
    NO_MESSAGE,
    changes,
    is_message,
    message_body,
    save_request,
)
from jupyter_ext.rooms.occupancy import Occupancy
from jupyter_ext.rooms.read_only import (
    CLOSED,
    MOST_S,
    PAUSE_S,
    READ_ONLY,
    PageNotices,
    ReadOnlyClient,
)
from jupyter_ext.rooms.room import ManagedRoom
from jupyter_ext.rooms.ystore import AngelYStore

if TYPE_CHECKING:
    from jupyter_server_ydoc.app import YDocExtension

    from jupyter_ext.binding import Binding

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_READ_ONLY_BYTES = 4 * 1024 * 1024
"""The largest message of a read-only client, and the most that it may send of edits."""
MAX_BUFFERED_BYTES = 2 * MAX_MESSAGE_BYTES
"""How much may wait for one client; beyond it the client is disconnected, and comes back."""
GLOBAL_AWARENESS = "JupyterLab:globalAwareness"
_ROOM_PARTS = 3


def collaboration(settings: dict[str, Any]) -> YDocExtension:
    """Return Jupyter's collaboration extension; raise `Unavailable` when it is not installed."""
    apps = settings["serverapp"].extension_manager.extension_apps
    extension = next(iter(apps.get("jupyter_server_ydoc", ())), None)
    if extension is None or not hasattr(extension, "ywebsocket_server"):
        raise Unavailable(
            "Jupyter's collaboration extension is not running.",
            hint="Enable it: jupyter server extension enable jupyter_server_ydoc",
        )
    return extension


def canonical_room(path: str, file_id: str) -> str:
    """Return the one room of a document: a notebook as JSON, all else as text.

    >>> canonical_room("a.ipynb", "1")
    'json:notebook:1'
    """
    kind = "json:notebook" if path.endswith(".ipynb") else "text:file"
    return f"{kind}:{file_id}"


class RoomHandler(YDocWebSocketHandler):
    """Opens the rooms of managed documents and guards all rooms."""

    _may_edit = False
    _read_only: ReadOnlyClient | None = None
    _goodbye: asyncio.TimerHandle | None = None
    _refused_at = 0.0
    _sent_bytes = 0
    _hung_up = False

    def initialize(self) -> None:  # type: ignore[override]
        """Start with what Jupyter passes to its own handler."""
        extension = collaboration(self.settings)
        super().initialize(
            ywebsocket_server=extension.ywebsocket_server,
            file_loaders=extension.file_loaders,
            ystore_class=extension.ywebsocket_server.ystore_class,
            room_locks=extension._room_locks,  # noqa: SLF001 - with other locks there would be two rooms
            document_cleanup_delay=extension.document_cleanup_delay,
            document_save_delay=extension.document_save_delay,
            document_load_progressively=extension.document_load_progressively,
            notebook_output_delay_threshold_mb=extension.notebook_output_delay_threshold_mb,
        )

    @property
    def max_message_size(self) -> int:  # type: ignore[override]
        """Return the largest message that is read, in bytes."""
        return MAX_MESSAGE_BYTES if self._may_edit else MAX_READ_ONLY_BYTES

    @property
    def occupancy(self) -> Occupancy:
        """Which clients are in which room."""
        return self.settings.setdefault("angelos_occupancy", Occupancy())

    def check_origin(self, origin: str) -> bool:  # type: ignore[override]
        """Refuse pages of other origins, as Jupyter's other handlers do."""
        return JupyterHandler.check_origin(self, origin)

    async def prepare(self) -> None:
        """Sign in, then open the room: a stranger causes no work."""
        await JupyterHandler.prepare(self, _redirect_to_login=False)
        user = self.current_user
        if user is None or not self.check_origin(self.get_origin() or ""):
            raise HTTPError(403)
        if not await ensure_async(self.authorizer.is_authorized(self, user, "read", "contents")):
            raise HTTPError(403)
        self._may_edit = bool(
            await ensure_async(self.authorizer.is_authorized(self, user, "write", "room"))
        )
        room_id = room_id_from_encoded_path(self.request.path)
        if room_id.count(":") >= _ROOM_PARTS - 1:
            await self._open_managed(room_id)
        elif room_id != GLOBAL_AWARENESS and not self._websocket_server.room_exists(room_id):
            raise HTTPError(404, "There is no such room.")  # Jupyter would create any name
        await super().prepare()
        self._enter(room_id)

    async def open(self, room_id: str) -> None:  # type: ignore[override]
        """Join the room; edits are sent without delay."""
        self.set_nodelay(True)
        if (stream := self._stream()) is not None:
            stream.max_write_buffer_size = MAX_BUFFERED_BYTES
        await super().open(room_id)

    async def send(self, message: bytes) -> None:
        """Send a message; the connection of a client that does not read ends (`frame_loop`).

        One that missed a message would diverge.
        """
        with contextlib.suppress(WebSocketClosedError):
            self.write_message(message, binary=True)

    def _stream(self) -> IOStream | None:
        return getattr(self.ws_connection, "stream", None)

    async def on_message(self, message: bytes | str) -> None:
        """Take a message; drop one that changes the document if its sender may not edit."""
        if isinstance(message, str) or not is_message(message):
            self.close(NO_MESSAGE, "This is no message of the room's protocol.")
            return
        if not self._may_edit and changes(message):
            await self._refuse(message)
            return
        room = getattr(self, "room", None)
        if isinstance(room, ManagedRoom) and message[0] == MessageType.SYNC and changes(message):
            if (update := message_body(message)) != EMPTY:
                await room.receive(update, principal_of(self.current_user).id, self)
            return
        await super().on_message(message)

    async def _refuse(self, message: bytes) -> None:
        """Drop the edit of a person who may only read; show a notice if it changes the text."""
        room = getattr(self, "room", None)
        if not isinstance(room, DocumentRoom):
            return
        if message[0] == MessageType.RAW:
            if (number := save_request(message)) is not None:
                # Nothing of the document is lost: it is saved for those who may edit it.
                answer = {"type": "save", "responseTo": number, "status": "success"}
                await self.send(self._encode_json_message(answer))
            return
        self._sent_bytes += len(message)
        if self._sent_bytes > MAX_READ_ONLY_BYTES:
            self.close(CLOSED, READ_ONLY)
            return
        if self._read_only is None:
            self._read_only = ReadOnlyClient(self._room_id)
        if not self._read_only.changes(room.ydoc, message_body(message)):
            return
        notices: PageNotices = self.settings.setdefault("angelos_notices", PageNotices())
        loop = asyncio.get_running_loop()
        if self._goodbye is not None:
            self._goodbye.cancel()
        elif notices.first(self._room_id, self._read_only.pages(room.ydoc)):
            self._refused_at = loop.time()
        else:
            return
        when = min(loop.time() + PAUSE_S, self._refused_at + MOST_S)
        self._goodbye = loop.call_at(when, self.close, CLOSED, READ_ONLY)

    def on_close(self) -> None:
        """Leave the room."""
        self._hung_up = True
        if self._goodbye is not None:
            self._goodbye.cancel()
        if self.room is not None:  # None for a client that hung up before it had entered
            super().on_close()
        self._leave()

    def on_finish(self) -> None:
        """Leave the room if the WebSocket was not opened."""
        super().on_finish()
        if self.get_status() != HTTPStatus.SWITCHING_PROTOCOLS:
            self._leave()

    # -- occupancy ---------------------------------------------------------------------------

    def _enter(self, room_id: str) -> None:
        """Enter the room before its lock is released, so that it cannot be removed in between."""
        self._room_id, self.room = room_id, self._websocket_server.rooms[room_id]
        self.occupancy.enter(room_id, self)
        if self._hung_up:
            self._leave()
            raise HTTPError(400, "The client hung up.")

    def _leave(self) -> None:
        """Leave the room; some time after the last client has, it is removed."""
        self.occupancy.leave(self._room_id, self)
        room = self.room
        if not isinstance(room, DocumentRoom):
            return
        cleaner = room.cleaner
        if self.occupancy.occupied(self._room_id):
            if cleaner is not None:
                cleaner.cancel()
        elif cleaner is None or cleaner.done() or cleaner.cancelling():
            room.cleaner = asyncio.create_task(self._clean_room())

    async def _clean_room(self) -> None:
        """Remove the room after a while, unless a client is in it by then.

        Jupyter's own cleaner does not look again after it has waited, and drops the lock on which
        a client may be waiting: that gives two rooms of one document, or edits that nobody stores.
        """
        room, room_id = self.room, self._room_id
        if self._cleanup_delay is None or not isinstance(room, DocumentRoom):
            return
        await asyncio.sleep(self._cleanup_delay)
        if isinstance(room, ManagedRoom):
            await room.flush()  # however long the store is away: only the room has these edits
        async with self._room_lock(room_id):
            if self.occupancy.occupied(room_id, but=self):
                return
            if self._websocket_server.rooms.get(room_id) is not room:
                return
            self.log.info("Deleting Y document from memory: %s", room_id)
            await self._websocket_server.delete_room(room=room)
            self._emit(LogLevel.INFO, "clean", "Room deleted.")
            file_id = decode_file_path(room_id)[2]
            if self._file_loaders[file_id].number_of_subscriptions == 0:
                await self._file_loaders.remove(file_id)
                self._emit(LogLevel.INFO, "clean", "Loader deleted.")

    async def _open_managed(self, room_id: str) -> None:
        """Open the room of a managed document unless it is open."""
        file_format, file_type, file_id = decode_file_path(room_id)
        path = self._path_of(file_id)
        binding: Binding = self.settings["angelos_binding"]
        try:
            document = await binding.locate(path)
        except AngelError as error:
            raise HTTPError(error.status, str(error)) from error
        if document is None:
            # Jupyter would create a room first, and the failure of it ends all other rooms.
            if not await ensure_async(self.contents_manager.file_exists(path)):
                raise HTTPError(404, f"There is no file {path}.")
            return
        if room_id != canonical_room(path, file_id):
            raise HTTPError(
                409,
                f"{path} is a managed document and has one form only; "
                f"it cannot be opened as {file_format} {file_type}.",
            )
        if not self._websocket_server.started.is_set():
            self.create_task(self._websocket_server.start())
            await self._websocket_server.started.wait()
        async with self._room_lock(room_id):
            if self._websocket_server.room_exists(room_id):
                room = await self._websocket_server.get_room(room_id)
                if not isinstance(room, ManagedRoom):
                    raise HTTPError(409, f"{path} was opened past AngelGit; restart the server.")
                if not room.refused and room.store.document == document.document:
                    self._enter(room_id)
                    return
                await self._websocket_server.delete_room(room=room)
            room = ManagedRoom(
                room_id,
                self._file_loaders[file_id],
                self.event_logger,
                AngelYStore(document, binding.require().repository),
                binding.live,
                self.log,
                exception_handler=self._log_error,
                save_delay=self._document_save_delay,
            )
            await room.launch()
            self._websocket_server.add_room(room_id, room)
            self._enter(room_id)

    def _path_of(self, file_id: str) -> str:
        """Return the path of a file; raise 404 if there is none that this person may see."""
        path = self._file_id_manager.get_path(file_id)
        if path is None:
            raise HTTPError(404, f"There is no file with the id {file_id!r}.")
        if not principal_of(self.current_user).may(Permission.people_manage):
            refuse_private(self, path)
        return path

    def _log_error(self, exception: Exception, log: Any) -> bool:
        log.error("Room %s: %s", self._room_id, exception, exc_info=exception)
        return True
