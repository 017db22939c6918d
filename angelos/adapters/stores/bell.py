"""The bell of the queues: which destinations have news, heard on one connection of a process.

    bell = Bell(client)
    async with bell.heard(destination, on_ring):     # on_ring(epoch, lane): 0, or who owns it now;
        ...                                          # and the lane that has news, None for any

A connection that has died without a word is noticed by an unanswered ping within two seconds;
afterwards every destination is rung, since something may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from angelos.adapters.host.endless import endless
from angelos.adapters.stores.backlog import LANES
from angelos.adapters.stores.pipeline import CommandPipeline, StoreError
from angelos.adapters.stores.queue_scripts import BELL
from angelos.adapters.stores.streams import BACKOFF_S, Client
from angelos.core.envelopes import Lane
from angelos.core.errors import Unavailable

log = logging.getLogger(__name__)
OnRing = Callable[[int, Lane | None], None]
_PING_S = 1.0
_LANES = {str(number): lane for number, lane in enumerate(LANES)}


class Bell:
    """Listens while anybody wants to hear it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listeners: dict[str, set[OnRing]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @asynccontextmanager
    async def heard(self, destination: str, on_ring: OnRing) -> AsyncGenerator[None, None]:
        """Call `on_ring` with each news of a destination, inside the `async with`."""
        self._listeners[destination].add(on_ring)
        try:
            if self._task is None:
                self._task = endless("bell of the queues", self._listen)
            await self._ready.wait()
            yield
        finally:
            self._listeners[destination].discard(on_ring)
            if not self._listeners[destination]:
                del self._listeners[destination]
            if not self._listeners and self._task is not None:
                task, self._task = self._task, None
                self._ready.clear()
                task.cancel()
                await asyncio.wait([task])

    def ring(self, destination: str, epoch: int = 0, lane: Lane | None = None) -> None:
        """Tell the listeners of a destination; callers of this process need not wait for Valkey."""
        for on_ring in tuple(self._listeners.get(destination, ())):
            on_ring(epoch, lane)

    async def _listen(self) -> None:
        tries = 0
        while True:
            lost = asyncio.Event()
            pipeline = CommandPipeline(self._client.connection_pool, self._on_message, lost.set)
            try:
                # Not a call: the answer to SUBSCRIBE comes as a message.
                await pipeline.tell("SUBSCRIBE", BELL)
                self._ready.set()
                self._ring_all()
                while not lost.is_set():
                    await pipeline.call("PING", patience_s=_PING_S)
                    tries = 0
                    try:
                        async with asyncio.timeout(_PING_S):
                            await lost.wait()
                    except TimeoutError:
                        continue
            except (Unavailable, StoreError) as error:
                if tries == 0:
                    log.warning("The bell of the queues is not heard: %s Trying again.", error)
            finally:
                await pipeline.close()
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1

    def _ring_all(self) -> None:
        for destination in tuple(self._listeners):
            self.ring(destination)

    def _on_message(self, message: list[Any]) -> None:
        if message[0] == b"message":
            destination, _, news = message[2].decode(errors="replace").partition(" ")
            if news.startswith("+") and news[1:] in _LANES:
                self.ring(destination, 0, _LANES[news[1:]])
            else:
                self.ring(destination, int(news) if news.isdecimal() else 0)
