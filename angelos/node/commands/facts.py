"""Builds the facts that a node reports about its commands. Pure.

>>> from angelos.core.facts import TaskOutput
>>> from angelos.core.ids import new_command_id
>>> origin = FactOrigin(PrincipalId("node/exec1"), new_command_id())
>>> output = TaskOutput(stream="stdout", text="hi")
>>> one, two = (origin.fact(1.0, output, "task-1", once=True) for _ in range(2))
>>> one.id == two.id
True
"""

from __future__ import annotations

from typing import NamedTuple

from angelos.core.errors import AngelError, Unavailable
from angelos.core.facts import Fact, FactPayload
from angelos.core.ids import CommandId, PrincipalId, Revision, fact_of, new_fact_id


class FactOrigin(NamedTuple):
    """The node that reports, and the command that it reports about."""

    actor: PrincipalId
    command: CommandId
    trace: str = ""

    def fact(
        self,
        at: float,
        payload: FactPayload,
        subject: str,
        *,
        outcome: str = "",
        revision: Revision | None = None,
        once: bool = False,
    ) -> Fact:
        """Return a fact about the command.

        With `once`, its id follows from the command and the kind, so that a command that is
        carried out twice still reports one fact, which the journal keeps once.
        """
        return Fact.of(
            payload,
            id=fact_of(self.command, payload.kind) if once else new_fact_id(),
            at=at,
            actor=self.actor,
            subject=subject,
            outcome=outcome,
            revision=revision,
            trace=self.trace,
        )


def code_of(error: Exception) -> str:
    """Return the code that is reported for an error; a full disk may have room again later."""
    if isinstance(error, OSError):
        return Unavailable.code
    return error.code if isinstance(error, AngelError) else AngelError.code
