"""The first road, from a request to its result, on fakes."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.state import tasks
from angelos.control.tasks.service import TaskQuery
from angelos.core.api import SubmitTask
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.errors import Busy, Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import CommandId, new_command_id
from angelos.core.messages import Limits, Status, encode
from angelos.core.routes import Period
from angelos.testing.fixtures import make_fact
from tests.unit.control.fakes import (
    ADA,
    OPERATOR,
    PERSON,
    FakeNode,
    World,
    done,
)

HELLO = SubmitTask(code="print(1)")


async def test_a_task_runs_and_its_result_comes_back(world):
    async with world.running() as control:
        node = await world.node()
        view = await control.tasks.submit(PERSON, HELLO)
        assert (view.state, view.node, view.by) == ("accepted", node.id, PERSON.id)
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.state == "finished"
        assert view.result.status == Status.ok
        assert view.result.stdout == "fine\n"
    assert await world.kinds(view.id) == [Kind.task_accepted, Kind.task_started, Kind.task_finished]


async def test_the_offset_lies_before_all_output(world):
    async with world.running() as control:
        await world.node()
        view = await control.tasks.submit(PERSON, HELLO)
        await control.tasks.view(view.id, wait_s=10)
        later = await world.journal.read(view.offset, subject=view.id)
    assert [fact.kind for fact in later] == [Kind.task_started, Kind.task_finished]


async def test_without_a_node_nothing_is_accepted_and_the_hint_helps(world):
    async with world.running() as control:
        with pytest.raises(Unavailable) as caught:
            await control.tasks.submit(PERSON, HELLO)
    assert "angelos node list" in caught.value.hint
    assert Kind.task_accepted not in await world.kinds()


async def test_the_least_busy_node_is_chosen(world):
    async with world.running() as control:
        first, second = await world.node("one"), await world.node("two")
        first.program = second.program = lambda _: None
        nodes = {(await control.tasks.submit(PERSON, HELLO)).node for _ in range(2)}
        assert nodes == {first.id, second.id}


async def test_a_named_node_must_exist_and_be_there(world):
    async with world.running() as control:
        node = await world.node("one")
        await world.node("lab", role="labs")
        assert (await control.tasks.submit(PERSON, SubmitTask(code="1", node="lab"))).node
        with pytest.raises(NotFound):
            await control.tasks.submit(PERSON, SubmitTask(code="1", node="nobody"))
        await node.disconnect()
        await world.settled(lambda s: not s.nodes[node.id].connected)
        with pytest.raises(Unavailable):
            await control.tasks.submit(PERSON, SubmitTask(code="1", node="one"))


async def test_the_same_command_is_the_same_task(world):
    async with world.running() as control:
        node = await world.node()
        body = SubmitTask(code="print(1)", command=new_command_id())
        first = await control.tasks.submit(PERSON, body)
        await control.tasks.view(first.id, wait_s=10)
        again = await control.tasks.submit(PERSON, body)
        assert again.id == first.id
        assert again.state == "finished"
        assert len(node.ran) == 1
        for principal, other in (
            (PERSON, SubmitTask(code="print(2)", command=body.command)),
            (OPERATOR, body),
        ):
            with pytest.raises(Conflict):
                await control.tasks.submit(principal, other)


@pytest.mark.parametrize(
    "body",
    [
        SubmitTask(),
        SubmitTask(code="1", repo="study"),
        SubmitTask(code="1", command=CommandId("cmd-1")),
        SubmitTask(code="1", command=CommandId("task-" + "0" * 32)),
    ],
)
async def test_requests_of_the_wrong_form_are_refused(world, body):
    async with world.running() as control:
        await world.node()
        with pytest.raises(InvalidInput):
            await control.tasks.submit(PERSON, body)


async def test_an_unknown_revision_is_refused_at_the_door(world):
    async with world.running() as control:
        await world.node()
        with pytest.raises(NotFound):
            await control.tasks.submit(
                PERSON, SubmitTask(code="1", repo="study", revision="0" * 64)
            )


async def test_a_refusal_is_kept_and_names_the_rule(world):
    async with world.running() as control:
        await world.node()
        with pytest.raises(Forbidden, match=r"run\.agents-keep-the-guard"):
            await control.tasks.submit(ADA, SubmitTask(code="1", guard=False))
        with pytest.raises(Forbidden, match="no rule"):
            await control.tasks.submit(ADA, SubmitTask(code="1", limits=Limits(wall_s=601)))
    refused = await world.facts(Kind.task_refused)
    assert [fact.actor for fact in refused] == [ADA.id, ADA.id]
    assert refused[0].plain()["rules"] == ["run.agents-keep-the-guard"]


async def test_too_many_open_tasks_are_refused(clock):
    world = World(clock, max_open_tasks=2)
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        for _ in range(2):
            await control.tasks.submit(PERSON, HELLO)
        with pytest.raises(Busy):
            await control.tasks.submit(PERSON, HELLO)


async def test_a_full_node_refuses_at_the_door_and_another_takes_it(clock):
    world = World(clock, max_open_per_node=2)
    async with world.running() as control:
        node = await world.node("one")
        node.program = lambda _: None
        for _ in range(2):
            await control.tasks.submit(PERSON, HELLO)
        with pytest.raises(Busy) as refused:
            await control.tasks.submit(PERSON, HELLO)
        assert refused.value.extra["retry_after_s"] == 2.0
        assert control.tasks.list().total == 2, "nothing was accepted"
        (await world.node("two")).program = lambda _: None
        await control.tasks.submit(PERSON, HELLO)


async def test_what_waits_in_the_background_has_half_of_a_nodes_places(clock):
    world = World(clock, max_open_per_node=4)
    async with world.running() as control:
        node = await world.node("one")
        node.program = lambda _: None
        later = msgspec.structs.replace(HELLO, priority="background")
        for _ in range(2):
            await control.tasks.submit(PERSON, later)
        with pytest.raises(Busy):
            await control.tasks.submit(PERSON, later)
        await control.tasks.submit(PERSON, HELLO)


@pytest.mark.parametrize("argv", [("sh", "-c", "python"), ("python", "-m", "timeit", "1")])
async def test_an_agents_command_line_is_one_that_the_guard_can_read(world, argv):
    async with world.running() as control:
        (await world.node()).program = lambda _: None
        with pytest.raises(Forbidden, match=r"run\.agents-keep-the-guard"):
            await control.tasks.submit(ADA, SubmitTask(argv=argv))
        await control.tasks.submit(ADA, SubmitTask(argv=("python", "-c", "print(1)")))
        await control.tasks.submit(PERSON, SubmitTask(argv=argv))


async def test_another_node_cannot_speak_for_a_task(world):
    async with world.running() as control:
        node, liar = await world.node("one"), await world.node("two")
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, SubmitTask(code="1", node="one"))
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        lies = msgspec.to_builtins(done("two", out="lies"))
        await liar.say(Kind.task_finished, view.id, outcome="ok", data=lies)
        await liar.say(Kind.task_finished, view.id, data={"status": "nonsense"})
        await node.finish(node.ran[0], Status.error, "truth")
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.stdout == "truth"


async def test_a_malformed_fact_of_a_node_is_passed_over(world, caplog):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(PERSON, HELLO)
        await node.say(Kind.task_finished, view.id, data={"status": "nonsense"})
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        await node.finish(node.ran[0], Status.ok, "well")
        assert (await control.tasks.view(view.id, wait_s=10)).result.stdout == "well"
    assert "malformed" in caplog.text


async def test_a_quarantined_agents_tasks_end_and_its_grants_are_void(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.tasks.submit(ADA, HELLO)
        mine = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda s: s.tasks[view.id].state == "running")
        await node.say(Kind.principal_quarantined, ADA.id, data={"reason": "rogue"})
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.killed
        await world.settled(lambda _: [o.principal for o in node.revoked] == [ADA.id])
        assert (await control.tasks.view(mine.id)).state == "running"
        with pytest.raises(Forbidden, match="quarantine"):
            await control.tasks.submit(ADA, HELLO)


async def test_who_keeps_identities_is_believed_before_the_journal(world):
    async with world.running() as control:
        await world.node()
        world.signals.refused.add(ADA.id)
        with pytest.raises(Forbidden):
            await control.tasks.submit(ADA, HELLO)


async def test_accepted_tasks_are_put_again_after_a_crash(world):
    async with world.running() as control:
        node = await world.node()
        await node.stop()
        view = await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda _: world.waiting(node.id))
    world.queue = type(world.queue)(clock=world.clock)
    async with world.running() as control:
        await world.settled(lambda _: world.waiting(node.id))
        await node.connect()
        view = await control.tasks.view(view.id, wait_s=10)
        assert view.result.status == Status.ok
        assert len(node.ran) == 1


async def test_lists_show_the_newest_first(world):
    async with world.running() as control:
        await world.node()
        views = [await control.tasks.submit(PERSON, HELLO) for _ in range(3)]
        assert [v.id for v in control.tasks.list(limit=2).tasks] == [views[2].id, views[1].id]
        await control.tasks.view(views[0].id, wait_s=10)
        assert views[0].id in {v.id for v in control.tasks.list(TaskQuery(state="finished")).tasks}


async def test_a_list_has_pages_and_filters_and_drops_nothing(world):
    async with world.running() as control:
        await world.node()
        ids = [(await control.tasks.submit(PERSON, HELLO)).id for _ in range(5)][::-1]
        read, page = [], control.tasks.list(limit=2)
        while True:
            assert page.total == 5
            read += [view.id for view in page.tasks]
            if not page.next:
                break
            page = control.tasks.list(TaskQuery(after=page.next), limit=2)
        assert read == ids
        at = world.clock.time()
        for query, count in (
            (TaskQuery(author=PERSON.id), 5),
            (TaskQuery(author="agent/other"), 0),
            (TaskQuery(node="node/other"), 0),
            (TaskQuery(repo="lab"), 0),
            (TaskQuery(period=Period(since=at + 1)), 0),
            (TaskQuery(period=Period(until=at + 1)), 5),
        ):
            assert control.tasks.list(query).total == count
        with pytest.raises(NotFound):
            control.tasks.list(TaskQuery(after="task-unknown"))


async def test_a_node_without_isolation_runs_nothing(world):
    async with world.running() as control:
        await world.node(tier="none")
        with pytest.raises(Forbidden, match=r"run\.only-in-a-box"):
            await control.tasks.submit(PERSON, HELLO)
        assert "WITHOUT isolation" in (await control.status()).banner


async def test_unless_the_operator_says_so(clock):
    world = World(clock, allow_unsandboxed=True)
    async with world.running() as control:
        await world.node(tier="none")
        assert (await control.tasks.submit(PERSON, HELLO)).state == "accepted"


async def test_a_grant_fits_its_node_only(world):
    """`FakeNode` checks every grant; a payload or node of another sort would have raised."""
    async with world.running() as control:
        node, other = await world.node("one"), FakeNode(world, "two")
        await node.stop()
        await control.tasks.submit(PERSON, HELLO)
        await world.settled(lambda _: world.waiting(node.id))
        command = world.waiting(node.id)[0]
        header = EnvelopeHeader(
            id=command.id, source=PERSON.id, destination=other.id, lane=Lane.command, sequence=1,
            codec="msgpack",
        )  # fmt: skip
        await world.queue.put(RoutedEnvelope(header, encode(command)))
        await other.connect()
        assert other.task is not None
        with pytest.raises(Forbidden):
            await other.task
        other.task = None


async def test_a_task_that_left_the_state_is_shown_and_its_command_runs_nothing_again(
    world, monkeypatch
):
    monkeypatch.setattr(tasks, "KEEP_TASKS", 1)
    now = int(world.clock.time() * 1000)
    long_ago = msgspec.structs.replace(HELLO, command=new_command_id(now - 3_600_000))
    async with world.running() as control:
        await world.node()
        first = await control.tasks.submit(PERSON, long_ago)
        ended = await control.tasks.view(first.id, wait_s=10)
        for _ in range(3):
            view = await control.tasks.submit(PERSON, HELLO)
            await control.tasks.view(view.id, wait_s=10)
        assert len(control.projection.state.tasks) == 1
        assert await control.tasks.view(first.id) == ended
        assert await control.tasks.submit(PERSON, long_ago) == ended
        assert await control.tasks.cancel(PERSON, first.id, "too late") == ended
        other = msgspec.structs.replace(long_ago, code="print(2)")
        with pytest.raises(Conflict):
            await control.tasks.submit(PERSON, other)
        with pytest.raises(NotFound):
            await control.tasks.view(f"task-{new_command_id()[4:]}")
        upto = control.projection.state.offset
        await world.journal.append([make_fact(
            Kind.outputs_expired, "log", actor="system/retention", data={"upto": upto, "days": 1.0},
        )])  # fmt: skip
        # What its program wrote is erased, which is not the same as that it wrote nothing.
        await control.projection.until(lambda s: s.outputs_expired == upto, timeout_s=60)
        late = await control.tasks.view(first.id)
        assert (late.expired, late.result.stdout, late.result.status) == (True, "", "ok")
    assert await world.kinds(first.id) == [
        Kind.task_accepted, Kind.task_started, Kind.task_finished,
    ]  # fmt: skip
