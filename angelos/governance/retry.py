"""Asking again while a store is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from angelos.core.errors import Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S = (0.05, 0.1, 0.25, 0.5, 1.0)


async def retried(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of `ask`, retrying as long as a store is away."""
    tries = 0
    while True:
        try:
            return await ask()
        except Unavailable as error:
            if tries == 0:
                log.warning("%s Trying again.", error)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
