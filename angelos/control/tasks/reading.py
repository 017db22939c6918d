"""Who may read what a task printed: the policy says, for views of tasks and streams of facts alike.

readers = OutputReaders(projection, policy)
readers.shown(fact, principal)       # the fact, without the output if it is not theirs to read
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from angelos.core.facts import EMPTY, Fact, Kind, TaskOutput, TaskResult, without_output
from angelos.core.ids import TaskId
from angelos.core.messages import encode
from angelos.core.policy.engine import Policy, Request

if TYPE_CHECKING:
    from angelos.control.projection import Projection
    from angelos.control.state.models import TaskRecord
    from angelos.core.permissions import Principal

_HOLDS_OUTPUT = frozenset({Kind.task_output, Kind.task_finished, Kind.task_reported})


class OutputReaders:
    """Decides who reads the output of which task."""

    def __init__(self, projection: Projection, policy: Policy) -> None:
        self._projection = projection
        self._policy = policy

    def may_read(self, principal: Principal, record: TaskRecord | None) -> bool:
        """Return whether a principal may read a task's output.

        A task that control no longer remembers is nobody's own.
        """
        own = record is not None and principal.id in (record.by, record.on_behalf_of)
        return self._policy.ask(
            Request(
                principal=principal.id,
                role=principal.role,
                action="read_output",
                resource=("Node", record.node if record is not None else "node/unknown"),
                context={"own": own},
            )
        ).allowed

    def shown(self, fact: Fact, principal: Principal) -> Fact:
        """Return a fact as a principal may read it: without output that is not theirs to read."""
        if fact.kind not in _HOLDS_OUTPUT:
            return fact
        record = self._projection.state.tasks.get(TaskId(fact.subject))
        if self.may_read(principal, record):
            return fact
        match fact.payload():
            case TaskOutput() as output:
                data = encode(msgspec.structs.replace(output, text="", raw=""))
            case TaskResult() as result:  # TaskReported, too
                data = encode(without_output(result))
            case _:
                data = EMPTY
        return msgspec.structs.replace(fact, data=data)
