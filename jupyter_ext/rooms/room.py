"""The collaboration room of a managed document: AngelGit's log is authoritative, the file a copy.

It differs from Jupyter's own `DocumentRoom` wherever that could lose or double text:

    Jupyter's room                           this one
    ---------------------------------------  ---------------------------------------------------
    belongs to a path                        belongs to a document: it is closed when that is
                                             deleted, and does not become its successor's
    file wins over the store when it opens   the log wins; the file is written anew
    file changed on disk -> document is      the change is an edit like any other, taken in by
      overwritten with it                      AngelGit, which alone writes the file
    applies an edit, then stores it          stores, then applies: a refused edit reaches nobody,
                                             and only its author has to reload
    writes to the store run side by side     one after the other, in order: no gaps in the log
    sends to the rest, then stores           stores, then sends to everybody, author included:
                                             **an update that comes back is durable**
    shares a task group with all rooms       runs in a task of its own
    a full buffer drops updates silently     its clients wait

    client --update--> pending --ingest--> log --> ydoc, broadcast to all clients --print--> file
    AngelGit --take--> ydoc --> pending ---------> broadcast to all clients
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from logging import Logger
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import anyio
from jupyter_server_ydoc.rooms import DocumentRoom
from jupyter_server_ydoc.utils import LogLevel
from pycrdt import Channel, TransactionEvent, create_update_message, merge_updates

from angelos.angelgit.documents.crdt import guarded
from angelos.core.errors import AngelError, InvalidInput, NotFound, Refused, TooLarge
from angelos.core.ids import PrincipalId
from jupyter_ext.rooms.read_only import CLOSED, NOT_KEPT, goodbye
from jupyter_ext.rooms.ystore import ROOM

if TYPE_CHECKING:
    from jupyter_events import EventLogger
    from jupyter_server_ydoc.loaders import FileLoader

    from jupyter_ext.live import JupyterLiveDocuments
    from jupyter_ext.rooms.ystore import AngelYStore

MAX_PENDING = 4096
"""How many updates may wait to be stored; beyond it the clients wait."""
RETRY_S = (0.1, 0.5, 2.0, 5.0)
FINAL = (InvalidInput, NotFound, Refused, TooLarge)
"""Errors that stay the same however often one tries."""
FLUSH_S = 5.0
"""How long a room that is being stopped tries to store what it holds, in seconds."""
DELETED = "This file was deleted. Copy what you need, then reload."


class PendingUpdate(NamedTuple):
    """An update on its way through the room."""

    update: bytes
    writer: PrincipalId | None
    """Who made it; None if it is in the log already."""
    client: Channel | None = None
    """The client that sent it; None for the room's own, which the document holds already."""


