"""The commands that a node is carrying out, and how one of them is stopped.

For example:

    jobs.start(command, carry_out)                 # a job: one asyncio task
    jobs.of_task(task)[0].stop(StopReason(StopCode.cancelled, "asked by person/grace"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from angelos.core.errors import AngelError
from angelos.core.ids import CommandId, PrincipalId, TaskId
from angelos.core.messages import Command
from angelos.core.runs import EvidenceSource


class StopCode(StrEnum):
    """Why a job was stopped."""

    cancelled = "cancelled"
    revoked = "revoked"
    """The grants of the principal who had asked for it are void."""
    paused = "paused"
    """Its principal is paused, and the node cannot keep what stands still."""
    shutdown = "shutdown"
    """The node itself stops."""


class StopReason(NamedTuple):
    """Why a job was stopped: the code for programs, the text for people."""

    code: StopCode
    text: str

    @property
    def evidence(self) -> dict[str, Any]:
        """Return the evidence for the status `killed`."""
        return {"source": EvidenceSource.node, "reason": self.text, "code": self.code}


@dataclass(eq=False, slots=True)
class Job:
    """A command that is being carried out."""

    command: Command
    worker: asyncio.Task[None] | None = None
    principal: PrincipalId | None = None
    """Whose grant it is; None until the grant was verified."""
    refusal: AngelError | None = None
    """Why the grant does not allow it, if it does not."""
    task: TaskId | None = None
    stop_reason: StopReason | None = None
    finished: bool = False
    """Its result stands, so it can no longer be stopped."""

    def stop(self, reason: StopReason) -> None:
        """Stop the job, unless it has finished or is being stopped; the first reason counts."""
        if self.worker is not None and self.stop_reason is None and not self.finished:
            self.stop_reason = reason
            self.worker.cancel()

    def take_stop(self) -> StopReason | None:
        """Return why `stop` was called and go on; None if the cancellation came from elsewhere.

        For the handler's `except CancelledError`: a job that was stopped still has to report how
        it ended, so the cancellation must not count any more (`asyncio.Task.uncancel`).
        """
        if self.stop_reason is not None and self.worker is not None:
            self.worker.uncancel()
        return self.stop_reason

    def allowed(self) -> None:
        """Raise the refusal of the grant, if there is one."""
        if self.refusal is not None:
            raise self.refusal


class Jobs:
    """All jobs of a node, by command."""

    def __init__(self) -> None:
        self._jobs: dict[CommandId, Job] = {}

    def start(self, command: Command, work: Callable[[Job], Coroutine[None, None, None]]) -> None:
        """Start a job; it is forgotten when `work` has ended."""
        job = Job(command)
        job.worker = asyncio.create_task(self._run(job, work), name=f"command {command.id}")
        self._jobs[command.id] = job

    async def _run(self, job: Job, work: Callable[[Job], Coroutine[None, None, None]]) -> None:
        try:
            await work(job)
        finally:
            self._jobs.pop(job.command.id, None)

    @property
    def idle(self) -> bool:
        """Whether no command is being carried out."""
        return not self._jobs

    def of_task(self, task: TaskId) -> list[Job]:
        """Return the jobs that run a task."""
        return [job for job in self._jobs.values() if job.task == task]

    def of_principal(self, principal: PrincipalId) -> list[Job]:
        """Return the jobs under grants of a principal."""
        return [job for job in self._jobs.values() if job.principal == principal]

    async def close(self, reason: StopReason, patience_s: float) -> None:
        """Stop every job and wait until it has reported that; then cancel what still runs."""
        stopping = list(self._jobs.values())
        for job in stopping:
            job.stop(reason)
        workers = workers_of(stopping)
        if workers:
            _, late = await asyncio.wait(workers, timeout=patience_s)
            for worker in late:  # the channel no longer accepts anything
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def workers_of(jobs: Iterable[Job]) -> list[asyncio.Task[None]]:
    """Return the asyncio tasks of jobs."""
    return [job.worker for job in jobs if job.worker is not None]
