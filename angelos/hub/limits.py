"""How many sockets one identity may hold.

limit = SocketLimit(32)
with limit.held(PrincipalId("person/vic")):    # raises `Busy`: HTTP 429
...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from angelos.core.errors import Busy
from angelos.core.ids import PrincipalId

EVENT_SOCKETS = 32
"""Event sockets of one identity in one process."""
_RETRY_S = 5.0


class SocketLimit:
    """Counts the open sockets of each identity and refuses one too many."""

    def __init__(self, most: int = EVENT_SOCKETS) -> None:
        self._most = most
        self._open: Counter[PrincipalId] = Counter()

    @contextmanager
    def held(self, principal: PrincipalId) -> Iterator[None]:
        """Count one more socket inside the `with`.

        Raises:
            Busy: The identity has as many as it may.
        """
        if self._open[principal] >= self._most:
            raise Busy(
                f"{principal} has {self._most} event sockets open; one reader needs one.",
                hint="Close some of them.",
                retry_after_s=_RETRY_S,
            )
        self._open[principal] += 1
        try:
            yield
        finally:
            self._open[principal] -= 1
            if not self._open[principal]:
                del self._open[principal]
