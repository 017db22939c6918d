r"""Tasks: the first road from a request to its result.

    view = await tasks.submit(principal, SubmitTask(code="print(6 * 7)"))
    view = await tasks.view(view.id, wait_s=30)
    view.result.stdout        # "42\n"

A task is decided on once, here; its grant fits this payload on this node only. Its first fact
holds the whole command, so that it can be put again after a crash.
"""

from __future__ import annotations

import msgspec

from angelos.control.context import Parts, hash_id
from angelos.control.policy.engine import Decision, Request
from angelos.control.state.models import NodeRecord, TaskRecord
from angelos.control.state.tasks import task_for
from angelos.control.views import task_view
from angelos.core.api import SubmitTask, TaskState, TaskView
from angelos.core.errors import (
    Busy,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Unavailable,
)
from angelos.core.facts import TaskAccepted, TaskCancelled, TaskRefused
from angelos.core.grants import digest
from angelos.core.ids import (
    CommandId,
    PrincipalId,
    TaskId,
    is_id,
    is_revision,
    new_command_id,
)
from angelos.core.messages import RunTask, encode
from angelos.core.permissions import Principal

KEEP_OUTPUT = 2_000
"""Characters of each output in a list of tasks."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task comes from."""

    by: PrincipalId
    on_behalf_of: PrincipalId | None = None
    proposal: str = ""
    """The proposal of whose tests it is a step."""
    trace: str = ""


