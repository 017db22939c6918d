"""How many boxes should wait for a program: as many as come while others are being started. Pure.

>>> demand = Demand()
>>> for number in range(40):
...     demand.note(number / 20)
>>> demand.wanted(2.0, 2, 20), demand.wanted(60.0, 2, 20)
(6, 2)
"""

from __future__ import annotations

import math
from collections import deque

_WINDOW_S = 2.0
_AHEAD_S = 0.3
"""About what starting a few boxes takes on a busy machine."""
_REMEMBERED = 4096


class Demand:
    """When boxes were taken."""

    def __init__(self) -> None:
        self._taken: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, now: float) -> None:
        """Note that a box was taken."""
        self._taken.append(now)

    def wanted(self, now: float, least: int, most: int) -> int:
        """Return how many boxes should wait, between `least` and `most`."""
        while self._taken and self._taken[0] <= now - _WINDOW_S:
            self._taken.popleft()
        if not least:
            return 0
        return min(most, max(least, math.ceil(len(self._taken) / _WINDOW_S * _AHEAD_S)))
