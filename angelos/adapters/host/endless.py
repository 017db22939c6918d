"""Endless work that does not end in silence.

    self._task = endless("refusals", self._write)       # cancel it to end it

A task that nobody awaits ends unseen: its error is logged when it is collected, if ever, and what
it did is not done any more. Endless work says so at once and starts again, after a pause that
grows; `FAILURES` counts how often, and the server's metrics show it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
PAUSES_S = (0.1, 1.0, 5.0, 30.0)
"""Before the first new start, the second, ...; the last one for all further ones."""
_WELL_S = 60.0
"""Who has worked for so long starts again without the pauses of before."""
FAILURES: Counter[str] = Counter()
"""How often endless work of this process has ended, by its name."""


def endless(name: str, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
    """Return a task that does `work` for ever; whoever owns it cancels it.

    Args:
        name: For people and for the metrics.
        work: Does not return; if it does or raises, it is called again after a pause.
    """
    return asyncio.create_task(_repeated(name, work), name=name)


async def _repeated(name: str, work: Callable[[], Awaitable[object]]) -> None:
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    assert own is not None  # noqa: S101 - a coroutine runs in a task
    failures = 0
    while True:
        began = loop.time()
        error: BaseException | None = None
        try:
            await work()
        except asyncio.CancelledError as raised:
            if own.cancelling():
                raise
            error = raised  # of something that the work waited for, and no order to end
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is said and tried again
            error = raised
        if loop.time() - began >= _WELL_S:
            failures = 0
        pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        failures += 1
        FAILURES[name] += 1
        log.critical("%s has ended and starts again in %g s", name, pause, exc_info=error)
        await asyncio.sleep(pause)
