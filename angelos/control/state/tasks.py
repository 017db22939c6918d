"""How facts change the state of tasks.

>>> task_for(CommandId("cmd-" + "0" * 32))
'task-00000000000000000000000000000000'
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec

from angelos.control.state.models import (
    KEEP_RESULT_BYTES,
    KEEP_TASKS,
    ControlState,
    TaskRecord,
    replace,
)
from angelos.core.api import TaskState
from angelos.core.facts import (
    Fact,
    Kind,
    OutputsExpired,
    TaskAccepted,
    TaskCancelled,
    TaskReported,
    TaskResult,
    TaskStarted,
    without_output,
)
from angelos.core.ids import CommandId, FactId, TaskId, fact_of, offset_key

_CASE_BYTES = 300


def task_for(command: CommandId) -> TaskId:
    """Return the task of a command; a command id belongs to one task."""
    return TaskId(f"task-{command.removeprefix('cmd-')}")


def accepted(state: ControlState, fact: Fact) -> ControlState:
    """Record a new task; a second acceptance of the same command changes nothing."""
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
        generation=data.generation,
        wall_s=data.wall_s,
        deadline=data.deadline,
        body=data.body,
        proposal=data.proposal,
        step=data.step,
    )
    return replace(state, tasks={**state.tasks, task: record})


def started(state: ControlState, fact: Fact) -> ControlState:
    """Record that the task's own node has started it."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or fact.actor != record.node:
        return state
    # A node that was enrolled again counts from 1; the attempts before still count.
    attempt = max(fact.read(TaskStarted).attempt, record.attempt + 1)
    # The node's clock may be wrong either way. The task started after it was accepted, and before
    # the journal had the fact.
    appended_at = offset_key(fact.offset)[0] / 1000
    started_at = max(record.at, min(appended_at, fact.at))
    return _with(state, record, state="running", started_at=started_at, attempt=attempt)


def cancelled(state: ControlState, fact: Fact) -> ControlState:
    """Record that the task is cancelled."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open or record.cancelled_at is not None:
        return state
    cancelled = fact.read(TaskCancelled)
    return _with(
        state,
        record,
        cancelled_at=fact.at,
        cancel_reason=cancelled.reason,
        cancel_cause=cancelled.cause,
    )


def finished(state: ControlState, fact: Fact) -> ControlState:
    """End the task with the first report of its node, or of control; later ones are ignored."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.open:
        return state
    if fact.actor != record.node and not fact.actor.startswith("system/"):
        return state
    ended = _with(
        state,
        record,
        state="finished",
        result=fact.read(TaskResult),
        given_up=fact.actor != record.node,
        ended=fact.offset,
        body=b"",
    )
    return replace(ended, tasks=_kept(ended))


def reported(state: ControlState, fact: Fact) -> ControlState:
    """Record how a task that was given up really ended; the first report counts."""
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or not record.given_up or record.reported is not None:
        return state
    if fact.actor != record.node:
        return state
    changed = _with(state, record, reported=fact.read(TaskReported), ended=fact.offset)
    return replace(changed, tasks=_kept(changed))


def expired(state: ControlState, fact: Fact) -> ControlState:
    """Drop the outputs of tasks that ended long ago; a verdict may rest on those of proposals."""
    upto = max(state.outputs_expired, fact.read(OutputsExpired).upto, key=offset_key)
    state = replace(state, outputs_expired=upto)
    return replace(state, tasks={t: without_expired(state, r) for t, r in state.tasks.items()})


def without_expired(state: ControlState, record: TaskRecord) -> TaskRecord:
    """Return a task without its output, if that is expired."""
    upto = offset_key(state.outputs_expired)
    if record.open or record.proposal or offset_key(record.ended) > upto:
        return record
    return msgspec.structs.replace(
        record,
        result=record.result and without_output(record.result),
        reported=record.reported and without_output(record.reported),
        expired=True,
    )


def recalled(now: ControlState, task: TaskId, facts: Iterable[Fact]) -> TaskRecord | None:
    """Return a task by its own facts alone, for one that the state does not hold any more."""
    state = ControlState()
    for fact in facts:
        if fact.kind in _OWN:
            state = _OWN[fact.kind](state, fact)
    record = state.tasks.get(task)
    return record and without_expired(now, record)


_OWN: dict[str, Callable[[ControlState, Fact], ControlState]] = {
    Kind.task_accepted: accepted,
    Kind.task_started: started,
    Kind.task_cancelled: cancelled,
    Kind.task_finished: finished,
    Kind.task_reported: reported,
}


# -- who reports the end ---------------------------------------------------------------------
#
# There is exactly one task.finished for each task. Its node reports it, also for a task that was
# cancelled before the node had seen it. Control reports it only for a node that cannot
# (quarantined) or that stayed silent for too long (`last_moment`). Both use the same id
# (`core.ids.fact_of(command)`), so the journal keeps the first. What a node reports on a task that
# control has ended is written down beside that, as task.reported (`admitted`).


