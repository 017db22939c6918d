"""How the facts of a task change what is known of it.

>>> task_for(CommandId("cmd-" + "0" * 32))
'task-00000000000000000000000000000000'
"""

from __future__ import annotations

import msgspec

from angelos.control.state.models import (
    KEEP_RESULT_BYTES,
    KEEP_TASKS,
    State,
    TaskRecord,
    replace,
)
from angelos.core.facts import Fact, TaskAccepted, TaskCancelled, TaskResult, TaskStarted
from angelos.core.ids import CommandId, PrincipalId, TaskId, offset_key


def task_for(command: CommandId) -> TaskId:
    """Return the task of a command: the same command id is always the same task."""
    return TaskId(f"task-{command.removeprefix('cmd-')}")


def quarantine_reason(who: PrincipalId) -> str:
    """Return why control cancels what a quarantined principal asked for, or runs."""
    return f"{who} is quarantined"


def accepted(state: State, fact: Fact) -> State:
    """Take a task in; a second acceptance of the same command changes nothing."""
    task = TaskId(fact.subject)
    if task in state.tasks:
        return state
    data = fact.read(TaskAccepted)
    record = TaskRecord(
        id=task,
        command=data.command,
        request=data.request,
        by=fact.actor,
        on_behalf_of=fact.on_behalf_of,
        node=data.node,
        label=data.label,
        at=fact.at,
        offset=fact.offset,
        wall_s=data.wall_s,
        deadline=data.deadline,
        body=data.body,
        proposal=data.proposal,
    )
    return replace(state, tasks={**state.tasks, task: record})


def started(state: State, fact: Fact) -> State:
    """Note that the task's own node has started it."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or fact.actor != record.node:
        return state
    # A node that was enrolled anew counts from 1 again; what was said before still counts.
    attempt = max(fact.read(TaskStarted).attempt, record.attempt + 1)
    # The node's clock may be wrong either way: it started after it was asked to, and before
    # the journal was told.
    told = offset_key(fact.offset)[0] / 1000
    began = max(record.at, min(told, fact.at))
    return _with(state, record, state="running", started_at=began, attempt=attempt)


def cancelled(state: State, fact: Fact) -> State:
    """Note that somebody wants the task stopped."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or record.cancelled_at is not None:
        return state
    reason = fact.read(TaskCancelled).reason
    return _with(state, record, cancelled_at=fact.at, cancelled_by=fact.actor, cancel_reason=reason)


def finished(state: State, fact: Fact) -> State:
    """End the task with the first word of its own node, or of control; later words are noise."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open:
        return state
    if fact.actor != record.node and not fact.actor.startswith("system/"):
        return state
    ended = _with(state, record, state="finished", result=fact.read(TaskResult), body=b"")
    return replace(ended, tasks=_kept(ended))


# -- who says the end ------------------------------------------------------------------------
#
# Exactly one task.finished for each task. Its node says it, also of a task that was cancelled
# before the node had seen it. Control says it only for a node that cannot (quarantined) or that
# stayed silent for too long (`last_moment`). Both use the id `core.ids.fact_of(command)`, so the
# journal takes the first, and the hub takes no word on a task that has ended (`expected`).


def ended_by_node(state: State, task: TaskRecord) -> bool:
    """Tell whether a cancelled task's end is its node's to say."""
    node = state.nodes.get(task.node)
    return node is not None and not node.quarantined


def last_moment(state: State, task: TaskRecord, gone_s: float) -> float:
    """Return when a task should be over: by its limits, deadline or cancellation (Unix seconds).

    A node that is gone has `gone_s` seconds to come back; one that is there, or is back, has
    none to spare for a cancelled task.
    """
    moments = [task.deadline if task.started_at is None else task.started_at + task.wall_s]
    node = state.nodes.get(task.node)
    gone_at = node.gone_at if node is not None else None
    if task.cancelled_at is not None:
        back = node.since if node is not None and node.connected else 0.0
        moments.append(max(task.cancelled_at, back) if gone_at is None else
                       max(task.cancelled_at, gone_at) + gone_s)  # fmt: skip
    if task.started_at is None and gone_at is not None:
        moments.append(max(gone_at, task.at) + gone_s)
    return min(moments)


def expected(state: State, fact: Fact) -> bool:
    """Return whether a node's fact is accepted: of a task, only if it runs on that node."""
    if not fact.kind.startswith("task."):
        return True
    record = state.tasks.get(TaskId(fact.subject))
    return record is not None and record.open and record.node == fact.actor


def waits_for(state: State, task: TaskRecord) -> str:
    """Return why a task has not ended though somebody wants it to; empty if nobody does."""
    if not task.open or task.cancelled_at is None:
        return ""
    node = state.nodes.get(task.node)
    name = task.node.partition("/")[2]
    if node is not None and node.connected:
        return f"Cancelled ({task.cancel_reason}); {name} is ending it."
    return (
        f"Cancelled ({task.cancel_reason}); {name} is away: it ends when {name} is back, "
        "or has been away for too long."
    )


def _with(known: State, record: TaskRecord, **changes: object) -> State:
    changed = msgspec.structs.replace(record, **changes)
    return replace(known, tasks={**known.tasks, record.id: changed})


def _kept(state: State) -> dict[TaskId, TaskRecord]:
    """Return all open tasks and as many of the newest finished ones as the bounds allow.

    The steps of a proposal under test stay: how they ended is not decided on yet, and their
    commands are never accepted a second time.
    """
    tasks = state.tasks
    tested = {p.id for p in state.proposals.values() if p.state == "testing"}
    held = [
        (task, _size(record))
        for task, record in tasks.items()
        if not record.open and record.proposal not in tested
    ]
    count, size = len(held), sum(bytes_ for _, bytes_ in held)
    gone: set[TaskId] = set()
    for task, bytes_ in held:
        if count <= KEEP_TASKS and size <= KEEP_RESULT_BYTES:
            break
        gone.add(task)
        count, size = count - 1, size - bytes_
    return {task: record for task, record in tasks.items() if task not in gone} if gone else tasks


def _size(record: TaskRecord) -> int:
    result = record.result
    return len(result.stdout) + len(result.stderr) if result else 0
