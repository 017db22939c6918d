"""Both roads on a real Valkey, and a restart in the middle of them."""

from __future__ import annotations

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.core.api import SubmitTask
from angelos.core.facts import Kind
from angelos.core.messages import Status
from tests.unit.control.fakes import ADA, PERSON, World, edit


@pytest.fixture
def world(journal, queue):
    world = World(SystemClock())
    world.journal, world.queue = journal, queue
    return world


async def test_both_roads(world):
    async with world.running() as control:
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        task = await control.tasks.submit(PERSON, SubmitTask(code="print(1)"))
        task = await control.tasks.view(task.id, wait_s=20)
        assert task.result.status == Status.ok
        view = await control.proposals.propose(ADA, "study", edit())
        view = await control.proposals.view(view.id, wait_s=20)
        assert view.state == "promoted", view.reason
        await world.settled(
            lambda s: all(
                s.nodes[n.id].checkouts["study"].healthy == view.revision for n in (exec1, labs)
            )
        )


async def test_a_restart_resumes_what_was_open(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        task = await control.tasks.submit(PERSON, SubmitTask(code="print(1)"))
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(lambda s: sum(t.state == "running" for t in s.tasks.values()) == 3)
        held = list(node.ran)
    world.nodes.clear()
    async with world.running() as control:
        for run in held:
            await node.finish(run, Status.ok, "after the restart")
        await world.reaches(view.id, "promoted")
        task = await control.tasks.view(task.id, wait_s=20)
        assert task.result.stdout == "after the restart"
    assert len(await world.facts(Kind.task_accepted)) == 4
