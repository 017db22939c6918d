r"""Tasks: the road from a request to its result.

    view = await tasks.submit(principal, SubmitTask(code="print(6 * 7)"))
    view = await tasks.view(view.id, wait_s=30)
    view.result.stdout        # "42\n"

The policy decides on a task once, here; its grant is for this payload on this node only. Its first
fact holds the whole command, so that it can be queued again after a crash.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from angelos.control.context import ControlContext, hash_id
from angelos.control.state.models import ControlState, NodeRecord, TaskRecord
from angelos.control.state.pauses import paused
from angelos.control.state.tasks import recalled, state_of, task_for
from angelos.control.tasks.files import TaskFileService
from angelos.control.tasks.network import decide_network
from angelos.control.tasks.reading import OutputReaders
from angelos.control.views import task_view
from angelos.core.api import SubmitTask, TaskList, TaskState, TaskView
from angelos.core.errors import (
    Busy,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Unavailable,
)
from angelos.core.facts import TaskAccepted, TaskCancelled, TaskRefused, without_output
from angelos.core.grants import digest
from angelos.core.ids import (
    CommandId,
    PrincipalId,
    ProposalId,
    TaskId,
    is_id,
    is_revision,
    new_command_id,
    time_of,
)
from angelos.core.messages import Priority, RunTask, encode
from angelos.core.network import parse_rules
from angelos.core.permissions import Principal
from angelos.core.plans import CasePlan
from angelos.core.policy.engine import Decision, Request
from angelos.core.python_argv import readable
from angelos.core.requirements import check_requirements
from angelos.core.routes import Period
from angelos.core.sessions import check_patterns

_JUST_NOW_S = 60.0
KEEP_OUTPUT = 2_000
"""Characters of each output in a list of tasks."""


class TaskOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task comes from."""

    by: PrincipalId
    on_behalf_of: PrincipalId | None = None
    generation: int = 0
    """Of `by`."""
    proposal: str = ""
    """The proposal that this task tests, if any."""
    step: str = ""
    """Which step of its tests it is (`TaskAccepted.step`)."""
    cases: CasePlan | None = None
    """The cases that a runner asks for, in place of code or a command line."""
    trace: str = ""


class TaskQuery(NamedTuple):
    """Which tasks a list names; empty fields name all."""

    state: TaskState | None = None
    author: str = ""
    """Who started it, or on whose behalf."""
    node: str = ""
    repo: str = ""
    """Of the proposal that it tests."""
    period: Period = Period()
    after: str = ""
    """The last one of the page before."""

    def names(self, state: ControlState, task: TaskRecord) -> bool:
        """Return whether a task is one of these."""
        proposal = state.proposals.get(ProposalId(task.proposal))
        return (
            (self.state is None or state_of(state, task) == self.state)
            and self.author in {"", task.by, task.on_behalf_of}
            and self.node in {"", task.node}
            and self.repo in {"", proposal.repo if proposal else None}
            and task.at in self.period
        )


