"""The steps of a candidate's tests as tasks: stopped, lost, tried again, remembered."""

from __future__ import annotations

import pytest

from angelos.control.state import tasks
from angelos.core.api import SubmitTask
from angelos.core.facts import Kind
from angelos.core.messages import Status
from tests.unit.control.fakes import ADA, PERSON, edit


async def test_the_first_failure_stops_the_other_steps(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda t: None if t.label.endswith("unit") else (Status.error, "no\n")
        view = await control.proposals.propose(ADA, "study", edit())
        view = await control.proposals.view(view.id, wait_s=10)
        assert {s.name: s.status for s in view.steps} == {"unit": "killed", "static": "error"}
        await world.settled(lambda s: not any(t.open for t in s.tasks.values()))
        assert len(node.cancelled) == 1


async def test_a_step_is_tried_again_when_its_node_died(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda t: None if t.label.endswith("unit") else (Status.ok, "")
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(
            lambda s: (
                len(s.tasks) > 1
                and [(t.label, t.state) for t in s.tasks.values() if t.open]
                == [("study: unit", "running")]
            )
        )
        await node.disconnect()
        other = await world.node("exec2")
        world.clock.advance(10_000)
        control.sweep()
        assert (await world.reaches(view.id, "promoted", "rejected")).state == "promoted"
        assert [t.label for t in other.ran] == ["study: unit"]


@pytest.mark.parametrize("quarantined", [True, False])
async def test_a_step_is_tried_again_for_its_node_not_for_what_its_author_says(world, quarantined):
    async with world.running() as control:
        node, other = await world.node("exec1"), await world.node("exec2")
        node.program = other.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(
            lambda s: (
                [t.state for t in s.tasks.values() if "(main" not in t.label] == ["running"] * 2
            )
        )
        if not any(t.label.endswith("unit") for t in node.ran):
            node, other = other, node
        unit = next(t for t in node.ran if t.label.endswith("unit"))
        if quarantined:
            await node.say(Kind.principal_quarantined, node.id, data={"reason": "rogue"})
            await world.settled(
                lambda s: (
                    [t.node for t in s.tasks.values() if t.label.endswith("unit")]
                    == [node.id, other.id]
                )
            )
        else:
            # An agent may cancel what runs on its behalf, for any reason that it likes to give.
            await node.stop()
            await control.tasks.cancel(ADA, unit.task, f"{node.id} is quarantined")
            await node.finish(unit, Status.killed, source="node")
            await world.reaches(view.id, "rejected")


async def test_many_tasks_of_others_do_not_push_a_finished_step_out(world, monkeypatch):
    """What is forgotten cannot be run again: the proposal would never be decided on."""
    monkeypatch.setattr(tasks, "KEEP_TASKS", 3)
    async with world.running() as control:
        node = await world.node()
        node.program = lambda t: None if t.label.endswith("unit") else (Status.ok, "")
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(lambda s: [t.open for t in s.tasks.values()] == [True, False, False])
        for _ in range(5):
            other = await control.tasks.submit(PERSON, SubmitTask(code="1"))
            await control.tasks.view(other.id, wait_s=10)
        unit = next(t for t in node.ran if t.label.endswith("unit"))
        await node.finish(unit, Status.ok)
        view = await control.proposals.view(view.id, wait_s=10)
        assert view.state == "promoted", view.reason
        assert [step.status for step in view.steps] == ["ok", "ok"]


async def test_steps_wait_for_a_node(world):
    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(view.id, "testing")
        await world.node()
        await world.reaches(view.id, "promoted")
