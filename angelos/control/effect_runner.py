"""Carries out effects, each at most once at a time, until it is done or no longer needed.

An effect that fails because a part of the system (a store, a node) is away is retried after a
pause. One that cannot be done is named in the log and left to the next fact or restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from angelos.control.config import ControlConfig
from angelos.control.state.effects import Effect
from angelos.core.errors import AngelError, Busy, Unavailable
from angelos.core.tracing import current, span

log = logging.getLogger(__name__)

Handler = Callable[[Any], Awaitable[None]]


class EffectRunner:
    """Owns the tasks that carry out effects."""

    def __init__(
        self,
        handlers: Mapping[type[Effect], Handler],
        tasks: asyncio.TaskGroup,
        config: ControlConfig,
    ) -> None:
        self._handlers = handlers
        self._tasks = tasks
        self._config = config
        self._again: dict[Effect, bool] = {}
        """The effects under way, and whether each was requested again meanwhile."""
        self._running: set[asyncio.Task[None]] = set()

    def start(self, effects: Iterable[Effect]) -> None:
        """Carry out effects; one that is under way is carried out again when it ends."""
        for effect in effects:
            if effect in self._again:
                self._again[effect] = True
            else:
                self._again[effect] = False
                task = self._tasks.create_task(self._carry_out(effect), name=repr(effect))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def stop(self) -> None:
        """Cancel everything; what is not done stays outstanding until the next start."""
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
                log.info("%r", effect)
                with span(type(effect).__name__) if current().span else nullcontext():
                    await self._handlers[type(effect)](effect)
            except (Unavailable, Busy, OSError) as error:
                log.info("%r is retried: %s", effect, error)
            except AngelError as error:
                log.warning("%r cannot be done: %s", effect, error)
                return
            except Exception:
                # A bug in one handler must not end the whole plane; the effect is retried.
                log.exception("%r failed", effect)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._config.retry_max_s)