class TaskService:
    """Accepts, shows and cancels tasks."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._projection = context.projection
        self._readers = OutputReaders(context.projection, context.policy)
        self.files = TaskFileService(context)

    # -- for the API ------------------------------------------------------------------------

    async def submit(self, principal: Principal, body: SubmitTask, trace: str = "") -> TaskView:
        """Decide on, grant, accept and queue a task.

        Raises:
            InvalidInput: The request has the wrong form.
            Forbidden: The policy does not allow it; a fact `task.refused` is appended.
            Unavailable: No node is connected that could run it.
            NotFound: There is no such node, repository or revision.
            Busy: Too many tasks are open, of all or of its node.
            Conflict: The command id belongs to another request.
        """
        paths = await self._check(body)
        inputs = await self.files.resolved(body.inputs)
        network = tuple(str(rule) for rule in parse_rules(body.network))
        packages = check_requirements(body.packages)
        body = msgspec.structs.replace(body, inputs=inputs, network=network, packages=packages)
        command = body.command or new_command_id(int(self._context.clock.time() * 1000))
        request = _request(principal.id, body)
        if (earlier := await self._earlier(command)) is not None:
            return self._view(_repeated(earlier, command, request))
        if task_for(command) not in self._projection.state.tasks:
            node = self._node(body.node, body.language)
            try:
                decision = await self._decide(principal, body, node, paths)
            except Forbidden as error:
                await self._refused(principal, command, error, trace)
                raise
            self._check_node(node.id, body.priority)
            origin = TaskOrigin(by=principal.id, generation=principal.generation, trace=trace)
            await self.accept(origin, command, body, node.id, decision)
        return self._view(self._same(command, request))

    async def view(
        self, task: TaskId, wait_s: float = 0.0, reader: Principal | None = None
    ) -> TaskView:
        """Return a task; with `wait_s`, wait up to that many seconds for its end.

        A `reader` who may not read its output gets it without.
        """
        if task not in self._projection.state.tasks:
            return self._view(await self._forgotten(task), reader=reader)
        if wait_s > 0:
            await self._projection.until(
                lambda state: task not in state.tasks or not state.tasks[task].open,
                subject=task,
                timeout_s=min(wait_s, self._context.config.max_wait_s),
            )
        held = self._projection.state.tasks.get(task)
        return self._view(held or await self._forgotten(task), reader=reader)

    def list(
        self, query: TaskQuery | None = None, limit: int = 50, reader: Principal | None = None
    ) -> TaskList:
        """Return a page of tasks, newest first, each with the end of its output.

        Args:
            query: Which; by default all.
            limit: The most that the page holds.
            reader: Gets them without the output that they may not read.

        Raises:
            NotFound: There is no such task as the query goes on from.
        """
        query, now = query or TaskQuery(), self._projection.state
        if query.after and query.after not in now.tasks:
            raise NotFound(f"There is no task {query.after[:80]!r} to go on from.")
        chosen = [task for task in reversed(now.tasks.values()) if query.names(now, task)]
        older = chosen
        if query.after:
            order = {task: place for place, task in enumerate(now.tasks)}
            last = order[TaskId(query.after)]
            older = [task for task in chosen if order[task.id] < last]
        page = older[:limit]
        return TaskList(
            tasks=tuple(self._view(task, KEEP_OUTPUT, reader) for task in page),
            total=len(chosen),
            next=page[-1].id if len(older) > limit else "",
        )

    async def cancel(
        self, principal: Principal, task: TaskId, reason: str, trace: str = ""
    ) -> TaskView:
        """Cancel one's own task, or with a reviewer's rights any. Idempotent.

        Raises:
            Forbidden: The policy does not allow it.
            NotFound: There is no such task.
        """
        record = self._projection.state.tasks.get(task) or await self._forgotten(task)
        await self._context.decide(
            principal,
            "cancel",
            ("Node", record.node),
            own=principal.id in (record.by, record.on_behalf_of),
        )
        if record.open and record.cancelled_at is None:
            why = reason or f"{principal.id} asked for it"
            await self._projection.append(
                self._projection.fact(TaskCancelled(reason=why), task, principal.id, trace=trace)
            )
        return self._view(self._projection.state.tasks.get(task, record))

    # -- for the pipeline -------------------------------------------------------------------

    async def accept(
        self,
        origin: TaskOrigin,
        command_id: CommandId,
        body: SubmitTask,
        node: PrincipalId,
        decision: Decision,
    ) -> None:
        """Sign the grant and append `task.accepted`; queueing the command follows from that."""
        config = self._context.config
        self._check_room(config.max_open_tasks)
        task = task_for(command_id)
        deadline = self._context.clock.time() + config.start_within_s
        command = self._context.command(
            decision,
            origin.by,
            node,
            _payload(task, body, origin.cases),
            ttl_s=config.start_within_s,
            id=command_id,
            deadline=deadline,
            trace=origin.trace,
        )
        accepted = TaskAccepted(
            command=command_id,
            request=_request(origin.by, body, origin.cases),
            node=node,
            label=body.label,
            wall_s=body.limits.wall_s,
            deadline=deadline,
            proposal=origin.proposal,
            step=origin.step,
            rule=",".join(decision.rules),
            policy=decision.policy,
            generation=origin.generation,
            body=encode(command),
        )
        fact = self._projection.fact(
            accepted,
            task,
            origin.by,
            key=hash_id(accepted.kind, command_id),
            on_behalf_of=origin.on_behalf_of,
            revision=body.revision,
            trace=origin.trace,
        )
        await self._projection.append(fact)

    def _check_room(self, most: int) -> None:
        if sum(task.open for task in self._projection.state.tasks.values()) >= most:
            raise Busy(
                f"{most} tasks are open already; this one was not accepted.",
                hint="Try again when some have ended, or cancel some.",
            )

    def _check_node(self, node: PrincipalId, priority: Priority) -> None:
        """Refuse at the door what a full node would have to end later.

        For what waits in the background it is full when half of its places are taken.
        """
        config = self._context.config
        tasks = self._projection.state.tasks.values()
        most = config.max_open_per_node // (2 if priority == "background" else 1)
        if sum(task.open and task.node == node for task in tasks) >= most:
            raise Busy(
                f"{node} has {most} open tasks or more; this one was not accepted.",
                hint="Try again when some have ended, or name another node.",
                retry_after_s=config.full_retry_s,
            )

    def least_busy(self, language: str = "python") -> NodeRecord | None:
        """Return the connected execution node with the fewest open tasks, if there is one.

        Nodes that say that they have the language come first; the one that runs it finds out.
        """
        state = self._projection.state
        load: dict[PrincipalId, int] = {
            node.id: 0
            for node in state.nodes.values()
            if node.role == "execution" and node.connected and not node.quarantined
        }
        for task in state.tasks.values():
            if task.open and task.node in load:
                load[task.node] += 1
        ready = [node for node in load if language in state.nodes[node].profile.languages]
        return state.nodes[min(ready or load, key=lambda node: load[node])] if load else None

    def policy_context(self, body: SubmitTask, node: NodeRecord) -> dict[str, bool | int | str]:
        """Return the context of a run in which the policy decides."""
        return run_context(body, node, unsandboxed=self._context.config.allow_unsandboxed)

    # -- helpers -----------------------------------------------------------------------------

    async def _check(self, body: SubmitTask) -> frozenset[str] | None:
        """Refuse a request of the wrong form; return the paths of its checkout, if it has one."""
        if not body.code and not body.argv:
            raise InvalidInput("A task needs code or argv.")
        _check_language(body)
        if bool(body.repo) != bool(body.revision):
            raise InvalidInput("A task in a checkout needs both repo and revision.")
        if body.outputs:
            check_patterns(body.outputs)
        if body.command is not None and not (is_id(body.command) and body.command[:4] == "cmd-"):
            raise InvalidInput(
                f"{body.command[:80]!r} is no command id.", hint="Use cmd- and 32 hex digits."
            )
        if body.revision is not None:
            if not is_revision(body.revision):
                raise InvalidInput(f"{body.revision[:80]!r} is no revision.")
            tree = await self._context.repository.tree(body.repo, body.revision)
            paths = frozenset(entry.path for entry in tree)
            if body.lock and body.lock not in paths:
                raise NotFound(f"The checkout has no file {body.lock[:200]!r}.")
            return paths
        return None

    def _node(self, name: str | None, language: str) -> NodeRecord:
        nodes = self._projection.state.nodes
        if name is None:
            node = self.least_busy(language)
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

    async def _decide(
        self,
        principal: Principal,
        body: SubmitTask,
        node: NodeRecord,
        checkout: frozenset[str] | None,
    ) -> Decision:
        context = self.policy_context(body, node)
        if not body.code and body.language == "python":
            inputs = [file.path for file in body.inputs]
            context["readable"] = readable(body.argv, inputs, checkout)
        quarantined = await self._context.quarantined(principal.id, node.id)
        decision = self._context.policy.decide(
            Request(
                principal=principal.id,
                role=principal.role,
                action="run",
                resource=("Node", node.id),
                context=context
                | {
                    "pipeline": False,
                    "quarantined": quarantined,
                    "paused": paused(self._projection.state, principal.id) is not None,
                },
            )
        )
        listed, rules = self._context.config.network, parse_rules(body.network)
        return decide_network(self._context.policy, principal, rules, listed, decision)

    async def _refused(
        self, principal: Principal, command: CommandId, error: Forbidden, trace: str
    ) -> None:
        rules, network = (tuple(error.extra.get(name, ())) for name in ("rules", "network"))
        fact = self._projection.fact(
            TaskRefused(reason=error.detail, rules=rules, network=network),
            task_for(command),
            principal.id,
            outcome=error.code,
            trace=trace,
        )
        await self._projection.append(fact)

    def _same(self, command: CommandId, request: str) -> TaskRecord:
        return _repeated(self._projection.state.tasks.get(task_for(command)), command, request)

    async def _earlier(self, command: CommandId) -> TaskRecord | None:
        """Return the task of a command that control does not hold any more, if there was one.

        The journal itself keeps the first acceptance of each of its newest 65,536 ids, so only ids
        are looked up that were not made just now.
        """
        task = task_for(command)
        age = abs(self._context.clock.time() - time_of(command))
        if task in self._projection.state.tasks or age < _JUST_NOW_S:
            return None
        facts = await self._context.past(task)
        return recalled(self._projection.state, task, facts)

    def _view(
        self, task: TaskRecord, output: int | None = None, reader: Principal | None = None
    ) -> TaskView:
        view = task_view(self._projection.state, task, output)
        if reader is None or self._readers.may_read(reader, task):
            return view
        result = None if view.result is None else without_output(view.result)
        reported = None if view.reported is None else without_output(view.reported)
        return msgspec.structs.replace(view, result=result, reported=reported, hidden=True)

    async def _forgotten(self, task: TaskId) -> TaskRecord:
        """Return a task that has left the state, by its facts in the audit log."""
        facts = await self._context.past(task) if is_id(task) else ()
        record = recalled(self._projection.state, task, facts)
        if record is None:
            raise NotFound(f"There is no task {task[:80]}.", hint="`angelos task list` lists them.")
        return record


def _check_language(body: SubmitTask) -> None:
    """Refuse what only Python has, or has not."""
    if body.language == "python" and body.action != "run":
        raise InvalidInput("Python has no `check` and `test`: run `python -m pytest` by argv.")
    if body.language != "python" and (body.packages or body.lock):
        raise InvalidInput("Packages are of Python; other languages have their project files.")
    if body.lock and body.revision is None:
        raise InvalidInput("A lock file is one of a checkout: name repo and revision.")


def _repeated(record: TaskRecord | None, command: CommandId, request: str) -> TaskRecord:
    """Return the task of a command if it was asked for by the same request."""
    if record is None or record.request != request:
        raise Conflict(
            f"{command} was used for another task.",
            hint="Use a command id once for each task; the same request may repeat it.",
        )
    return record


def _payload(task: TaskId, body: SubmitTask, cases: CasePlan | None) -> RunTask:
    return RunTask(
        task=task,
        language=body.language,
        action=body.action,
        code=body.code,
        argv=body.argv,
        stdin=body.stdin.encode(),
        repo=body.repo,
        revision=body.revision,
        limits=body.limits,
        guard=body.guard,
        label=body.label,
        cases=cases,
        inputs=body.inputs,
        outputs=body.outputs,
        priority=body.priority,
        network=body.network,
        packages=body.packages,
        lock=body.lock,
    )


def _request(by: PrincipalId, body: SubmitTask, cases: CasePlan | None = None) -> str:
    """Return the SHA-256 of a request, its command id left out."""
    request = msgspec.structs.replace(body, command=None)
    return digest(encode((by, request, cases) if cases is not None else (by, request)))


def run_context(
    body: SubmitTask, node: NodeRecord, *, unsandboxed: bool
) -> dict[str, bool | int | str]:
    """Return the context in which the policy decides on a run; `unsandboxed` is the operator's."""
    limits = body.limits
    return {
        "code": bool(body.code),
        "guard": body.guard,
        "readable": True,
        "labs": node.role == "labs",
        "tier": node.tier.value,
        "unsandboxed": unsandboxed,
        "wall_ms": round(limits.wall_s * 1000),
        "cpu_ms": round(limits.cpu_s * 1000),
        "memory_mb": limits.memory_mb,
        "pids": limits.pids,
        "output_bytes": limits.output_bytes,
        "disk_mb": limits.disk_mb,
    }
