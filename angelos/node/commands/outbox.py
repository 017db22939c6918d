"""Sends what a node has to say to the hub: facts about its commands, and acknowledgements."""

from __future__ import annotations

from typing import Any

from angelos.core.facts import FactPayload
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.ids import CommandId, PrincipalId
from angelos.core.messages import Command, encode
from angelos.core.ports import Channel, Clock
from angelos.node.commands.facts import FactOrigin


class Outbox:
    """Sends facts and acknowledgements of one node over its channel."""

    def __init__(self, actor: PrincipalId, channel: Channel, clock: Clock) -> None:
        self._actor = actor
        self._channel = channel
        self._clock = clock
        self._positions: dict[CommandId, str] = {}

    def dispatched(self, command: CommandId, dispatch: Dispatch) -> None:
        """Note where a command stands in the node's queue."""
        self._positions[command] = dispatch.position

    def origin(self, command: Command, of: CommandId | None = None) -> FactOrigin:
        """Return the origin of facts about `command`, or about command `of` in its trace."""
        return FactOrigin(self._actor, of or command.id, command.trace)

    async def report(
        self, origin: FactOrigin, payload: FactPayload, subject: str, **fields: Any
    ) -> None:
        """Send a fact; `fields` are those of `FactOrigin.fact`."""
        fact = origin.fact(self._clock.time(), payload, subject, **fields)
        await self._channel.send([FactReport(fact.id, encode(fact))])

    async def acknowledge(self, command: CommandId) -> None:
        """Tell the hub that a command must not be delivered again."""
        position = self._positions.pop(command, None)
        if position is not None:
            await self._channel.send([Settle((position,))])

    async def refuse(self, dispatch: Dispatch, reason: str) -> None:
        """Tell the hub that what it sent can never be carried out: it becomes a dead letter."""
        await self._channel.send([Settle((dispatch.position,), "refused", reason[:500])])
