"""Pause, resume, the switch for all agents, and budgets that pause and ask."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.state.pauses import AgentBudget, BudgetConfig
from angelos.core.api import SubmitTask
from angelos.core.errors import Forbidden, InvalidInput
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.messages import PauseTasks, Status
from angelos.core.permissions import ALL_AGENTS
from tests.unit.control.fakes import ADA, OPERATOR, PERSON, World, edit

RUN = SubmitTask(code="print(1)", guard=True)


async def test_a_pause_reaches_each_node_and_nothing_starts_until_it_is_over(world):
    async with world.running() as control:
        node = await world.node(program=lambda _: None)
        task = await control.tasks.submit(ADA, RUN)
        await world.settled(lambda s: s.tasks[task.id].state == "running")
        await control.pauses.pause(OPERATOR, ADA.id, "It writes nonsense.")
        await control.pauses.pause(OPERATOR, ADA.id, "It writes nonsense.")
        late = await world.node("exec2")
        for one in (node, late):
            await world.settled(lambda _, one=one: one.pauses)
            assert one.pauses == [PauseTasks(principal=ADA.id, paused=True)]
        with pytest.raises(Forbidden, match="pause"):
            await control.tasks.submit(ADA, RUN)
        with pytest.raises(Forbidden, match="pause"):
            await control.proposals.propose(ADA, "study", edit())
        assert "agent resume ada" in (await control.status()).banner
        world.clock.advance(10_000)
        control.sweep()
        assert control.projection.state.tasks[task.id].open, "time stands still for it"
        await control.pauses.resume(OPERATOR, ADA.id, "")
        await world.settled(lambda _: node.pauses[-1] == PauseTasks(principal=ADA.id, paused=False))
        control.sweep()
        assert control.projection.state.tasks[task.id].open, "it has the time that it had left"
        await node.finish(node.ran[0], Status.ok)
        await world.settled(lambda s: not s.tasks[task.id].open)
        await control.tasks.submit(ADA, RUN)
    assert len(await world.facts(Kind.principal_paused)) == 1


async def test_one_switch_for_all_agents_leaves_people_alone(world):
    async with world.running() as control:
        node = await world.node()
        await control.pauses.pause(OPERATOR, ALL_AGENTS, "")
        await world.settled(lambda _: node.pauses)
        with pytest.raises(Forbidden):
            await control.tasks.submit(ADA, RUN)
        await control.tasks.submit(PERSON, RUN)
        await control.pauses.pause(OPERATOR, ADA.id, "")
        await control.pauses.resume(OPERATOR, ALL_AGENTS, "")
        with pytest.raises(Forbidden):
            await control.tasks.submit(ADA, RUN)
        with pytest.raises(InvalidInput):
            await control.pauses.pause(OPERATOR, PrincipalId("person/pat"), "")


async def test_a_restart_tells_the_nodes_again(world):
    async with world.running() as control:
        await control.pauses.pause(OPERATOR, ADA.id, "")
    async with world.running():
        node = await world.node()
        await world.settled(lambda _: node.pauses == [PauseTasks(principal=ADA.id, paused=True)])


@pytest.mark.parametrize(
    ("budget", "word"),
    [
        (AgentBudget(tasks=2), "2 of 2 tasks"),
        (AgentBudget(cpu_s=10), "12 of 10 CPU-seconds"),
        (AgentBudget(memory_gb_s=0.5), "gigabyte-seconds"),
        (AgentBudget(wall_s=0.15), "seconds of running"),
        (AgentBudget(proposals=1), "1 of 1 proposals"),
    ],
    ids=["tasks", "cpu", "memory", "wall", "proposals"],
)
async def test_a_spent_budget_pauses_and_asks_and_begins_anew(clock, budget, word):
    world = World(clock, budgets=BudgetConfig(every=budget))
    async with world.running() as control:
        node = await world.node(program=lambda _: None)
        control.sweep()
        if budget.proposals:
            await control.proposals.propose(ADA, "study", edit())
        for _ in range(2):
            task = await control.tasks.submit(ADA, RUN)
            await world.settled(lambda s, t=task.id: s.tasks[t].state == "running")
            used = {"source": "kernel", "cpu_s": 6.0, "memory_bytes": 3_000_000_000}
            run = next(run for run in node.ran if run.task == task.id)
            await node.finish(run, Status.ok, "", **used)
            await world.settled(lambda s, t=task.id: not s.tasks[t].open)
        control.sweep()
        await world.settled(lambda s: ADA.id in s.pauses)
        record = control.projection.state.pauses[ADA.id]
        assert (record.cause, word in record.reason) == ("budget", True), record.reason
        world.clock.advance(1)
        await control.pauses.resume(OPERATOR, ADA.id, "")
        control.sweep()
        await control.tasks.submit(ADA, RUN)
        assert not control.projection.state.pauses[ADA.id].paused


async def test_a_budget_is_of_the_last_hour(clock):
    world = World(clock, budgets=BudgetConfig(every=AgentBudget(tasks=2)))
    async with world.running() as control:
        await world.node()
        for _ in range(2):
            task = await control.tasks.submit(ADA, RUN)
            await world.settled(lambda s, t=task.id: not s.tasks[t].open)
            world.clock.advance(3_700)
        control.sweep()
        assert not control.projection.state.pauses
        person = msgspec.structs.replace(PERSON)
        for _ in range(3):
            task = await control.tasks.submit(person, RUN)
            await world.settled(lambda s, t=task.id: not s.tasks[t].open)
        control.sweep()
        assert not control.projection.state.pauses, "people have no budget"
