"""What happens to accepted tasks: put, taken back, ended when their node stays silent.

The handlers of the effects PutTask, AbandonTask, StopTask and EndTask.
"""

from __future__ import annotations

from angelos.control.context import Parts
from angelos.control.state.effects import AbandonTask, EndTask, PutTask, StopTask
from angelos.control.state.models import TaskRecord
from angelos.control.state.tasks import ended_by_node, last_moment
from angelos.core.facts import TaskCancelled, TaskResult
from angelos.core.ids import fact_of
from angelos.core.messages import CancelTask, Command, Status, Tier, decode


class TaskKeeper:
    """Sees accepted tasks to their end."""

    def __init__(self, parts: Parts) -> None:
        """Share the plane's parts."""
        self._parts = parts
        self._ledger = parts.ledger

    async def put(self, effect: PutTask) -> None:
        """Put an accepted task's command into its node's queue, which takes it once."""
        record = self._ledger.state.tasks.get(effect.task)
        if record is None or not record.open or record.cancelled_at is not None:
            return
        await self._parts.queue.put(record.node, decode(record.body, Command))
        now = self._ledger.state.tasks.get(effect.task)
        if now is not None and (now.cancelled_at is not None or not now.open):
            # It was cancelled or given up while it was on its way into the queue.
            await self._recall(record, now.cancel_reason)

    async def abandon(self, effect: AbandonTask) -> None:
        """Cancel a task in the supervisor's name."""
        record = self._ledger.state.tasks.get(effect.task)
        if record is not None and record.open and record.cancelled_at is None:
            cancelled = TaskCancelled(reason=effect.reason)
            await self._ledger.say(self._ledger.fact(cancelled, effect.task))

    async def stop(self, effect: StopTask) -> None:
        """Take a cancelled task back; its end is the node's to say, unless that cannot."""
        record = self._ledger.state.tasks.get(effect.task)
        if record is None or not record.open or record.cancelled_at is None:
            return
        await self._recall(record, record.cancel_reason)
        if not ended_by_node(self._ledger.state, record):
            await self._end(record, f"cancelled: {record.cancel_reason}")

    async def end(self, effect: EndTask) -> None:
        """End a task of which its node has said nothing for too long."""
        record = self._ledger.state.tasks.get(effect.task)
        late = self._parts.clock.time() - self._parts.config.grace_s
        if record is None or not record.open:
            return
        if last_moment(self._ledger.state, record, self._parts.config.node_gone_s) >= late:
            return
        what = "did not start it before its deadline, or has been gone for too long"
        if record.cancelled_at is not None:
            what = f"did not report its end, though it was cancelled: {record.cancel_reason}"
        elif record.started_at is not None:
            what = "did not report its end within its time limit"
        reason = f"{record.node} {what}"
        await self._recall(record, reason)
        await self._end(record, reason)

    async def _recall(self, record: TaskRecord, reason: str) -> None:
        """Take the command out of the queue, and tell the node in case that it has it."""
        await self._parts.queue.drop(record.node, [record.command])
        if record.node not in self._ledger.state.quarantined:
            await self._parts.order(
                "cancel",
                record.node,
                CancelTask(task=record.id, command=record.command, reason=reason),
            )

    async def _end(self, record: TaskRecord, reason: str) -> None:
        """Say that a task is over; if its node has just said so, this changes nothing."""
        now = self._parts.clock.time()
        node = self._ledger.state.nodes.get(record.node)
        result = TaskResult(
            status=Status.killed,
            exit_code=None,
            stdout="",
            stderr="",
            duration_s=max(0.0, now - record.started_at) if record.started_at else 0.0,
            node=record.node,
            tier=node.tier if node else Tier.none,
            evidence={"source": "node", "reason": reason},
        )
        await self._ledger.say(
            self._ledger.fact(
                result,
                record.id,
                key=fact_of(record.command, result.kind).removeprefix("fact-"),
                outcome=Status.killed,
            )
        )
