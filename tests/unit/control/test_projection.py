"""Who waits for the fold goes on when it has come so far, in the order of the journal."""

from __future__ import annotations

import asyncio

from angelos.control.config import ControlConfig
from angelos.control.projection import Projection
from angelos.core.facts import Kind
from angelos.testing import ManualClock, MemoryJournal, make_fact


def refusals(count):
    return [make_fact(Kind.task_refused, f"task-{n}", data={"reason": "no"}) for n in range(count)]


async def test_a_writer_goes_on_when_its_fact_is_folded():
    journal = MemoryJournal()
    projection = Projection(journal, ManualClock(), ControlConfig())
    assert projection.folds(Kind.task_refused)
    assert not projection.folds(Kind.task_output)
    offsets = await journal.append(refusals(5))
    order = []

    async def wait(number):
        await projection.folded(offsets[number])
        order.append(number)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in (4, 0, 2):
            group.create_task(wait(number))
        left = group.create_task(wait(1))
        await asyncio.sleep(0)
        assert order == []
        left.cancel()  # whoever leaves holds nobody up
        following = asyncio.create_task(projection.follow(lambda _: None))
        await projection.folded(offsets[4])
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert sorted(order) == [0, 2, 4]
    await projection.folded(offsets[3])  # at once
