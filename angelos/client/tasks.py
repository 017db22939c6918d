"""A task from its submission to its result, its output as it comes.

submit -> view.offset -> facts task.started, task.output, task.output, ..., task.finished

A task whose node died is started again when the node is back; what it printed before is void.
That is told as a `Restarted` between the pieces of output.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from angelos.core.errors import AngelError
from angelos.core.ids import new_command_id
from angelos.core.messages import Kind, TaskResult
from angelos.core.runs import Output

if TYPE_CHECKING:
    from angelos.client.angelos import Angelos
    from angelos.core.api import SubmitTask, TaskView

_LAST_WORD_S = 5.0
"""How long somebody who goes away waits to hear whether the task was accepted."""
_KINDS = (Kind.task_started, Kind.task_output, Kind.task_finished)


class Restarted(msgspec.Struct, frozen=True):
    """The task begins anew: what was printed up to here is not part of its output."""

    attempt: int
    """How often it was started, with this one; 2 or more."""
    node: str


Piece = Output | Restarted | TaskResult


async def stream(
    angelos: Angelos, task: SubmitTask, on_accept: Callable[[TaskView], None] | None = None
) -> AsyncGenerator[Piece, None]:
    """Run a task and yield its output as it comes, each new beginning, and its result last.

    Leaving the iterator before the result cancels the task.
    """
    if task.command is None:  # so that sending it twice is once
        task = msgspec.structs.replace(task, command=new_command_id())
    view = await _submitted(angelos, task)
    if on_accept is not None:
        on_accept(view)
    finished = False
    try:
        async with aclosing(_pieces(angelos, view)) as pieces:
            async for piece in pieces:
                finished = isinstance(piece, TaskResult)
                yield piece
    finally:
        if not finished:
            await asyncio.shield(_cancel_quietly(angelos, view))


async def _submitted(angelos: Angelos, task: SubmitTask) -> TaskView:
    """Return the task once it is accepted; it does not run for a caller who left before that."""
    asking = asyncio.ensure_future(angelos.submit(task))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.shield(_give_up(angelos, asking))
        raise


async def _give_up(angelos: Angelos, asking: asyncio.Future[TaskView]) -> None:
    await asyncio.wait({asking}, timeout=_LAST_WORD_S)
    if not asking.done():
        asking.cancel()
        await asyncio.wait({asking})
    elif asking.exception() is None:
        await _cancel_quietly(angelos, asking.result())


async def _pieces(angelos: Angelos, view: TaskView) -> AsyncGenerator[Piece, None]:
    if view.result is not None:
        yield view.result
        return
    attempt = 0
    async with aclosing(angelos.events(view.offset, _KINDS, view.id)) as facts:
        async for fact in facts:
            if fact.kind == Kind.task_finished:
                yield msgspec.convert(fact.data, TaskResult)
                return
            if fact.kind == Kind.task_started:
                attempt = max(attempt + 1, _number(fact.data.get("attempt")))
                if attempt > 1:
                    yield Restarted(attempt, str(fact.data.get("node", "")))
                continue
            text = str(fact.data.get("text", ""))
            stream = "stderr" if fact.data.get("stream") == "stderr" else "stdout"
            yield Output(stream, text.encode(errors="surrogateescape"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 1


async def _cancel_quietly(angelos: Angelos, view: TaskView) -> None:
    try:
        await angelos.cancel(view.id, "The caller went away.")
    except AngelError:
        return  # it may have ended meanwhile, and there is nobody to tell