class ManagedRoom(DocumentRoom):
    """A room that applies and sends an update only once it is in AngelGit's log.

    Args:
        room_id: `format:type:file_id`.
        file: the document's file.
        logger: Jupyter's log of events.
        store: the document's updates in AngelGit.
        live: where the room is registered for AngelGit's own updates.
        log: the server's log.
        options: those of `DocumentRoom`.
    """

    def __init__(
        self,
        room_id: str,
        file: FileLoader,
        logger: EventLogger,
        store: AngelYStore,
        live: JupyterLiveDocuments,
        log: Logger | None = None,
        **options: Any,
    ) -> None:
        self.store = store
        self.refused = ""
        """Why the room was closed; empty while it is open."""
        self._name = store.path
        self._live = live
        self._early: list[bytes] = []
        self._applying = False
        self._taking = False
        self._pending: deque[PendingUpdate] = deque()
        """Updates in order."""
        self._dismissed: WeakSet[Channel] = WeakSet()
        """Clients that have to reload, because an edit of theirs was refused."""
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._storing = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        file_format, file_type, _ = room_id.split(":", 2)
        super().__init__(room_id, file_format, file_type, file, logger, store, log, **options)

    async def launch(self) -> None:
        """Run in a task of its own; return once it has started.

        Jupyter runs its rooms in one task group: a file that cannot be opened ends them all, and
        they stay in its list, dead.
        """
        self._running = asyncio.create_task(self.start(), name=f"room {self._name}")
        await self.started.wait()

    async def initialize(self) -> None:
        """Load the document from the log; never from the file."""
        if self.ready:
            return
        async with self._update_lock:
            self._live.register(self.store.document, self)
            try:
                stored = [update async for update, _, _ in self.store.read()]
            except BaseException:
                self._live.unregister(self.store.document, self)
                raise
            # The room's own first update (its path, set by the constructor) is in no log yet. A
            # CRDT applies a client's updates in order only, so without it none of the later ones
            # of this client would take effect when the log is replayed.
            own = self.ydoc.get_update()
            for update in [*stored, *self._early]:
                self.ydoc.apply_update(update)
            self._early.clear()
            self._subscription = self.ydoc.observe(self._on_update)
            self._queue(PendingUpdate(own, ROOM))
            self.ready = True
        self._emit(LogLevel.INFO, "initialize", "Room initialized")
        self._on_document_change("source", None)  # the file may be older than the log

    def take(self, update: bytes) -> None:
        """Apply an update of AngelGit's, which is in the log already."""
        if not self.ready:
            self._early.append(update)
            return
        self._taking = True
        try:
            self.ydoc.apply_update(update)
        finally:
            self._taking = False

    async def receive(self, update: bytes, writer: PrincipalId, client: Channel) -> None:
        """Take an update that a client sends; wait while the room has too many.

        Args:
            update: a yjs update (version 1); the log checks it.
            writer: who made it.
            client: disconnected if the update cannot be kept.
        """
        while len(self._pending) >= MAX_PENDING:
            self._drained.clear()
            await self._drained.wait()
        if client not in self._dismissed and not self.refused:
            self._queue(PendingUpdate(update, writer, client))

    def dismiss(self, reason: str) -> None:
        """Close the room for everybody: what is typed from now on could not be kept."""
        self.refused = reason
        self._live.unregister(self.store.document, self)
        self.log.info("%s: the room is closed: %s", self._name, reason)
        for client in tuple(self.clients):
            _disconnect(client, goodbye(reason))

    async def flush(self) -> None:
        """Return once every edit so far is stored and sent."""
        while self._pending:
            await self._step()

    async def stop(self) -> None:
        """Store what the room still holds, then stop."""
        with anyio.move_on_after(FLUSH_S, shield=True):
            await self.flush()
        if self._pending:
            self.log.error(
                "%s: stopped while its last edits cannot be stored. A page that is still open has "
                "them and brings them back when it connects again.",
                self._name,
            )
        self._live.unregister(self.store.document, self)
        await super().stop()
        if self._running is not None:
            await asyncio.wait([self._running])

    # -- updates ---------------------------------------------------------------------------

    async def _watch_ready(self) -> None:
        """Do nothing: `initialize` subscribes in the same step in which it loads."""
        self.ydoc_observed.set()

    def _on_update(self, event: TransactionEvent) -> None:
        if not self._applying:
            self._queue(PendingUpdate(bytes(event.update), None if self._taking else ROOM))

    def _queue(self, pending: PendingUpdate) -> None:
        self._pending.append(pending)
        self._wake.set()

    async def _broadcast_updates(self) -> None:
        # Jupyter's own buffer is not used: it drops what it cannot hold.
        self._update_send_stream.close()
        self._update_receive_stream.close()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self.flush()
        finally:
            # Cancelled or not, edits are stored first.
            with anyio.move_on_after(FLUSH_S, shield=True):
                await self.flush()

    async def _step(self) -> None:
        """Store one batch of one writer and send it to everybody; on failure it stays queued."""
        async with self._storing:
            if not self._pending:
                return
            _, writer, client = self._pending[0]
            batch = [
                entry.update
                for entry in itertools.takewhile(
                    lambda entry: (entry.writer, entry.client) == (writer, client), self._pending
                )
            ]
            extra = b""
            try:
                update = _merged(batch)
                if writer is not None:
                    extra = await self._store(update, writer)
            except AngelError as error:
                self._refuse(error, client, len(batch))
            else:
                self._done(len(batch))
                if client is not None:
                    self._apply(update)
                self._broadcast(update)
                if extra:
                    self._apply(extra)
                    self._broadcast(extra)

    def _done(self, count: int) -> None:
        for _ in range(count):
            self._pending.popleft()
        if len(self._pending) < MAX_PENDING:
            self._drained.set()

    def _apply(self, update: bytes) -> None:
        """Apply an update that the log holds, and which is about to be sent."""
        self._applying = True
        try:
            self.ydoc.apply_update(update)
        finally:
            self._applying = False

    async def _store(self, update: bytes, writer: PrincipalId) -> bytes:
        """Store an update, however long that takes; raise an error that retrying cannot mend."""
        for attempt in itertools.count():
            try:
                return await self.store.write_as(update, writer)
            except FINAL:
                raise
            except Exception as error:  # noqa: BLE001 - the drivers of the stores raise many kinds
                wait = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                self.log.warning("%s: not stored, again in %s s: %s", self._name, wait, error)
                await asyncio.sleep(wait)
        raise AssertionError  # `count` does not end

    def _refuse(self, error: AngelError, client: Channel | None, count: int) -> None:
        """Drop updates that cannot be kept: their author has to reload, the others type on."""
        self.log.error("%s: an edit was refused: %s", self._name, error)
        self._done(count)
        if client is None or isinstance(error, NotFound):
            self._pending.clear()
            self._drained.set()
            deleted = isinstance(error, NotFound)
            self.dismiss(DELETED if deleted else "An edit cannot be kept. Reload to continue.")
            return
        # What this client sent since builds on what was refused.
        self._dismissed.add(client)
        self._pending = deque(entry for entry in self._pending if entry.client is not client)
        _disconnect(client, NOT_KEPT)

    def _broadcast(self, update: bytes) -> None:
        message = create_update_message(update)
        for client in tuple(self.clients):
            if self._task_group is not None:
                self._task_group.start_soon(client.send, message)

    # -- the file ---------------------------------------------------------------------------

    async def _on_outofband_change(self) -> None:
        """Have AngelGit take in what another program has written into the file."""
        self._saving_document = asyncio.create_task(
            self._maybe_save_document(self._saving_document)
        )

    async def _maybe_save_document(
        self,
        saving_document: asyncio.Task[None] | None,
        save_now: bool = False,  # noqa: FBT001, FBT002 - Jupyter's signature
    ) -> None:
        """Have AngelGit write the file, after storing edits and taking in what is on disk."""
        if self._save_delay is None and not save_now:
            return
        if saving_document is not None and not saving_document.done():
            saving_document.cancel()
        if not save_now and self._save_delay is not None:
            await asyncio.sleep(self._save_delay)
        try:
            await self.flush()
            saved = await self.store.print()
            if saved:
                async with self._update_lock:
                    self._document.dirty = False
                    self._document.hash = saved
            self._emit(LogLevel.INFO, "save", "Content saved.")
        except Exception as error:
            self.log.exception("Cannot write %s", self._file.path)
            self._emit(LogLevel.ERROR, None, f"Error saving file: {error!r}")
            if save_now:  # the client that asked gets the error
                raise
            # Otherwise nobody awaits this task; the log has the text in any case.


def _disconnect(client: Channel, reason: str) -> None:
    client.close(CLOSED, reason)  # pyright: ignore[reportAttributeAccessIssue] - Tornado's


def _merged(updates: list[bytes]) -> bytes:
    if len(updates) == 1:
        return updates[0]
    with guarded("the document"):
        return merge_updates(*updates)
