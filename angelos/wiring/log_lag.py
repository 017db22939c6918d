"""How far the audit log is behind the journal, from two offsets.

>>> lag = LogLag()
>>> lag.behind(Offset("9000-0"), Offset("1000-0"), now=100.0)    # it has just begun
0.0
>>> lag.behind(Offset("9000-0"), Offset("2000-0"), now=105.0), lag.behind("9-0", "9-0", now=106.0)
(5.0, 0.0)
"""

from __future__ import annotations

from angelos.core.ids import Offset, offset_key


class LogLag:
    """Remembers since when the log has not caught up."""

    def __init__(self) -> None:
        self._since: float | None = None

    def behind(self, newest: Offset, position: Offset, now: float) -> float:
        """Return the seconds: those between the offsets, if it has not caught up for so long.

        Args:
            newest: The last fact that lasts and that was read.
            position: Up to where the log holds them.
            now: Seconds that never go back.
        """
        apart = (offset_key(newest)[0] - offset_key(position)[0]) / 1000
        if offset_key(position) >= offset_key(newest):
            self._since = None
            return 0.0
        self._since = now if self._since is None else self._since
        return min(apart, now - self._since)