class Tasks:
    """Accepts, shows and cancels tasks."""

    def __init__(self, parts: Parts) -> None:
        """Share the plane's parts."""
        self._parts = parts
        self._ledger = parts.ledger

    # -- what the API asks -------------------------------------------------------------------

    async def submit(self, principal: Principal, body: SubmitTask, trace: str = "") -> TaskView:
        """Decide, grant, accept and queue a task.

        Raises `InvalidInput`, `Forbidden` (the fact task.refused is kept), `Unavailable` (no
        node), `NotFound` (node, repository or revision), `Busy`, and `Conflict` when the
        command id belongs to another request.
        """
        await self._check(body)
        command = body.command or new_command_id(int(self._parts.clock.time() * 1000))
        request = _request(principal.id, body)
        known = self._ledger.state.tasks.get(task_for(command))
        if known is None:
            node = self._node(body.node)
            try:
                decision = await self._decide(principal, body, node)
            except Forbidden as error:
                await self._refused(principal, command, error, trace)
                raise
            origin = Origin(by=principal.id, trace=trace)
            await self.accept(origin, command, body, node.id, decision)
        return self._view(self._same(command, request))

    async def view(self, task: TaskId, wait_s: float = 0.0) -> TaskView:
        """Return a task; with `wait_s`, wait up to that many seconds for its end."""
        self._record(task)
        if wait_s > 0:
            await self._ledger.until(
                lambda state: task not in state.tasks or not state.tasks[task].open,
                subject=task,
                timeout_s=min(wait_s, self._parts.config.max_wait_s),
            )
        return self._view(self._record(task))

    def list(self, state: TaskState | None = None, limit: int = 50) -> tuple[TaskView, ...]:
        """Return the newest tasks, newest first, with the ends of their outputs."""
        newest = reversed(self._ledger.state.tasks.values())
        chosen = [task for task in newest if state is None or task.state == state]
        return tuple(self._view(task, KEEP_OUTPUT) for task in chosen[:limit])

    async def cancel(
        self, principal: Principal, task: TaskId, reason: str, trace: str = ""
    ) -> TaskView:
        """Cancel a task of one's own, or with a reviewer's rights any; twice is once."""
        record = self._record(task)
        await self._parts.decide(
            principal,
            "cancel",
            ("Node", record.node),
            own=principal.id in (record.by, record.on_behalf_of),
        )
        if record.open and record.cancelled_at is None:
            why = reason or f"{principal.id} asked for it"
            await self._ledger.say(
                self._ledger.fact(TaskCancelled(reason=why), task, principal.id, trace=trace)
            )
        return self._view(self._record(task))

    # -- what the pipeline asks --------------------------------------------------------------

    async def accept(
        self,
        origin: Origin,
        command_id: CommandId,
        body: SubmitTask,
        node: PrincipalId,
        decision: Decision,
    ) -> None:
        """Sign the grant and say task.accepted; putting it into the queue follows from that."""
        state, config = self._ledger.state, self._parts.config
        if sum(task.open for task in state.tasks.values()) >= config.max_open_tasks:
            raise Busy(
                f"{config.max_open_tasks} tasks are open already; this one was not accepted.",
                hint="Try again when some have ended, or cancel some.",
            )
        task = task_for(command_id)
        deadline = self._parts.clock.time() + config.start_within_s
        command = self._parts.command(
            decision,
            origin.by,
            node,
            _payload(task, body),
            ttl_s=config.start_within_s,
            id=command_id,
            deadline=deadline,
            trace=origin.trace,
        )
        accepted = TaskAccepted(
            command=command_id,
            request=_request(origin.by, body),
            node=node,
            label=body.label,
            wall_s=body.limits.wall_s,
            deadline=deadline,
            proposal=origin.proposal,
            rule=",".join(decision.rules),
            policy=decision.policy,
            body=encode(command),
        )
        fact = self._ledger.fact(
            accepted,
            task,
            origin.by,
            key=hash_id(accepted.kind, command_id),
            on_behalf_of=origin.on_behalf_of,
            revision=body.revision,
            trace=origin.trace,
        )
        await self._ledger.say(fact)

    def least_busy(self) -> NodeRecord | None:
        """Return the connected execution node with the fewest open tasks, if there is one."""
        state = self._ledger.state
        load: dict[PrincipalId, int] = {
            node.id: 0
            for node in state.nodes.values()
            if node.role == "execution" and node.connected and not node.quarantined
        }
        for task in state.tasks.values():
            if task.open and task.node in load:
                load[task.node] += 1
        return state.nodes[min(load, key=lambda node: load[node])] if load else None

    def context(self, body: SubmitTask, node: NodeRecord) -> dict[str, bool | int | str]:
        """Return what the policy is told of a run."""
        limits = body.limits
        return {
            "code": bool(body.code),
            "guard": body.guard,
            "tier": node.tier.value,
            "unsandboxed": self._parts.config.allow_unsandboxed,
            "wall_ms": round(limits.wall_s * 1000),
            "cpu_ms": round(limits.cpu_s * 1000),
            "memory_mb": limits.memory_mb,
            "pids": limits.pids,
            "output_bytes": limits.output_bytes,
            "disk_mb": limits.disk_mb,
        }

    # -- helpers -----------------------------------------------------------------------------

    async def _check(self, body: SubmitTask) -> None:
        if bool(body.code) == bool(body.argv):
            raise InvalidInput("A task needs either code or argv, not both and not neither.")
        if bool(body.repo) != bool(body.revision):
            raise InvalidInput("A task in a checkout needs both repo and revision.")
        if body.command is not None and not (is_id(body.command) and body.command[:4] == "cmd-"):
            raise InvalidInput(
                f"{body.command[:80]!r} is no command id.", hint="Use cmd- and 32 hex digits."
            )
        if body.revision is not None:
            if not is_revision(body.revision):
                raise InvalidInput(f"{body.revision[:80]!r} is no revision.")
            await self._parts.repository.tree(body.repo, body.revision)

    def _node(self, name: str | None) -> NodeRecord:
        nodes = self._ledger.state.nodes
        if name is None:
            node = self.least_busy()
            if node is None:
                raise Unavailable(
                    "No execution node is connected; the task was not accepted.",
                    hint="`angelos node list` lists them, `angelos doctor` says what is amiss.",
                )
            return node
        node = nodes.get(PrincipalId(f"node/{name}"))
        if node is None:
            raise NotFound(f"There is no node {name!r}.", hint="`angelos node list` lists them.")
        if not node.connected and not node.quarantined:
            raise Unavailable(
                f"Node {name!r} is not connected; the task was not accepted.",
                hint="Leave the node out to have one chosen, or start it again.",
            )
        return node

    async def _decide(self, principal: Principal, body: SubmitTask, node: NodeRecord) -> Decision:
        context = self.context(body, node)
        refused = await self._parts.quarantined(principal.id, node.id)
        return self._parts.policy.decide(
            Request(
                principal=principal.id,
                role=principal.role,
                action="run",
                resource=("Node", node.id),
                context=context | {"pipeline": False, "quarantined": refused},
            )
        )

    async def _refused(
        self, principal: Principal, command: CommandId, error: Forbidden, trace: str
    ) -> None:
        rules = tuple(error.extra.get("rules", ()))
        fact = self._ledger.fact(
            TaskRefused(reason=error.detail, rules=rules),
            task_for(command),
            principal.id,
            outcome=error.code,
            trace=trace,
        )
        await self._ledger.say(fact)

    def _same(self, command: CommandId, request: str) -> TaskRecord:
        record = self._ledger.state.tasks.get(task_for(command))
        if record is None or record.request != request:
            raise Conflict(
                f"{command} was used for another task, or for one that ended long ago.",
                hint="Use a command id once for each task; the same request may repeat it.",
            )
        return record

    def _view(self, task: TaskRecord, output: int | None = None) -> TaskView:
        return task_view(self._ledger.state, task, output)

    def _record(self, task: TaskId) -> TaskRecord:
        record = self._ledger.state.tasks.get(task)
        if record is None:
            raise NotFound(
                f"There is no task {task}, or it ended longer ago than control remembers.",
                hint="Its facts are in the audit log: `angelos audit tail`.",
            )
        return record


def _payload(task: TaskId, body: SubmitTask) -> RunTask:
    return RunTask(
        task=task,
        language=body.language,
        code=body.code,
        argv=body.argv,
        stdin=body.stdin.encode(),
        repo=body.repo,
        revision=body.revision,
        limits=body.limits,
        guard=body.guard,
        label=body.label,
    )


def _request(by: PrincipalId, body: SubmitTask) -> str:
    """Return the SHA-256 of what somebody asks for, whatever its command id."""
    return digest(encode((by, msgspec.structs.replace(body, command=None))))
