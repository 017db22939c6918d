"""Work that would block the event loop for long runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Args = TypeVarTuple("Args")
_MIN_SIZE = 16_000
"""Bytes. Work on less takes less time than the switch to a thread."""


async def in_thread(size: int, work: Callable[[*Args], T], *args: *Args) -> T:
    """Return `work(*args)`, computed in a thread if `size` bytes would hold up the loop."""
    if size > _MIN_SIZE:
        return await asyncio.to_thread(work, *args)
    return work(*args)
