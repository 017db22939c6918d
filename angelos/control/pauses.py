"""Pauses agents, one or all, and lets them go on; their certificates stay as they are.

    await pauses.pause(olga, PrincipalId("agent/ada"), "It writes nonsense.")
    await pauses.resume(olga, PrincipalId("agent/ada"))

A pause is a fact; every node hears of it, also one that connects later, and stops the boxes that
run for the agent where they are. What was not started does not start before.
"""

from __future__ import annotations

from angelos.control.context import ControlContext, hash_id
from angelos.control.state.effects import PauseAgent, SetPause
from angelos.control.state.pauses import paused
from angelos.core.errors import InvalidInput
from angelos.core.facts import PauseCause, PrincipalPaused, PrincipalResumed
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.messages import PauseTasks
from angelos.core.permissions import ALL_AGENTS, Principal


class Pauses:
    """What people ask for, and the handlers of what follows."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._projection = context.projection

    async def pause(self, by: Principal, agent: PrincipalId, reason: str, trace: str = "") -> None:
        """Pause an agent, or all (`ALL_AGENTS`); a second time does nothing.

        Raises:
            InvalidInput: It is no agent.
        """
        _check(agent)
        record = self._projection.state.pauses.get(agent)
        if record is None or not record.paused:
            why = reason or f"{by.id} asked for it"
            fact = PrincipalPaused(reason=why)
            await self._projection.append(self._projection.fact(fact, agent, by.id, trace=trace))

    async def resume(self, by: Principal, agent: PrincipalId, reason: str, trace: str = "") -> None:
        """Let an agent, or all, go on; a second time does nothing.

        Raises:
            InvalidInput: It is no agent.
        """
        _check(agent)
        record = self._projection.state.pauses.get(agent)
        if record is not None and record.paused:
            fact = PrincipalResumed(reason=reason)
            await self._projection.append(self._projection.fact(fact, agent, by.id, trace=trace))

    async def ask(self, effect: PauseAgent) -> None:
        """Pause an agent that has used up its budget."""
        if paused(self._projection.state, effect.agent) is None:
            fact = PrincipalPaused(reason=effect.reason, cause=PauseCause.budget)
            await self._projection.append(self._projection.fact(fact, effect.agent))

    async def tell(self, effect: SetPause) -> None:
        """Have a node pause or resume what runs for a principal."""
        record = self._projection.state.pauses.get(effect.principal)
        if record is None or record.fact != effect.fact:
            return  # something later was decided
        since = self._projection.state.nodes[effect.node].since
        await self._context.command_node(
            "pause",
            effect.node,
            PauseTasks(principal=effect.principal, paused=effect.paused),
            key=hash_id("pause", effect.fact, effect.node, str(since)),
        )


def _check(agent: PrincipalId) -> None:
    if agent != ALL_AGENTS and not (is_principal(agent) and agent.startswith("agent/")):
        raise InvalidInput(f"{agent[:80]!r} is no agent.", hint="Only agents can be paused.")
