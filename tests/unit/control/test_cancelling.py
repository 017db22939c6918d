"""How a task ends that is cancelled, or whose node goes silent: once, and told by the right one."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from angelos.control.tasks.service import TaskQuery
from angelos.core.api import SubmitTask
from angelos.core.errors import Forbidden, NotFound
from angelos.core.facts import Kind
from angelos.core.ids import TaskId, fact_of
from angelos.core.messages import CancelTask, Limits, Status, decode_payload
from angelos.testing import make_fact
from tests.unit.control.fakes import (
    ADA,
    OPERATOR,
    PERSON,
    REVIEWER,
    VIEWER,
)

END = {
    "status": "ok", "exit_code": 0, "stdout": "late", "stderr": "", "duration_s": 1.0,
    "node": "exec1", "tier": "full",
}  # fmt: skip
HELLO = SubmitTask(code="print(1)")


async def test_a_running_task_is_cancelled_by_its_node(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        await control.tasks.cancel(PERSON, view.id, "enough")
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        assert view.result.stdout == "stopped"
        assert [order.reason for order in node.cancelled] == ["enough"]


async def test_a_waiting_task_that_is_cancelled_ends_when_its_node_is_back(world):
    async with world.running() as control:
        node = await world.node()
        await node.stop()
        view = await control.tasks.submit(PERSON, HELLO)
        await node.disconnect()
        await world.settled(lambda s: not s.nodes[node.id].connected)
        await control.tasks.cancel(PERSON, view.id, "enough")
        view = await control.tasks.view(view.id)
        assert view.state == "accepted"
        assert "enough" in view.reason
        assert "exec1 is away" in view.reason
        await control.tasks.cancel(PERSON, view.id, "")
        await node.connect()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        assert (view.reason, node.ran) == ("", [])
    (end,) = await world.facts(Kind.task_finished)
    assert end.actor == node.id


@pytest.mark.parametrize("starts", [False, True])
async def test_a_cancelled_task_ends_though_its_node_stays_away_and_ends_once(world, starts):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        if not starts:
            await node.stop()
        view = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda s: (s.tasks[view.id].state == "running") is starts)
        await node.disconnect()
        await world.settled(lambda s: not s.nodes[node.id].connected)
        await control.tasks.cancel(PERSON, view.id, "enough")
        world.clock.advance(world.config.grace_s + 1)
        control.sweep()
        assert (await control.tasks.view(view.id)).result is None, "it may come back"
        world.clock.advance(world.config.node_gone_s)
        control.sweep()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        assert "enough" in view.result.evidence["reason"]
        await node.connect()
        await world.settled(lambda _: node.cancelled)
        await control.tasks.submit(PERSON, HELLO)
    (end,) = await world.facts(Kind.task_finished, view.id)
    assert end.actor == "system/supervisor"


async def test_a_task_that_its_node_has_before_control_knows_ends_once(world):
    """The node began before control heard of it: both used to say the end."""
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        held = asyncio.Event()
        say = node.say

        async def slowly(kind, subject, **fields):
            if kind == Kind.task_started:
                await held.wait()
            await say(kind, subject, **fields)

        node.say = slowly
        view = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda _: node.ran)
        await control.tasks.cancel(PERSON, view.id, "enough")
        await world.settled(
            lambda _: (
                [decode_payload(c.payload).task for c in world.waiting(node.id)] == [view.id]
                and all(
                    isinstance(decode_payload(c.payload), CancelTask)
                    for c in world.waiting(node.id)
                )
            )
        )
        held.set()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.stdout == "stopped"
    (end,) = await world.facts(Kind.task_finished)
    assert end.actor == node.id


async def test_a_cancelled_task_of_a_node_that_is_then_quarantined_ends_at_once(world):
    async with world.running() as control:
        node = await world.node()
        await node.stop()
        view = await control.tasks.submit(PERSON, HELLO)
        await control.tasks.cancel(PERSON, view.id, "enough")
        await node.say(Kind.principal_quarantined, node.id, data={"reason": "rogue"})
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
    assert len(await world.facts(Kind.task_finished)) == 1


async def test_what_a_node_says_of_a_task_that_has_ended_is_not_expected(world):
    async with world.running() as control:
        node, other = await world.node("one"), await world.node("two")
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, SubmitTask(code="1", node="one"))
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        output = make_fact(Kind.task_output, view.id, actor=node.id)
        assert control.projection.admitted(output)
        assert not control.projection.admitted(make_fact(Kind.task_output, view.id, actor=other.id))
        assert control.projection.admitted(make_fact(Kind.checkout_healthy, node.id, actor=node.id))
        await node.finish(node.ran[0], Status.ok)
        await control.tasks.view(view.id, wait_s=10)
        assert not control.projection.admitted(output)


async def test_no_node_takes_the_id_of_another_fact(world):
    async with world.running() as control:
        node, other = await world.node("one"), await world.node("two")
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, SubmitTask(code="1", node="one"))
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        command = control.projection.state.tasks[view.id].command
        taken = fact_of(command, Kind.task_finished)
        admitted = control.projection.admitted

        def taking(kind, subject, sender):
            fact = make_fact(kind, subject, actor=sender.id)
            return msgspec.structs.replace(fact, id=taken)

        for sender in (node, other):
            fact = taking(Kind.checkout_healthy, sender.id, sender)
            assert admitted(fact).id not in (taken, fact.id)
            assert admitted(fact) == admitted(fact), "told twice, kept once"
        output = taking(Kind.task_output, view.id, node)
        assert admitted(output).id != taken
        end = taking(Kind.task_finished, view.id, node)
        assert admitted(end).id == taken, "control and node report the one end"


async def test_a_node_that_was_cut_off_too_long_tells_the_truth_beside_killed(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        assert (await control.tasks.view(view.id)).state == "running"
        await node.disconnect()
        await world.settled(lambda s: not s.nodes[node.id].connected)
        view = await control.tasks.view(view.id)
        assert (view.state, "cut off" in view.reason) == ("cut-off", True)
        assert [v.id for v in control.tasks.list(TaskQuery(state="cut-off")).tasks] == [view.id]
        assert control.tasks.list(TaskQuery(state="running")).tasks == ()
        world.clock.advance(10_000)
        control.sweep()
        view = await control.tasks.view(view.id, wait_s=10)
        assert (view.state, view.result.status) == ("finished", Status.killed)
        assert view.result.evidence["source"] == "silence"
        late = make_fact(Kind.task_finished, view.id, actor=node.id, outcome="ok", data=END)
        written = control.projection.admitted(late)
        assert (written.kind, written.data, written.outcome) == ("task.reported", late.data, "ok")
        assert written.id == control.projection.admitted(late).id, "told twice, kept once"
        await world.journal.append([written])
        await world.settled(lambda s: s.tasks[view.id].reported is not None)
        view = await control.tasks.view(view.id)
        assert (view.result.status, view.reported.status) == (Status.killed, Status.ok)
        assert view.reported.stdout == "late"
        assert control.projection.admitted(late) is None
        hidden = await control.tasks.view(view.id, reader=VIEWER)
        assert hidden.reported.stdout == ""


async def test_a_task_that_is_started_again_is_the_second_attempt(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, HELLO)
        assert view.attempt == 0
        await world.settled(lambda s: s.tasks[view.id].attempt == 1)
        began = control.projection.state.tasks[view.id].started_at
        world.clock.advance(5)
        await node.say(Kind.task_started, view.id, data={"node": "exec1", "attempt": 2})
        await world.settled(lambda s: s.tasks[view.id].attempt == 2)
        assert control.projection.state.tasks[view.id].started_at == began + 5
        await node.say(Kind.task_started, view.id, data={"node": "exec1", "attempt": 1})
        await world.settled(lambda s: s.tasks[view.id].attempt == 3)
        await node.finish(node.ran[0], Status.ok)
        assert (await control.tasks.view(view.id, wait_s=10)).attempt == 3


async def test_only_ones_own_tasks_are_cancelled_by_a_researcher(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(OPERATOR, HELLO)
        for other in (PERSON, ADA, VIEWER):
            with pytest.raises(Forbidden):
                await control.tasks.cancel(other, view.id, "")
        await control.tasks.cancel(REVIEWER, view.id, "")
        with pytest.raises(NotFound):
            await control.tasks.cancel(REVIEWER, TaskId("task-nobody"), "")


async def test_a_task_that_never_starts_is_ended_after_its_deadline(world):
    async with world.running() as control:
        node = await world.node()
        await node.disconnect()
        await world.node("other")
        await node.connect()
        await node.stop()
        view = await control.tasks.submit(PERSON, SubmitTask(code="1", node="exec1"))
        world.clock.advance(world.config.start_within_s + 1)
        control.sweep()
        assert (await control.tasks.view(view.id)).state == "accepted"
        world.clock.advance(world.config.grace_s)
        control.sweep()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        assert "before its deadline" in view.result.evidence["reason"]


async def test_a_node_that_goes_silent_does_not_hold_a_task_for_ever(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        body = SubmitTask(code="1", limits=Limits(wall_s=10))
        view = await control.tasks.submit(PERSON, body)
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        world.clock.advance(10 + world.config.grace_s + 1)
        await node.stop()
        control.sweep()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        assert view.result.evidence["source"] == "silence"
        await node.finish(node.ran[0], Status.ok, "too late")
        await control.tasks.submit(PERSON, HELLO)
        assert (await control.tasks.view(view.id)).result.status == Status.killed
