"""Notices stores that do not answer, and says so to everybody: the banner of status and dashboard.

    async with StoreWatch({"PostgreSQL": Watched(ask, own=False)}, clock) as stores:
        stores.away()       # "PostgreSQL does not answer since 05:31:12 ..."; empty if all answer

A store of ours is started again by its keeper; one of somebody else is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from angelos.adapters.host.endless import endless
from angelos.adapters.host.supervision import PROBE_S
from angelos.adapters.stores.pipeline import StoreError
from angelos.core.errors import AngelError
from angelos.core.ports import Clock

FAILURES = 2
"""Questions in a row without an answer; one alone may have met a busy pool."""


class WatchedStore(NamedTuple):
    """One store."""

    ask: Callable[[], Awaitable[object]]
    """Returns when it answers."""
    own: bool
    """Whether it is started again by us."""


class StoreWatch:
    """Asks each store every `PROBE_S`; `async with` owns the tasks.

    Args:
        stores: By the names that people know.
        clock: Time.
    """

    def __init__(self, stores: Mapping[str, WatchedStore], clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._since: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._tasks = {
            endless(f"watch over {name}", partial(self._watch, name, store))
            for name, store in self._stores.items()
        }
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def away(self) -> str:
        """Return a sentence for each store that does not answer."""
        return " ".join(self._sentence(name) for name in self._stores if name in self._since)

    def _sentence(self, name: str) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self._since[name]))
        if self._stores[name].own:
            return f"{name} does not answer since {at}; it is started again."
        return (
            f"{name} does not answer since {at}. AngelOS does not run it, and waits: "
            "work goes on by itself when it is back."
        )

    async def _watch(self, name: str, store: WatchedStore) -> None:
        failures = 0
        while True:
            begin, now = self._clock.monotonic(), self._clock.time()
            if await _answers(store.ask):
                failures = 0
                self._since.pop(name, None)
            else:
                failures += 1
                if failures == FAILURES:
                    self._since.setdefault(name, now)
            await asyncio.sleep(max(0.0, begin + PROBE_S - self._clock.monotonic()))


async def _answers(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            await ask()
    except StoreError:  # it answers, if only to refuse
        return True
    except (AngelError, OSError, TimeoutError):
        return False
    return True
