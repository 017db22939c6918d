"""How busy the connected nodes are: the last `node.load` of each, in memory only.

A measurement is worth nothing a minute later, so it is no entry of the journal: the journal would
grow while nothing happens. Each hub has those of the nodes that are connected to it.

    loads = NodeLoads(clock)
    loads.note(fact)
    loads.current()             # {"node/exec1": (1700000000.0, NodeLoad(cpu=0.4, ...))}
"""

from __future__ import annotations

from typing import NamedTuple

from angelos.core.facts import Fact, Kind, NodeLoad
from angelos.core.ids import Offset, PrincipalId
from angelos.core.ports import Admission, Clock

FRESH_S = 30.0
"""A node that has reported nothing for so long is not shown any more."""


class Measured(NamedTuple):
    """A node's last measurement."""

    at: float
    """Unix seconds, by the hub's clock."""
    load: NodeLoad


class NodeLoads:
    """The last measurement of each node; there are never more than connected nodes and a few.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[PrincipalId, tuple[float, Measured]] = {}

    def note(self, fact: Fact) -> None:
        """Keep a measurement; one that cannot be read is dropped."""
        payload = fact.payload()
        if isinstance(payload, NodeLoad):
            measured = Measured(self._clock.time(), payload)
            self._last[fact.actor] = (self._clock.monotonic(), measured)

    def current(self) -> dict[PrincipalId, Measured]:
        """Return the fresh measurements, and forget the rest."""
        oldest = self._clock.monotonic() - FRESH_S
        self._last = {node: row for node, row in self._last.items() if row[0] >= oldest}
        return {node: measured for node, (_, measured) in self._last.items()}


class MeasuredAdmission:
    """An `Admission` that takes measurements out of what is to be written down.

    Args:
        admission: Decides on all that is no measurement.
        loads: Takes the measurements.
    """

    def __init__(self, admission: Admission, loads: NodeLoads) -> None:
        self._admission = admission
        self._loads = loads

    def admitted(self, fact: Fact) -> Fact | None:
        """Return what is written into the journal for a peer's fact."""
        if fact.kind == Kind.node_load:
            self._loads.note(fact)
            return None
        return self._admission.admitted(fact)

    def folds(self, kind: str) -> bool:
        """Return whether control folds facts of this kind."""
        return self._admission.folds(kind)

    async def folded(self, offset: Offset) -> None:
        """Return when control has folded the fact at `offset`."""
        await self._admission.folded(offset)

    async def catch_up(self) -> None:
        """Return when all that the journal has is known."""
        await self._admission.catch_up()
