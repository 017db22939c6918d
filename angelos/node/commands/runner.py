"""Carries one task out: guard, checkout, sandbox; output and result as facts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol, cast

from angelos.core.errors import AngelError, Unavailable, first_of
from angelos.core.messages import Kind, RunTask, Status, TaskResult, Tier
from angelos.core.ports import Sandbox
from angelos.core.runs import Exit, RunSpec
from angelos.node.checkouts.store import Checkouts
from angelos.node.commands.output import Feed
from angelos.node.runtimes.python.runtime import refused, spec_for

_COALESCE_S = 0.05


class Say(Protocol):
    """Tells one fact about the task."""

    def __call__(self, kind: Kind, **data: Any) -> Awaitable[None]:
        """Return when the channel has taken it."""
        ...


class Runner:
    """Runs tasks in a sandbox; knows nothing of commands, grants or channels."""

    def __init__(self, name: str, sandbox: Sandbox, checkouts: Checkouts) -> None:
        """Take the node's name for its results, and its parts."""
        self._name = name
        self._sandbox = sandbox
        self._checkouts = checkouts

    async def run(self, task: RunTask, started: Callable[[], Awaitable[None]], say: Say,
                  feed: Feed) -> TaskResult:  # fmt: skip
        """Run a task, telling output as it comes, and return its result."""
        try:
            return await self._run(task, started, say, feed)
        except AngelError as error:
            # What lies with the node or the hub may go better elsewhere; a bad task will not.
            lost = isinstance(error, Unavailable)
            status = Status.killed if lost else Status.denied
            evidence = {"source": "node", "reason": str(error), "code": error.code}
            return self.result(status, feed, evidence=evidence)

    async def _run(
        self, task: RunTask, started: Callable[[], Awaitable[None]], say: Say, feed: Feed
    ) -> TaskResult:
        finding = await refused(task)
        if finding is not None:
            evidence = {"source": "guard", "line": finding.line, "reason": finding.reason}
            return self.result(Status.denied, feed, evidence=evidence)
        async with contextlib.AsyncExitStack() as stack:
            folder: Path | None = None
            if task.revision is not None:
                folder = await stack.enter_async_context(
                    self._checkouts.use(task.repo, task.revision)
                )
            spec = spec_for(task, folder)
            await started()
            end = await self._follow(spec, feed, say)
        if end is None:
            raise Unavailable("The sandbox ended without a word.")
        return self.result(
            end.status, feed, exit_code=end.exit_code, seconds=end.duration_s, tier=end.tier,
            evidence=dict(end.evidence),
        )  # fmt: skip

    async def _follow(self, spec: RunSpec, feed: Feed, say: Say) -> Exit | None:
        """Run it, telling what it prints; return its end."""
        news, room, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        end: Exit | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_tell(feed, say, news, room, over))
                async with aclosing(cast("Any", self._sandbox.run(spec))) as events:
                    async for event in events:
                        if isinstance(event, Exit):
                            end = event
                            continue
                        feed.add(event.stream, event.data)
                        news.set()
                        if feed.full:
                            room.clear()
                            await room.wait()
                feed.end()
                over.set()
                news.set()
        except ExceptionGroup as group:
            if (error := first_of(group)) is None:
                raise
            raise error from None
        return end

    def result(
        self,
        status: Status,
        feed: Feed,
        *,
        evidence: dict[str, Any],
        exit_code: int | None = None,
        seconds: float = 0.0,
        tier: Tier | None = None,
    ) -> TaskResult:
        """Return the result of a run, however it ended."""
        cut = {name: kept.total for name, kept in feed.kept.items() if kept.truncated}
        if cut:
            evidence = {**evidence, "truncated": cut}
        return TaskResult(
            status=status,
            exit_code=exit_code,
            stdout=feed.kept["stdout"].text(),
            stderr=feed.kept["stderr"].text(),
            duration_s=seconds,
            node=self._name,
            tier=tier or self._sandbox.tier,
            evidence=evidence,
        )


async def _tell(
    feed: Feed, say: Say, news: asyncio.Event, room: asyncio.Event, over: asyncio.Event
) -> None:
    """Tell output: the first piece at once, then what has come in each twentieth of a second."""
    index = 0
    while True:
        await news.wait()
        news.clear()
        last = over.is_set()
        for stream, text in feed.take():
            await say(Kind.task_output, stream=stream, text=text, index=index)
            index += 1
        room.set()
        if last:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COALESCE_S):
                await over.wait()
