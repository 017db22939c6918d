"""The collaboration room of a managed document: AngelGit's log is the truth, the file its print.

It differs from Jupyter's own `DocumentRoom` in what would lose or double text:

    Jupyter's room                           this one
    ---------------------------------------  ---------------------------------------------------
    file wins over the store when it opens   the log wins; the file is printed anew
    file changed on disk -> document is      what was changed is an edit like any other, taken in
      overwritten with it                      by AngelGit, which alone writes the file
    writes to the store run side by side     one after the other, in order: no gaps in the log
    tells the others, then stores            stores, then tells everybody, the author included:
                                             **an update that comes back is durable**
    runs in a group with all others          runs in a task of its own
    a full buffer drops updates in silence   falls back to the document's whole state

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
"""Updates that wait to be stored; beyond it the whole state is stored instead."""
RETRY_S = (0.1, 0.5, 2.0, 5.0)
FINAL = (InvalidInput, NotFound, Refused, TooLarge)
"""Errors that stay the same however often one tries."""
FLUSH_S = 5.0
"""How long a room that is stopped tries to store what it still holds, in seconds."""


class ManagedRoom(DocumentRoom):
    """A room whose every update is in AngelGit's log before anybody is told of it."""

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
        """Take the room's id (`format:type:file_id`), its file and its document's store."""
        self.store = store
        self.refused = ""
        """Why the room was closed, if it was."""
        self._name = f"{store.repo}/{store.path}"
        self._live = live
        self._early: list[bytes] = []
        self._taking = False
        self._pending: deque[tuple[bytes, bool]] = deque()
        """Updates in order; True when the log does not have it yet."""
        self._overflowed = False
        self._wake = asyncio.Event()
        self._storing = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        file_format, file_type, _ = room_id.split(":", 2)
        super().__init__(room_id, file_format, file_type, file, logger, store, log, **options)

    async def launch(self) -> None:
        """Run in a task of its own; return when it does.

        Jupyter runs its rooms in one task group, which a file that cannot be opened brings down
        with all rooms in it; they stay in its list, dead.
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
                known = [update async for update, _, _ in self.store.read()]
            except BaseException:
                self._live.unregister(self.store.repo, self.store.path, self)
                raise
            # This room's own first words (its path, set when it was made) are in no log yet;
            # without them every later update of ours would leave a gap there.
            own = self.ydoc.get_update()
            for update in [*known, *self._early]:
                self.ydoc.apply_update(update)
            self._early.clear()
            self._subscription = self.ydoc.observe(self._on_update)
            self._queue(own, fresh=True)
            self.ready = True
        self._emit(LogLevel.INFO, "initialize", "Room initialized")
        self._on_document_change("source", None)  # the file may be older than the log

    def take(self, update: bytes) -> None:
        """Apply an update that is in the log already."""
        if not self.ready:
            self._early.append(update)
            return
        self._taking = True
        try:
            self.ydoc.apply_update(update)
        finally:
            self._taking = False

    async def flush(self) -> None:
        """Return when everything typed so far is stored and told."""
        while self._pending or self._overflowed:
            await self._step()

    async def stop(self) -> None:
        """Store what is left, then stop."""
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
        # Jupyter's own buffer, which drops what it cannot hold, is not used.
        self._update_send_stream.close()
        self._update_receive_stream.close()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self.flush()
        finally:
            # Whoever cancels us, what people typed is kept first.
            with anyio.move_on_after(FLUSH_S, shield=True):
                await self.flush()

    async def _step(self) -> None:
        """Store one batch and tell everybody; what could not be stored stays in its place."""
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
                self._tell(_merged([update for update, _ in batch]))

    async def _store(self, update: bytes) -> None:
        """Store an update, however long that takes; raise what trying again cannot mend."""
        for attempt in itertools.count():
            try:
                await self.store.write(update)
                break
            except FINAL:
                raise
            except Exception as error:  # noqa: BLE001 - the stores are away, in their drivers' words
                wait = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                self.log.warning("%s: not stored, again in %s s: %s", self._name, wait, error)
                await asyncio.sleep(wait)

    async def _refuse(self, error: AngelError, refused: list[bytes]) -> None:
        """Close the room: an edit cannot be kept, and all are told; what others typed is kept."""
        self.refused = error.detail
        self._live.unregister(self.store.repo, self.store.path, self)
        self.log.error("%s: an edit was refused, the room is closed: %s", self._name, error)
        for client in tuple(self.clients):
            _send_away(client)
        while self._pending:
            update, fresh = self._pending[0]
            if fresh and refused != [update]:
                with suppress(*FINAL):
                    await self._store(update)
            self._pending.popleft()

    async def _handle_sync_message_error(
        self, exc: Exception, message: bytes, channel: Channel
    ) -> bool:
        """Send whoever said what cannot be applied away: Jupyter goes on as if it had been."""
        handled = await super()._handle_sync_message_error(exc, message, channel)
        if not handled and message[:1] == bytes([MessageType.SYNC]):
            self.log.warning("%s: an edit cannot be applied: %s", self._name, exc)
            _send_away(channel)
        return True

    def _tell(self, update: bytes) -> None:
        message = create_update_message(update)
        for client in tuple(self.clients):
            if self._task_group is not None:
                self._task_group.start_soon(client.send, message)

    # -- the file ---------------------------------------------------------------------------

    async def _on_outofband_change(self) -> None:
        """Have AngelGit take in what somebody has written into the file."""
        self._saving_document = asyncio.create_task(
            self._maybe_save_document(self._saving_document)
        )

    async def _maybe_save_document(
        self,
        saving_document: asyncio.Task[None] | None,
        save_now: bool = False,  # noqa: FBT001, FBT002 - Jupyter's signature
    ) -> None:
        """Have the file written: what was typed is stored first, what is on disk is taken in."""
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
            if save_now:  # somebody asked for it and is told
                raise
            # Else a task with nobody to raise to; the log has the text in any case.


def _send_away(client: Channel) -> None:
    client.close(CLOSED, NOT_KEPT)  # pyright: ignore[reportAttributeAccessIssue] - Tornado's


def _merged(updates: list[bytes]) -> bytes:
    return updates[0] if len(updates) == 1 else merge_updates(*updates)
