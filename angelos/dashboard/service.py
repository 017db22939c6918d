"""Follows the system for a dashboard, in a thread and loop of its own, so no cell ever waits.

    feed = DashboardFeed(Angelos.connect, publish)  # calls publish(view), at most 5 times a second
    feed.start()
    feed.review(proposal, digest, "approve")        # from any thread, returns at once
    feed.close()

When the connection is lost it reconnects for ever, and the last view stays visible meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from angelos.client import Angelos
from angelos.core.errors import AngelError, NotFound, Unavailable
from angelos.core.facts import Fact
from angelos.core.ids import Offset
from angelos.dashboard.state import (
    MAX_PROPOSALS,
    MAX_TASKS,
    DashboardState,
    StaleItems,
    followed,
    loaded,
    lost,
    noticed,
    tasks_to_request,
    view,
    with_proposal,
    with_status,
    with_task,
)

log = logging.getLogger(__name__)
Word = Literal["approve", "reject"]
MIN_PAUSE_S = 0.2
"""Between two views that are published."""
RETRY_S = 2.0
STATUS_S = 10.0
BEAT_S = 2.0
CLOSE_S = 5.0


class DashboardFeed:
    """Keeps the state of a dashboard current."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Angelos]],
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._connect = connect
        self._publish = publish
        self._state = DashboardState()
        self._stale = StaleItems()
        self._after: Offset | None = None
        """Offset of the last fact of this connection, from which the next one continues.

        A connection without any fact may have failed because of the offset; then the next one
        starts at the system's present offset.
        """
        self._angelos: Angelos | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="dashboard", daemon=True)
        self._changed = asyncio.Event()
        self._refresh = asyncio.Event()

    # -- from any thread --------------------------------------------------------------------

    def start(self) -> None:
        """Start to follow."""
        self._thread.start()

    def review(self, proposal: str, digest: str, word: Word, comment: str = "") -> None:
        """Approve or reject exactly the edits that `digest` names; a failure becomes a notice."""
        self._run(self._review(proposal, digest, word, comment))

    def close(self) -> None:
        """Stop following and wait for the thread to end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(CLOSE_S)

    def _run(self, work: Any) -> None:
        if self._loop.is_closed():
            work.close()
            return
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # -- in the feed's thread ---------------------------------------------------------------

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._task = self._loop.create_task(self.run())
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            log.debug("the dashboard was closed")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._show())
            group.create_task(self._beat())
            while True:
                try:
                    await self._follow()
                except* (AngelError, OSError) as errors:
                    self._set(lost(self._state, f"Not connected: {_first(errors)} Trying again."))
                except* Exception as errors:
                    log.exception("The dashboard failed")
                    failure = f"The dashboard failed ({_first(errors)!r}); this view may be old."
                    self._set(lost(self._state, f"{failure} Trying again."))
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        async with self._connect() as angelos:
            status = await angelos.status()
            tasks = await angelos.tasks.list(limit=MAX_TASKS)
            proposals = await angelos.proposals.list(limit=MAX_PROPOSALS)
            waiting = await angelos.proposals.list(state="waiting", limit=MAX_PROPOSALS)
            self._set(loaded(self._state, status, tasks, [*proposals, *waiting]))
            self._angelos = angelos
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._refresh_items(angelos))
                    after, self._after = self._after or status.journal, None
                    async with contextlib.aclosing(angelos.events(after=after)) as facts:
                        async for fact in facts:
                            self._take(fact)
                    raise Unavailable("The stream of events has ended.")
            finally:
                self._angelos = None

    def _take(self, fact: Fact) -> None:
        self._after = fact.offset or self._after
        state, stale = followed(self._state, fact)
        if state is not self._state:
            self._set(state)
        if stale:
            self._stale |= stale
            self._refresh.set()

    async def _refresh_items(self, angelos: Angelos) -> None:
        """Ask for what became stale; many facts about one thing are one question.

        The system is asked now and then all the same: a store that is away makes no facts.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_S):
                    await self._refresh.wait()
            stale, self._stale = self._stale, StaleItems()
            if not self._refresh.is_set():
                stale |= StaleItems(system=True)
            self._refresh.clear()
            for task in tasks_to_request(stale):
                with contextlib.suppress(NotFound):  # it ended long ago
                    self._set(with_task(self._state, await angelos.tasks[task].view()))
            for proposal in sorted(stale.proposals):
                with contextlib.suppress(NotFound):  # it was refused before it became one
                    self._set(with_proposal(self._state, await angelos.proposals[proposal].view()))
            if stale.system:
                self._set(with_status(self._state, await angelos.status()))

    async def _review(self, proposal: str, digest: str, word: Word, comment: str) -> None:
        try:
            handle = self._connected().proposals[proposal]
            act = handle.approve if word == "approve" else handle.reject
            self._set(with_proposal(self._state, await act(digest, comment)))
        except (AngelError, OSError) as error:
            self._set(noticed(self._state, proposal, str(error)))
        except Exception as error:
            log.exception("The review of %s failed", proposal)
            notice = f"The dashboard failed ({error!r}); check its state before you retry."
            self._set(noticed(self._state, proposal, notice))

    def _connected(self) -> Angelos:
        if self._angelos is None:
            raise Unavailable("Nobody is connected at the moment.")
        return self._angelos

    async def _show(self) -> None:
        for beat in itertools.count(1):
            self._publish(view(self._state) | {"beat": beat})
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(MIN_PAUSE_S)

    async def _beat(self) -> None:
        """Say now and then that the kernel lives; a page without beats turns grey."""
        while True:
            await asyncio.sleep(BEAT_S)
            self._changed.set()

    def _set(self, state: DashboardState) -> None:
        self._state = state
        self._changed.set()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
