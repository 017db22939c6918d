"""The node against a fake channel and a fake sandbox: grants, facts, acks, and every way to end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from angelos.core.errors import AngelError, DeadlineExceeded, Unavailable
from angelos.core.frames import Item
from angelos.core.grants import digest
from angelos.core.ids import (
    PrincipalId,
    Revision,
)
from angelos.core.messages import (
    Checkout,
    Command,
)
from angelos.core.signing import SigningKey
from angelos.node.commands.output import TAIL_BYTES
from tests.unit.node.fakes import NODE, World, dispatch, run, world

__all__ = ["world"]


async def test_a_task_is_reported_from_start_to_end_and_then_acknowledged(world: World) -> None:
    command = world.command(run("task-1"))
    await world.put(command)
    await world.acked(command)
    kinds = [fact.kind for fact in world.channel.facts]
    assert kinds == ["task.started", "task.output", "task.finished"]
    assert world.channel.facts[0].plain() == {"node": "exec1", "tier": "full", "attempt": 1}
    assert world.channel.facts[1].plain() == {
        "stream": "stdout", "text": "begun\n", "index": 0, "raw": "", "omitted": 0,
    }  # fmt: skip
    result = world.finished("task-1")
    assert (result["status"], result["stdout"], result["node"]) == ("ok", "begun\n", "exec1")


async def test_much_output_is_reported_in_few_facts_and_the_result_is_bounded(world: World) -> None:
    command = world.command(run("task-1", "big"))
    await world.put(command)
    await world.acked(command)
    facts = world.channel.of("task.output")
    assert sum(len(fact.plain()["text"]) for fact in facts) == 1_000_000 + TAIL_BYTES
    assert facts[-1].plain()["omitted"] == 1_000_006 - TAIL_BYTES
    assert [fact.plain()["index"] for fact in facts] == list(range(len(facts)))
    result = world.finished("task-1")
    assert len(result["stdout"]) < 70_000
    assert result["evidence"]["truncated"] == {"stdout": 2_000_006}


@pytest.mark.parametrize(
    "changes",
    [
        {"key": SigningKey(bytes(32))},
        {"what": digest(b"another payload")},
        {"where": PrincipalId("node/other")},
        {"not_after": 0.0},
        {"to": PrincipalId("node/other")},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_grant_that_does_not_fit_is_denied(world: World, changes: dict[str, Any]) -> None:
    command = world.command(run("task-1"), **changes)
    await world.put(command)
    await world.acked(command)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["source"]) == ("denied", "grant")
    assert world.sandbox.most == 0


async def test_a_forged_command_says_nothing_of_a_task_that_runs(world: World) -> None:
    command = world.command(run("task-1", "wait"))
    await world.put(command)
    await world.channel.until(lambda: world.channel.of("task.output"))
    forged = world.command(run("task-1"), key=SigningKey(bytes(32)))
    await world.put(forged)
    await world.acked(forged)
    assert world.channel.of("task.finished") == []
    world.sandbox.release.set()
    await world.acked(command)
    assert world.finished("task-1")["status"] == "ok"


async def test_the_guard_refuses_before_anything_starts(world: World) -> None:
    command = world.command(run("task-1", "import math\nimport ctypes\n"))
    await world.put(command)
    await world.acked(command)
    evidence = world.finished("task-1")["evidence"]
    assert (evidence["source"], evidence["line"]) == ("guard", 2)
    assert world.channel.of("task.started") == []


async def test_a_command_that_arrives_again_runs_once_and_is_acknowledged_again(
    world: World,
) -> None:
    command = world.command(run("task-1", "wait"))
    await world.put(command, command)
    await world.channel.until(lambda: world.channel.of("task.output"))
    await world.put(command)
    world.sandbox.release.set()
    await world.acked(command)
    await world.put(command)
    await world.channel.until(lambda: world.channel.acks.count(command.id) == 2)
    world.finished("task-1")


async def test_slots_bound_what_runs_and_what_waits(world: World) -> None:
    commands = [world.command(run(f"task-{n}", "wait")) for n in range(4)]
    for command in commands[:2]:
        await world.put(command)
    await world.channel.until(lambda: len(world.channel.of("task.started")) == 2)
    await world.put(*commands[2:])
    await world.acked(commands[3])
    refused = world.finished("task-3")
    assert (refused["status"], refused["evidence"]["code"]) == ("killed", "busy")
    world.sandbox.release.set()
    await world.acked(*commands)
    assert world.sandbox.most == 2


async def test_a_deadline_that_passes_in_the_queue_kills_the_task(world: World) -> None:
    first = [world.command(run(f"task-{n}", "wait")) for n in range(2)]
    await world.put(*first)
    await world.channel.until(lambda: len(world.channel.of("task.output")) == 2)
    late = world.command(run("task-9"), deadline=world.clock.time() + 1)
    await world.put(late)
    world.clock.advance(2)
    world.sandbox.release.set()
    await world.acked(late)
    result = world.finished("task-9")
    assert (result["status"], result["evidence"]["code"]) == ("killed", "deadline-exceeded")


async def test_shutting_down_ends_tasks_as_killed(tmp_path: Path) -> None:
    world = World(tmp_path)
    command = world.command(run("task-1", "wait"))
    async with world.node() as node:
        job = asyncio.create_task(node.run())
        await world.put(command)
        await world.channel.until(lambda: world.channel.of("task.output"))
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["code"]) == ("killed", "shutdown")
    assert world.channel.acks == [command.id]
    assert world.sandbox.running == 0


async def test_an_unknown_command_is_refused_by_name_and_the_next_task_runs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = world.command(run("task-1"))
    unknown = Command(id=unknown.id, to=NODE, grant=unknown.grant, payload=b"\x81\xa4kind\xa3new")
    rubbish = msgspec.structs.replace(dispatch(unknown, b"\xc1"), position="cmd-x")
    await world.channel.inbox.put([rubbish])
    await world.put(unknown, honest := world.command(run("task-2")))
    await world.acked(unknown, honest)
    assert "cmd-x" in world.channel.acks
    assert world.finished("task-2")["status"] == "ok"
    assert f"{unknown.id} was not carried out" in caplog.text
    assert "'new'" in caplog.text


async def test_a_revision_that_the_hub_does_not_have_is_reported_as_such(world: World) -> None:
    revision = Revision("a" * 64)
    commands = [
        world.command(run("task-1", repo="study", revision=revision)),
        world.command(Checkout(repo="study", branch="main", revision=revision)),
    ]
    await world.put(*commands)
    await world.acked(*commands)
    assert world.finished("task-1")["status"] == "denied"
    (fact,) = world.channel.of("checkout.failed")
    assert (fact.outcome, fact.revision, fact.subject) == ("not-found", revision, NODE)
    assert fact.plain()["stayed_on"] is None


async def test_a_failure_of_the_node_itself_is_reported_as_such(
    world: World, monkeypatch: Any
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("angelos.node.checkouts.store.untouched", full)
    revision = Revision("a" * 64)
    commands = [
        world.command(run("task-1", repo="study", revision=revision)),
        world.command(Checkout(repo="study", branch="main", revision=revision)),
    ]
    await world.put(*commands)
    await world.acked(*commands)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["code"]) == ("killed", "unavailable")
    assert "No space left" in result["evidence"]["reason"]
    (fact,) = world.channel.of("checkout.failed")
    assert fact.outcome == "unavailable"


@pytest.mark.parametrize("error", [Unavailable("gone"), DeadlineExceeded("too slow")])
async def test_a_hub_that_gives_no_bundle_is_not_the_tasks_fault(
    world: World, monkeypatch: Any, error: AngelError
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("angelos.node.checkouts.store.Checkouts.use", fail)
    command = world.command(run("task-1", repo="study", revision=Revision("a" * 64)))
    await world.put(command)
    await world.acked(command)
    result = world.finished("task-1")
    assert (result["status"], result["evidence"]["code"]) == ("killed", error.code)


async def test_the_end_of_the_channel_ends_the_node(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def gone() -> list[Item]:
        raise Unavailable("fenced")

    world.channel.recv = gone  # type: ignore[method-assign]
    async with world.node() as node:
        with pytest.raises(Unavailable):
            await node.run()
