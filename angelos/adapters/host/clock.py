"""The machine's clock, as `core.ports.Clock`.

>>> SystemClock().monotonic() <= SystemClock().monotonic()
True
"""

from __future__ import annotations

import time


class SystemClock:
    """Real time."""

    def time(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()
