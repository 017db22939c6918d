"""What a node says of its commands, as facts. Pure.

>>> from angelos.core.ids import new_command_id
>>> saying = Saying(PrincipalId("node/exec1"), new_command_id())
>>> one, two = (saying.fact(1.0, Kind.task_finished, "task-1", once=True) for _ in range(2))
>>> one.id == two.id
True
"""

from __future__ import annotations

from typing import Any, NamedTuple

from angelos.core.ids import CommandId, PrincipalId, Revision, fact_of, new_fact_id
from angelos.core.messages import Fact, Kind


class Saying(NamedTuple):
    """Who speaks, about which command."""

    actor: PrincipalId
    command: CommandId
    trace: str = ""

    def fact(
        self,
        at: float,
        kind: Kind,
        subject: str,
        *,
        outcome: str = "",
        revision: Revision | None = None,
        once: bool = False,
        **data: Any,
    ) -> Fact:
        """Return a fact; `once`: however often the command is carried out, it is one fact."""
        return Fact(
            id=fact_of(self.command, kind) if once else new_fact_id(),
            at=at,
            actor=self.actor,
            kind=kind,
            subject=subject,
            outcome=outcome,
            revision=revision,
            data=data,
            trace=self.trace,
        )
