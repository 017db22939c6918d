"""The machine's clock, as `core.ports.Clock`.

>>> SystemClock().monotonic() <= SystemClock().monotonic()
True
"""

from __future__ import annotations

import asyncio
import time

from angelos.core.ports import Clock

PIECE_S = 10.0
"""How late a jump of the wall clock is noticed at most."""


class SystemClock:
    """Real time."""

    def time(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


async def sleep_until(at: float, clock: Clock) -> None:
    """Sleep until a wall time (Unix seconds), in pieces.

    One long sleep counts monotonic seconds: it does not advance while the host is suspended, and
    does not see that somebody has set the clock.
    """
    while (wait := at - clock.time()) > 0:  # noqa: ASYNC110 - no event announces the time
        await asyncio.sleep(min(wait, PIECE_S))
