"""Calls that share what they cost: what comes while others are under way goes into the next batch.

    gather = Gather(send, weigh=lambda call: 1, most=128)
    gather.add(call)          # `send([call])` begins at once, or `send([call, ...])` after others

A single call waits for nobody; under load batches grow by themselves, without a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

C = TypeVar("C")


class Gather(Generic[C]):
    """Hands calls on in batches, in their order.

    Args:
        send: Carries out a batch and answers each of its calls; it raises nothing.
        weigh: How much of a batch a call takes.
        most: How much a batch holds, unless it is a single call.
        at_once: How many batches may be under way.
        on_idle: Called when nothing waits and nothing is under way.
    """

    def __init__(
        self,
        send: Callable[[list[C]], Coroutine[Any, Any, None]],
        weigh: Callable[[C], int],
        most: int,
        at_once: int = 2,
        on_idle: Callable[[], object] | None = None,
    ) -> None:
        self._send, self._weigh = send, weigh
        self._most, self._at_once, self._on_idle = most, at_once, on_idle
        self._waiting: list[C] = []
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, call: C) -> None:
        """Take one more call."""
        self._waiting.append(call)
        if not self._sending:
            self._start()
        elif len(self._waiting) == 1 and len(self._sending) < self._at_once:
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[C] = []
        weight = 0
        for call in waiting:
            more = self._weigh(call)
            if batch and weight + more > self._most:
                self._launch(batch)
                batch, weight = [], 0
            batch.append(call)
            weight += more
        if batch:
            self._launch(batch)

    def _launch(self, batch: list[C]) -> None:
        # Not in the task of a caller, who may be cancelled while others wait.
        task = asyncio.create_task(self._send(batch), name="gathered calls")
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if self._waiting:
            self._start()
        elif not self._sending and self._on_idle is not None:
            self._on_idle()
