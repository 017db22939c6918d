"""How the facts of a task change what is known of it.

>>> task_for(CommandId("cmd-" + "0" * 32))
'task-00000000000000000000000000000000'
"""

from __future__ import annotations

from typing import Any

import msgspec

from angelos.control.models import KEEP_RESULT_BYTES, KEEP_TASKS, State, TaskRecord, replace
from angelos.core.ids import CommandId, TaskId
from angelos.core.messages import Fact, TaskResult


def task_for(command: CommandId) -> TaskId:
    """Return the task of a command: the same command id is always the same task."""
    return TaskId(f"task-{command.removeprefix('cmd-')}")


def accepted(state: State, fact: Fact) -> State:
    """Take a task in; a second acceptance of the same command changes nothing."""
    task = TaskId(fact.subject)
    if task in state.tasks:
        return state
    data: dict[str, Any] = {
        **fact.data,
        "id": task,
        "by": fact.actor,
        "on_behalf_of": fact.on_behalf_of,
        "at": fact.at,
        "offset": fact.offset,
    }
    record = msgspec.convert(data, TaskRecord)
    return replace(state, tasks={**state.tasks, task: record})


def started(state: State, fact: Fact) -> State:
    """Note that the task's own node has started it."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or fact.actor != record.node:
        return state
    # The node's clock may lag; it cannot have started before it was asked to.
    return _with(state, record, state="running", started_at=max(fact.at, record.at))


def cancelled(state: State, fact: Fact) -> State:
    """Note that somebody wants the task stopped."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or record.cancelled_at is not None:
        return state
    reason = str(fact.data.get("reason", ""))
    return _with(state, record, cancelled_at=fact.at, cancel_reason=reason)


def finished(state: State, fact: Fact) -> State:
    """End the task with the first word of its own node, or of control; later words are noise."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open:
        return state
    if fact.actor != record.node and not fact.actor.startswith("system/"):
        return state
    result = msgspec.convert(fact.data, TaskResult)
    ended = _with(state, record, state="finished", result=result, body=b"")
    return replace(ended, tasks=_kept(ended.tasks))


def _with(known: State, record: TaskRecord, **changes: object) -> State:
    changed = msgspec.structs.replace(record, **changes)
    return replace(known, tasks={**known.tasks, record.id: changed})


def _kept(tasks: dict[TaskId, TaskRecord]) -> dict[TaskId, TaskRecord]:
    """Return all open tasks and as many of the newest finished ones as the bounds allow."""
    held = [(task, _size(record)) for task, record in tasks.items() if not record.open]
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
