"""Work that would block the event loop runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_THREAD_ABOVE = 16_000
"""Bytes; smaller work takes less time than the hand-over to a thread."""


async def in_thread(size: int, work: Callable[..., T], *args: Any) -> T:
    """Run pure work, in a thread where it is large enough to hold up the loop."""
    if size > _THREAD_ABOVE:
        return await asyncio.to_thread(work, *args)
    return work(*args)
