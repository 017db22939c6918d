"""Handles `RunTask`: waits for a slot, runs the task, and reports its end, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from angelos.core.errors import Busy, DeadlineExceeded, Forbidden
from angelos.core.facts import FactPayload, TaskResult, TaskStarted
from angelos.core.ids import TaskId
from angelos.core.messages import RunTask, Status
from angelos.core.ports import Clock
from angelos.core.runs import EvidenceSource
from angelos.core.tracing import span, span_of, traced
from angelos.node.commands.attempts import Attempts
from angelos.node.commands.facts import FactOrigin, code_of
from angelos.node.commands.jobs import Job, Jobs, StopCode, StopReason
from angelos.node.commands.outbox import Outbox
from angelos.node.commands.output import OutputBuffer
from angelos.node.commands.pauses import PausedPrincipals
from angelos.node.commands.runner import Runner
from angelos.node.commands.slots import Slots

log = logging.getLogger(__name__)


class RunHandler:
    """Carries out `RunTask`."""

    def __init__(
        self,
        runner: Runner,
        slots: Slots,
        attempts: Attempts,
        jobs: Jobs,
        outbox: Outbox,
        clock: Clock,
        paused: PausedPrincipals,
    ) -> None:
        self._paused = paused
        self._runner = runner
        self._slots = slots
        self._attempts = attempts
        self._jobs = jobs
        self._outbox = outbox
        self._clock = clock

    async def handle(self, job: Job, task: RunTask) -> None:
        """Run a task and report it from `task.started` to `task.finished`."""
        if job.refusal is not None and self._jobs.of_task(task.task):
            raise job.refusal  # reported as the task's end, it would end another command's task
        job.task = task.task
        log.info("Task %s has arrived", task.task)
        trace = job.command.trace
        with traced(trace, span_of(trace, task.task)), span("node.task", task=task.task):
            result = await self._result(job, task)
            job.finished = True
            with span("node.result", status=result.status):
                await self._finish(self._outbox.origin(job.command), task.task, result)
        log.info("Task %s has ended: %s", task.task, result.status)

    async def report_unseen(self, origin: FactOrigin, task: TaskId, reason: StopReason) -> None:
        """Report the end of a task whose command was cancelled before it arrived."""
        result = self._runner.result(Status.killed, OutputBuffer(), evidence=reason.evidence)
        await self._finish(origin, task, result)

    async def _result(self, job: Job, task: RunTask) -> TaskResult:
        output, origin = OutputBuffer(task.limits.output_bytes), self._outbox.origin(job.command)

        async def started() -> None:
            attempt = self._attempts.begin(job.command.id)
            await report(
                TaskStarted(node=self._runner.node, tier=self._runner.tier, attempt=attempt)
            )

        async def report(payload: FactPayload, outcome: str = "") -> None:
            await self._outbox.report(origin, payload, task.task, outcome=outcome)

        def end(reason: str) -> None:
            job.stop(StopReason(StopCode.paused, reason))

        begin = self._clock.monotonic()
        try:
            job.allowed()
            assert job.principal is not None  # noqa: S101 - its grant was verified
            await self._paused.until_free(job.principal)
            async with (
                self._slots.hold(job.command.deadline, task.priority) as slot,
                self._paused.run(job.principal, slot, memory_of(task), end) as held,
            ):
                with span("node.run", tier=self._runner.tier):
                    sandbox = self._runner.held(held)
                    return await self._runner.run(
                        task, started, report, output, job.principal, sandbox
                    )
        except asyncio.CancelledError:
            reason = job.take_stop()
            if reason is None:
                raise
            return self._runner.result(
                Status.killed,
                output,
                evidence=reason.evidence,
                seconds=self._clock.monotonic() - begin,
            )
        except Exception as error:
            if not isinstance(error, Forbidden | Busy | DeadlineExceeded):
                # Perhaps a full disk. The task has ended all the same, and a caller waits for it.
                log.exception("Task %s failed on the node", task.task)
            status, evidence = failure(error)
            return self._runner.result(status, output, evidence=evidence)

    async def _finish(self, origin: FactOrigin, task: TaskId, result: TaskResult) -> None:
        await self._outbox.report(origin, result, task, outcome=result.status, once=True)


def memory_of(task: RunTask) -> int:
    """Return the megabytes that a task's boxes may use at the same time. Pure."""
    return task.limits.memory_mb * (2 if task.cases is not None else 1)


def failure(error: Exception) -> tuple[Status, dict[str, Any]]:
    """Return the status and the evidence of a task that the node could not run. Pure.

    >>> status, evidence = failure(Busy("8 tasks wait"))
    >>> status.value, evidence["code"]
    ('killed', 'busy')
    """
    match error:
        case Forbidden():
            return Status.denied, {"source": EvidenceSource.grant, "reason": str(error)}
        case Busy() | DeadlineExceeded():
            return Status.killed, {
                "source": EvidenceSource.node,
                "reason": str(error),
                "code": error.code,
            }
    reason = f"The node failed: {error}"
    return Status.killed, {"source": EvidenceSource.node, "reason": reason, "code": code_of(error)}
