"""Who waits a moment so that another box gets its part of the processors. Pure.

The kernel shares a processor between sessions (sched(7), "autogroup"), so a box with fifty
sessions has fifty parts of one with a single session, and `nice` changes nothing between
sessions. Control groups settle that in the kernel; without them the node stops, for one window,
whoever takes more than its fair part while another waits below its own. Nobody is stopped for more
than a few windows in a row, and nobody at all while no other box waits.

>>> shares = ProcessorShares(cores=2)
>>> shares.to_hold({"crowd": Reading(0.39, 9.0), "single": Reading(0.01, 0.19)}, 0.2)
frozenset({'crowd'})
>>> shares.to_hold({"crowd": Reading(0.0, 0.0), "single": Reading(0.0, 0.0)}, 0.2)
frozenset()
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
_WEIGHT = 0.25
"""Of the newest window in the average of a box."""
_WAITS, _TAKES = 0.25, 0.05
"""Parts of a window: from when a box counts as waiting, and as taking part at all."""
_BELOW = 0.8
"""A box that has this part of its fair part need not get more: it lets those with less go first."""
_IN_A_ROW = 4
"""For so many windows a box stands still at most."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the processes of one box did, until now or in one window, in seconds."""

    cpu_s: float
    waited_s: float
    """They were ready to run and did not (proc(5), schedstat)."""

    def since(self, before: Reading) -> Reading:
        """Return the difference to an earlier one; what ended meanwhile counts no more."""
        cpu_s, waited_s = self.cpu_s - before.cpu_s, self.waited_s - before.waited_s
        return Reading(max(cpu_s, 0.0), max(waited_s, 0.0))


class ProcessorShares(Generic[Key]):
    """What each box has lately taken of the processors."""

    def __init__(self, cores: int) -> None:
        """Share so many cores."""
        self._cores = cores
        self._taken: dict[Key, float] = {}
        self._waits: set[Key] = set()
        self._held: dict[Key, int] = {}

    def to_hold(self, readings: Mapping[Key, Reading], window_s: float) -> frozenset[Key]:
        """Return which boxes stand still for the next window.

        Args:
            readings: What each box that runs did in the last window.
            window_s: How long that was.
        """
        rates = {key: reading.cpu_s / window_s for key, reading in readings.items()}
        self._taken = {
            key: _WEIGHT * rate + (1 - _WEIGHT) * self._taken.get(key, rate)
            for key, rate in rates.items()
        }
        waits = {k for k, r in readings.items() if r.waited_s >= _WAITS * window_s}
        if self._held:  # while others stand still it may have what it wants
            waits |= {key for key in self._waits if rates.get(key, 0.0) >= _TAKES}
        self._waits = waits
        self._held = {key: self._held.get(key, 0) + 1 for key in self._over(waits)}
        return frozenset(self._held)

    def _over(self, waits: set[Key]) -> set[Key]:
        """Return who has enough while one of those who wait has not."""
        taken = self._taken
        taking = {key for key in taken if taken[key] >= _TAKES or key in waits or key in self._held}
        # Boxes share what the rest of the machine leaves them.
        fair = min(self._cores, sum(taken.values())) / max(len(taking), 1)
        if not any(taken[key] < _BELOW * fair for key in waits):
            return set()
        return {k for k in taken if taken[k] >= _BELOW * fair and self._held.get(k, 0) < _IN_A_ROW}
