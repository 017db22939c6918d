"""The collaboration room of a managed document: AngelGit's log is authoritative, the file a copy.

It differs from Jupyter's own `DocumentRoom` wherever that could lose or double text:

    Jupyter's room                           this one
    ---------------------------------------  ---------------------------------------------------
    file wins over the store when it opens   the log wins; the file is written anew
    file changed on disk -> document is      the change is an edit like any other, taken in by
      overwritten with it                      AngelGit, which alone writes the file
    writes to the store run side by side     one after the other, in order: no gaps in the log
    sends to the rest, then stores           stores, then sends to everybody, author included:
                                             **an update that comes back is durable**
    shares a task group with all rooms       runs in a task of its own
    a full buffer drops updates silently     falls back to the document's whole state

    client --update--> ydoc --observe--> pending --ingest--> log --broadcast--> all clients
                                                               --print--> file
    AngelGit --take--> ydoc --observe--> pending -------------------broadcast--> all clients
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from logging import Logger
from typing import TYPE_CHECKING, Any

import anyio
from jupyter_server_ydoc.rooms import DocumentRoom
from jupyter_server_ydoc.utils import LogLevel, MessageType
from pycrdt import Channel, TransactionEvent, create_update_message, merge_updates

from angelos.core.errors import AngelError, InvalidInput, NotFound, Refused, TooLarge
from jupyter_ext.rooms.read_only import CLOSED, NOT_KEPT

if TYPE_CHECKING:
    from jupyter_events import EventLogger
    from jupyter_server_ydoc.loaders import FileLoader

    from jupyter_ext.live import JupyterLiveDocuments
    from jupyter_ext.rooms.ystore import AngelYStore

MAX_PENDING = 4096
"""How many updates may wait to be stored; beyond it the whole state is stored instead."""
RETRY_S = (0.1, 0.5, 2.0, 5.0)
FINAL = (InvalidInput, NotFound, Refused, TooLarge)
"""Errors that stay the same however often one tries."""
FLUSH_S = 5.0
"""How long a room that is being stopped tries to store what it holds, in seconds."""


class ManagedRoom(DocumentRoom):
    """A room that sends an update to clients only once it is in AngelGit's log.

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
        self._name = f"{store.repo}/{store.path}"
        self._live = live
        self._early: list[bytes] = []
        self._taking = False
        self._pending: deque[tuple[bytes, bool]] = deque()
        """Updates in order; True for one that the log does not have yet."""
        self._overflowed = False
        self._wake = asyncio.Event()
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
            self._live.register(self.store.repo, self.store.path, self)
            try:
                stored = [update async for update, _, _ in self.store.read()]
            except BaseException:
                self._live.unregister(self.store.repo, self.store.path, self)
                raise
            # The room's own first update (its path, set by the constructor) is in no log yet. A
            # CRDT applies a client's updates in order only, so without it none of the later ones
            # of this client would take effect when the log is replayed.
            own = self.ydoc.get_update()
            for update in [*stored, *self._early]:
                self.ydoc.apply_update(update)
            self._early.clear()
            self._subscription = self.ydoc.observe(self._on_update)
            self._queue(own, fresh=True)
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

    async def flush(self) -> None:
        """Return once every edit so far is stored and sent."""
        while self._pending or self._overflowed:
            await self._step()

    async def stop(self) -> None:
        """Store what the room still holds, then stop."""
        with anyio.move_on_after(FLUSH_S, shield=True):
            await self.flush()
        if self._pending or self._overflowed:
            self.log.error(
                "%s: stopped while its last edits cannot be stored. A page that is still open has "
                "them and brings them back when it connects again.",
                self._name,
            )
        self._live.unregister(self.store.repo, self.store.path, self)
        await super().stop()
        if self._running is not None:
            await asyncio.wait([self._running])

    # -- updates ---------------------------------------------------------------------------

    async def _watch_ready(self) -> None:
        """Do nothing: `initialize` subscribes in the same step in which it loads."""
        self.ydoc_observed.set()

    def _on_update(self, event: TransactionEvent) -> None:
        self._queue(bytes(event.update), fresh=not self._taking)

    def _queue(self, update: bytes, *, fresh: bool) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._overflowed = True
        else:
            self._pending.append((update, fresh))
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
        """Store one batch and send it to everybody; on failure it stays in the queue."""
        async with self._storing:
            count = len(self._pending)
            batch = list(self._pending)
            if self._overflowed:
                batch = [(self.ydoc.get_update(), True)]
            overflowed, self._overflowed = self._overflowed, False
            fresh = [update for update, new in batch if new]
            try:
                if fresh:
                    await self._store(_merged(fresh))
            except AngelError as error:
                await self._refuse(error, fresh)
                return
            except BaseException:
                self._overflowed |= overflowed
                raise
            for _ in range(count):
                self._pending.popleft()
            if batch:
                self._broadcast(_merged([update for update, _ in batch]))

    async def _store(self, update: bytes) -> None:
        """Store an update, however long that takes; raise an error that retrying cannot mend."""
        for attempt in itertools.count():
            try:
                await self.store.write(update)
                break
            except FINAL:
                raise
            except Exception as error:  # noqa: BLE001 - the drivers of the stores raise many kinds
                wait = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                self.log.warning("%s: not stored, again in %s s: %s", self._name, wait, error)
                await asyncio.sleep(wait)

    async def _refuse(self, error: AngelError, refused: list[bytes]) -> None:
        """Close the room for all clients: an edit cannot be kept. The other edits are stored."""
        self.refused = error.detail
        self._live.unregister(self.store.repo, self.store.path, self)
        self.log.error("%s: an edit was refused, the room is closed: %s", self._name, error)
        for client in tuple(self.clients):
            _disconnect(client)
        while self._pending:
            update, fresh = self._pending[0]
            if fresh and refused != [update]:
                with suppress(*FINAL):
                    await self._store(update)
            self._pending.popleft()

    async def _handle_sync_message_error(
        self, exc: Exception, message: bytes, channel: Channel
    ) -> bool:
        """Disconnect a client whose edit cannot be applied: Jupyter would go on without it."""
        handled = await super()._handle_sync_message_error(exc, message, channel)
        if not handled and message[:1] == bytes([MessageType.SYNC]):
            self.log.warning("%s: an edit cannot be applied: %s", self._name, exc)
            _disconnect(channel)
        return True

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


def _disconnect(client: Channel) -> None:
    client.close(CLOSED, NOT_KEPT)  # pyright: ignore[reportAttributeAccessIssue] - Tornado's


def _merged(updates: list[bytes]) -> bytes:
    return updates[0] if len(updates) == 1 else merge_updates(*updates)