def ended_by_node(state: ControlState, task: TaskRecord) -> bool:
    """Return whether the node reports the end of a cancelled task."""
    node = state.nodes.get(task.node)
    return node is not None and not node.quarantined


def last_moment(state: ControlState, task: TaskRecord, gone_s: float) -> float:
    """Return when a task times out, by its limits, deadline or cancellation (Unix seconds).

    A node that is away has `gone_s` seconds to come back. One that is connected has no further
    time for a cancelled task.
    """
    moments = [task.deadline if task.started_at is None else task.started_at + task.wall_s]
    node = state.nodes.get(task.node)
    gone_at = node.gone_at if node is not None else None
    if task.cancelled_at is not None:
        back = node.since if node is not None and node.connected else 0.0
        if gone_at is None:
            moments.append(max(task.cancelled_at, back))
        else:
            moments.append(max(task.cancelled_at, gone_at) + gone_s)
    if task.started_at is None and gone_at is not None:
        moments.append(max(gone_at, task.at) + gone_s)
    return min(moments)


def admitted(state: ControlState, fact: Fact) -> Fact | None:
    """Return what is written down for a node's fact: of a task, only if it runs on that node.

    The end of a task that control has given up becomes the fact that says so.
    """
    if not fact.kind.startswith("task."):
        return _bound(fact)
    record = state.tasks.get(TaskId(fact.subject))
    if record is None or record.node != fact.actor:
        return None
    if record.open:
        return fact if fact.id == fact_of(record.command, fact.kind) else _bound(fact)
    if fact.kind != Kind.task_finished or not record.given_up or record.reported is not None:
        return None
    one = fact_of(record.command, Kind.task_reported)
    return msgspec.structs.replace(fact, kind=Kind.task_reported, id=one)


def _bound(fact: Fact) -> Fact:
    """Return a fact whose id is its author's alone, whatever id it came with; repeated, the same.

    The journal keeps the first fact of an id, so nobody may take the id of another's.
    """
    digest = hashlib.sha256(f"{fact.actor}\0{fact.id}".encode()).hexdigest()
    return msgspec.structs.replace(fact, id=FactId(f"fact-{digest[:32]}"))


def is_cut_off(state: ControlState, task: TaskRecord) -> bool:
    """Return whether a task was started by a node that is away: nobody knows how it is."""
    node = state.nodes.get(task.node)
    return task.state == "running" and (node is None or not node.connected)


def state_of(state: ControlState, task: TaskRecord) -> TaskState:
    """Return the word for how a task is."""
    return "cut-off" if is_cut_off(state, task) else task.state


def waits_for(state: ControlState, task: TaskRecord) -> str:
    """Return why a task has not ended that is cancelled or cut off, else nothing."""
    if not task.open:
        return ""
    node = state.nodes.get(task.node)
    name = task.node.partition("/")[2]
    if task.cancelled_at is None:
        if not is_cut_off(state, task):
            return ""
        return (
            f"{name} was cut off while it ran this; its report counts when it is back in time, and "
            "is recorded when it is late."
        )
    if node is not None and node.connected:
        return f"Cancelled ({task.cancel_reason}); {name} is ending it."
    return (
        f"Cancelled ({task.cancel_reason}); {name} is away: it ends when {name} is back, "
        "or has been away for too long."
    )


def _with(state: ControlState, record: TaskRecord, /, **changes: object) -> ControlState:
    changed = msgspec.structs.replace(record, **changes)
    return replace(state, tasks={**state.tasks, record.id: changed})


def _kept(state: ControlState) -> dict[TaskId, TaskRecord]:
    """Return all open tasks and as many of the newest finished ones as the bounds allow.

    The steps of a proposal under test stay: there is no verdict on them yet, and their commands
    must not be accepted a second time.
    """
    tasks = state.tasks
    tested = {p.id for p in state.proposals.values() if p.state == "testing"}
    held = [
        (task, _size(record))
        for task, record in tasks.items()
        if not record.open and record.proposal not in tested
    ]
    count, size = len(held), sum(bytes_ for _, bytes_ in held)
    dropped: set[TaskId] = set()
    for task, bytes_ in held:
        if count <= KEEP_TASKS and size <= KEEP_RESULT_BYTES:
            break
        dropped.add(task)
        count, size = count - 1, size - bytes_
    return {task: record for task, record in tasks.items() if task not in dropped}


def _size(record: TaskRecord) -> int:
    return sum(_result_size(result) for result in (record.result, record.reported) if result)


def _result_size(result: TaskResult) -> int:
    cases = len(result.report.cases) if result.report else 0
    return len(result.stdout) + len(result.stderr) + cases * _CASE_BYTES
