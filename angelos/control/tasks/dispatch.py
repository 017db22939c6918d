"""What happens to accepted tasks: queued, recalled, and ended when their node stays silent.

The handlers of the effects PutTask, AbandonTask, StopTask and EndTask.
"""

from __future__ import annotations

from angelos.control.context import ControlContext
from angelos.control.state.effects import AbandonTask, EndTask, PutTask, StopTask
from angelos.control.state.models import SUPERVISOR, TaskRecord
from angelos.control.state.tasks import ended_by_node, last_moment
from angelos.core.facts import TaskCancelled, TaskResult
from angelos.core.ids import fact_of
from angelos.core.messages import CancelTask, Command, Status, Tier, decode
from angelos.core.runs import EvidenceSource


class TaskDispatcher:
    """Handles the effects of accepted tasks."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._projection = context.projection

    async def put(self, effect: PutTask) -> None:
        """Queue an accepted task's command; the queue keeps it once."""
        record = self._projection.state.tasks.get(effect.task)
        if record is None or not record.open or record.cancelled_at is not None:
            return
        await self._context.put(decode(record.body, Command))
        current = self._projection.state.tasks.get(effect.task)
        if current is not None and (current.cancelled_at is not None or not current.open):
            # It was cancelled or ended while it was being queued.
            await self._recall(record, current.cancel_reason)

    async def abandon(self, effect: AbandonTask) -> None:
        """Cancel a task in the supervisor's name."""
        record = self._projection.state.tasks.get(effect.task)
        if record is not None and record.open and record.cancelled_at is None:
            cancelled = TaskCancelled(reason=effect.reason, cause=effect.cause)
            await self._projection.append(self._projection.fact(cancelled, effect.task))

    async def stop(self, effect: StopTask) -> None:
        """Recall a cancelled task; its node reports the end, unless the node cannot."""
        record = self._projection.state.tasks.get(effect.task)
        if record is None or not record.open or record.cancelled_at is None:
            return
        await self._recall(record, record.cancel_reason)
        if not ended_by_node(self._projection.state, record):
            await self._end(record, f"cancelled: {record.cancel_reason}")

    async def end(self, effect: EndTask) -> None:
        """End a task whose node has not reported for too long."""
        record = self._projection.state.tasks.get(effect.task)
        late = self._context.clock.time() - self._context.config.grace_s
        if record is None or not record.open:
            return
        if last_moment(self._projection.state, record, self._context.config.node_gone_s) >= late:
            return
        failure = "did not start it before its deadline, or has been away for too long"
        if record.cancelled_at is not None:
            failure = f"did not report its end, though it was cancelled: {record.cancel_reason}"
        elif record.started_at is not None:
            failure = "did not report its end within its time limit"
        reason = f"{record.node} {failure}"
        await self._recall(record, reason)
        await self._end(record, reason)

    async def _recall(self, record: TaskRecord, reason: str) -> None:
        """Remove the command from the queue, and cancel it at the node, which may have it."""
        await self._context.queue.remove(record.node, SUPERVISOR, [record.command])
        if record.node not in self._projection.state.quarantined:
            await self._context.command_node(
                "cancel",
                record.node,
                CancelTask(task=record.id, command=record.command, reason=reason),
            )

    async def _end(self, record: TaskRecord, reason: str) -> None:
        """Append that a task has ended; if its node has just reported it, nothing changes."""
        now = self._context.clock.time()
        node = self._projection.state.nodes.get(record.node)
        result = TaskResult(
            status=Status.killed,
            exit_code=None,
            stdout="",
            stderr="",
            duration_s=max(0.0, now - record.started_at) if record.started_at else 0.0,
            node=record.node,
            tier=node.tier if node else Tier.none,
            evidence={"source": EvidenceSource.silence, "reason": reason},
        )
        await self._projection.append(
            self._projection.fact(
                result,
                record.id,
                key=fact_of(record.command, result.kind).removeprefix("fact-"),
                outcome=Status.killed,
            )
        )
