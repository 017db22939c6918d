"""Ends from outside: tasks cancelled before, while and after they run, and revoked grants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from angelos.core.frames import FactReport, Item
from angelos.core.ids import (
    PrincipalId,
    TaskId,
    fact_of,
)
from angelos.core.messages import (
    CancelTask,
    Command,
    RevokeGrants,
)
from angelos.core.signing import SigningKey
from tests.unit.node.fakes import ADA, World, run, world

__all__ = ["world"]


async def test_a_cancellation_does_not_wait_for_running_tasks(world: World) -> None:
    commands = [world.command(run(f"task-{n}", "wait")) for n in range(3)]
    await world.put(*commands)
    await world.channel.until(lambda: len(world.channel.of("task.output")) == 2)
    stops = [world.command(CancelTask(task=TaskId(f"task-{n}"), reason="asked")) for n in (0, 2)]
    await world.put(*stops)
    await world.acked(commands[0], commands[2], *stops)
    for task in ("task-0", "task-2"):
        result = world.finished(task)
        assert (result["status"], result["evidence"]["reason"]) == ("killed", "asked")
        assert result["evidence"]["code"] == "cancelled"
    assert world.channel.of("task.finished", "task-1") == []
    world.sandbox.release.set()


def stop(world: World, command: Command, task: str, **fields: Any) -> Command:
    order = CancelTask(task=TaskId(task), command=command.id, reason="asked")
    return world.command(order, who=PrincipalId("system/control"), **fields)


async def test_a_command_that_is_cancelled_before_it_arrives_is_never_carried_out(
    world: World,
) -> None:
    command = world.command(run("task-1"))
    first, again = (stop(world, command, "task-1") for _ in range(2))
    await world.put(first)
    await world.acked(first)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["reason"]) == ("killed", "asked")
    await world.put(command, again)
    await world.acked(command, again)
    world.finished("task-1")
    assert world.sandbox.most == 0


async def test_the_end_is_one_fact_whether_the_command_arrived_or_not(world: World) -> None:
    unseen, received = world.command(run("task-1")), world.command(run("task-2"))
    await world.put(order := stop(world, unseen, "task-1"))
    await world.put(received)
    await world.acked(order, received)
    ids = {fact.subject: fact.id for fact in world.channel.of("task.finished")}
    assert ids == {
        "task-1": fact_of(unseen.id, "task.finished"),
        "task-2": fact_of(received.id, "task.finished"),
    }


async def test_a_cancellation_is_acknowledged_after_the_end_that_it_causes(world: World) -> None:
    command = world.command(run("task-1", "wait"))
    await world.put(command)
    await world.channel.until(lambda: world.channel.of("task.output"))
    held, send = asyncio.Event(), world.channel.send

    async def slowly(batch: Sequence[Item]) -> None:
        if any(isinstance(e, FactReport) and b"task.finished" in e.body for e in batch):
            await held.wait()
        await send(batch)

    world.channel.send = slowly  # type: ignore[method-assign]
    order, second = stop(world, command, "task-1"), world.command(run("task-2"))
    await world.put(order, second)
    await world.channel.until(lambda: world.channel.of("task.output", "task-2"))
    assert order.id not in world.channel.acks
    held.set()
    await world.acked(command, order, second)
    assert world.channel.acks.index(command.id) < world.channel.acks.index(order.id)


async def test_cancelling_a_finished_task_reports_nothing(world: World) -> None:
    command = world.command(run("task-1"))
    await world.put(command)
    await world.acked(command)
    await world.put(order := stop(world, command, "task-1"))
    await world.acked(order)
    assert world.finished("task-1")["status"] == "ok"


async def test_a_task_whose_node_died_is_a_second_attempt(tmp_path: Path) -> None:
    first = World(tmp_path)
    command, quick = first.command(run("task-1", "wait")), first.command(run("task-2"))
    async with first.node() as dying:
        job = asyncio.create_task(dying.run())
        await first.put(command, quick)
        await first.channel.until(lambda: first.channel.of("task.output", "task-1"))
        await first.acked(quick)
        # What a killed node leaves is what is on its disk at this moment.
        second = World(tmp_path)
        async with second.node() as again:
            anew = asyncio.create_task(again.run())
            await second.put(second.command(run("task-3")), command)
            await second.channel.until(lambda: second.channel.of("task.output", "task-1"))
            second.sandbox.release.set()
            await second.acked(command)
            anew.cancel()
            await asyncio.gather(anew, return_exceptions=True)
        first.sandbox.release.set()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    assert [f.plain()["attempt"] for f in first.channel.of("task.started")] == [1, 1]
    (started,) = second.channel.of("task.started", "task-1")
    assert started.plain()["attempt"] == 2
    (started,) = second.channel.of("task.started", "task-3")
    assert started.plain()["attempt"] == 1
    assert second.finished("task-1")["stdout"] == "begun\n"


async def test_nobody_cancels_without_a_grant(world: World) -> None:
    command = world.command(run("task-1", "wait"))
    stop = world.command(CancelTask(task=TaskId("task-1")), key=SigningKey(bytes(32)))
    await world.put(command)
    await world.channel.until(lambda: world.channel.of("task.output"))
    await world.put(stop)
    await world.acked(stop)
    assert world.sandbox.running == 1
    world.sandbox.release.set()


async def test_revoked_grants_stop_running_tasks_and_refuse_new_ones(
    world: World, tmp_path: Path
) -> None:
    bad, good = PrincipalId("agent/mallory"), ADA
    commands = [
        world.command(run("task-1", "wait"), who=bad),
        world.command(run("task-2", "wait"), who=good),
    ]
    await world.put(*commands)
    await world.channel.until(lambda: len(world.channel.of("task.output")) == 2)
    old = world.command(run("task-3"), who=bad)
    revoke = world.command(RevokeGrants(principal=bad, reason="rogue"), who=PrincipalId("system/c"))
    await world.put(revoke)
    await world.acked(commands[0], revoke)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["code"]) == ("killed", "revoked")
    await world.put(old)
    await world.acked(old)
    assert world.finished("task-3")["status"] == "denied"
    fresh = world.command(run("task-4"), who=bad, granted=4_000_000_000_000)
    await world.put(fresh)
    await world.acked(fresh)
    assert world.finished("task-4")["status"] == "ok", "released since, with a new grant"
    world.sandbox.release.set()
    await world.acked(commands[1])
    async with world.node() as again:
        job = asyncio.create_task(again.run())
        older = world.command(run("task-5"), who=bad, granted=1)
        await world.put(older)
        await world.acked(older)
        assert world.finished("task-5")["status"] == "denied", "also after a restart"
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def test_a_revocation_holds_on_a_full_disk_and_is_delivered_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    running = world.command(run("task-1", "wait"))
    await world.put(running)
    await world.channel.until(lambda: world.channel.of("task.output"))
    old = world.command(run("task-2"))
    revoke = world.command(RevokeGrants(principal=ADA), who=PrincipalId("system/control"))
    with monkeypatch.context() as patch:
        patch.setattr("angelos.node.commands.stop.write_private", full)
        await world.put(revoke, old)
        await world.acked(running, old)
        await world.over(revoke)
    assert world.finished("task-1")["status"] == "killed"
    assert world.finished("task-2")["status"] == "denied"
    assert revoke.id not in world.channel.acks
    await world.put(revoke)
    await world.acked(revoke)
