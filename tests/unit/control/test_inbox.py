"""The inbox is a query by state with a cursor: all that wait are there, and counted."""

from __future__ import annotations

import pytest

from angelos.control.state.models import replace
from angelos.core.errors import NotFound
from angelos.core.ids import ProposalId
from tests.unit.control.test_queue import record


async def test_a_thousand_waiting_are_all_there_and_counted(world):
    async with world.running() as control:
        states = ("waiting", "promoted")
        records = [record(n, f"agent/a{n % 3}", state=states[n % 2]) for n in range(2_000)]
        proposals = {row.id: row for row in records}
        control.projection.state = replace(control.projection.state, proposals=proposals)
        found, after = [], ""
        while True:
            page = control.proposals.list("waiting", limit=300, after=after)
            assert page.total == 1_000
            found += [view.id for view in page.proposals]
            if not (after := page.next):
                break
        assert found == [row.id for row in reversed(records) if row.state == "waiting"]
        own = control.proposals.list("waiting", author="agent/a1", limit=1_000)
        assert own.total == len(own.proposals) == 333
        assert not own.next
        with pytest.raises(NotFound):
            control.proposals.list(after=ProposalId("prop-none"))
