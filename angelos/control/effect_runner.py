"""Carries effects out, each once at a time, until it is done or no longer asked for.

An effect that fails for want of a part (a store or node that is away) is tried again after a
pause; one that cannot be done is named in the log and left to the next restart or fact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from angelos.control.config import ControlConfig
from angelos.control.state.effects import Effect
from angelos.core.errors import AngelError, Busy, Unavailable

log = logging.getLogger(__name__)

Handler = Callable[[Any], Awaitable[None]]


class Supervisor:
    """Owns the tasks that carry effects out."""

    def __init__(
        self,
        handlers: Mapping[type[Effect], Handler],
        tasks: asyncio.TaskGroup,
        config: ControlConfig,
    ) -> None:
        """Take a handler for each kind of effect."""
        self._handlers = handlers
        self._tasks = tasks
        self._config = config
        self._again: dict[Effect, bool] = {}
        """What is being carried out, and whether it was asked for once more meanwhile."""
        self._running: set[asyncio.Task[None]] = set()

    def start(self, effects: Iterable[Effect]) -> None:
        """Begin to carry effects out; one that is under way is looked at again when it ends."""
        for effect in effects:
            if effect in self._again:
                self._again[effect] = True
            else:
                self._again[effect] = False
                task = self._tasks.create_task(self._carry_out(effect), name=repr(effect))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def stop(self) -> None:
        """Stop everything; what is not done stays outstanding until the next start."""
        for task in self._running:
            task.cancel()

    async def _carry_out(self, effect: Effect) -> None:
        try:
            await self._until_done(effect)
            while self._again[effect]:
                self._again[effect] = False
                await self._until_done(effect)
        finally:
            del self._again[effect]

    async def _until_done(self, effect: Effect) -> None:
        pause = self._config.retry_s
        while True:
            try:
                await self._handlers[type(effect)](effect)
            except (Unavailable, Busy, OSError) as error:
                log.info("%r has to wait: %s", effect, error)
            except AngelError as error:
                log.warning("%r cannot be done: %s", effect, error)
                return
            except Exception:
                # A fault of ours must not end the whole plane; the effect stays outstanding.
                log.exception("%r failed", effect)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._config.retry_max_s)
