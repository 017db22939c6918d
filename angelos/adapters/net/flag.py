"""An `asyncio.Event` that takes 60 bytes instead of 800: a hub has several for each connection.

flag = Flag()
await flag.wait()
"""

from __future__ import annotations

import asyncio


class Flag:
    """A flag that tasks wait for; methods are those of `asyncio.Event`."""

    __slots__ = ("_raised", "_waiters")

    def __init__(self) -> None:
        self._raised = False
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._raised

    def set(self) -> None:
        """Set it and wake all that wait."""
        if self._raised:
            return
        self._raised = True
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Unset it."""
        self._raised = False

    async def wait(self) -> None:
        """Return when it is set; what is woken by `set` returns even if it is cleared at once."""
        if self._raised:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = (*self._waiters, waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters = tuple(other for other in self._waiters if other is not waiter)
