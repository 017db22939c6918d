"""A Python process that calls functions for us: what would hold the event loop, and may hang.

    async with WorkerProcess("the embedding model") as worker:
        vectors = await worker.call(encode, texts, timeout_s=60)

It is started at the first call. Whoever waits too long ends it, since nothing else stops a function
that computes; the next call starts another, which has loaded nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self, TypeVar

from angelos.core.errors import Unavailable

T = TypeVar("T")


class WorkerProcess:
    """One process, which calls one function after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ProcessPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Return its process id; None while it has not begun."""
        processes = getattr(self._pool, "_processes", None) or {}
        return next(iter(processes), None)

    async def call(
        self, function: Callable[..., T], *args: object, timeout_s: float | None = None
    ) -> T:
        """Return what a function of a module returns in the process.

        Args:
            function: It and its arguments are pickled; so is its answer.
            *args: Its arguments.
            timeout_s: After so long the process is ended; by default there is no limit.

        Raises:
            Unavailable: The process ended, or took too long and was ended.
            Exception: What the function raised.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool = self._pool
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
        except BrokenProcessPool as error:
            self._end(pool)
            raise Unavailable(f"The process of {self._name} ended; ask again.") from error
        except TimeoutError as error:
            self._end(pool)
            raise Unavailable(f"{self._name} took more than {timeout_s:g} s.") from error

    def close(self) -> None:
        """End the process; a later call starts another."""
        if self._pool is not None:
            self._end(self._pool)

    def _end(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            with contextlib.suppress(OSError):
                process.kill()  # it holds nothing
        pool.shutdown(wait=True, cancel_futures=True)
