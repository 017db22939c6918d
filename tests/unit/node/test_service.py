"""The node against a fake channel and a fake sandbox: grants, facts, acks, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from angelos.adapters.memory import ManualClock
from angelos.core.errors import NotFound, Unavailable
from angelos.core.grants import Grant, digest, sign_grant
from angelos.core.ids import (
    CommandId,
    PrincipalId,
    Revision,
    TaskId,
    fact_of,
    new_command_id,
    new_grant_id,
)
from angelos.core.messages import (
    CancelTask,
    Checkout,
    Command,
    Fact,
    Payload,
    RevokeGrants,
    RunTask,
    Status,
    Tier,
    decode,
    encode,
)
from angelos.core.ports import Envelope, Exit, Output, RunSpec
from angelos.core.revision import Bundle
from angelos.core.signing import SigningKey
from angelos.node.config import NodeConfig
from angelos.node.service import Keys, Node

KEY = SigningKey(bytes(range(32)))
NODE = PrincipalId("node/exec1")
ADA = PrincipalId("agent/ada")


class FakeChannel:
    """A hub that keeps what it is told."""

    def __init__(self) -> None:
        self.peer = PrincipalId("system/hub")
        self.inbox: asyncio.Queue[list[Envelope]] = asyncio.Queue()
        self.facts: list[Fact] = []
        self.acks: list[str] = []
        self.news = asyncio.Condition()

    async def send(self, batch: Sequence[Envelope]) -> None:
        for envelope in batch:
            if envelope.kind == "fact":
                self.facts.append(decode(envelope.body, Fact))
            else:
                self.acks.append(envelope.id)
        async with self.news:
            self.news.notify_all()

    async def recv(self) -> list[Envelope]:
        return await self.inbox.get()

    async def close(self, reason: str = "") -> None:
        del reason

    async def until(self, predicate: Callable[[], Any]) -> None:
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(predicate)

    def of(self, kind: str, subject: str = "") -> list[Fact]:
        return [f for f in self.facts if f.kind == kind and subject in {"", f.subject}]


class FakeSandbox:
    """Runs `code` by name: `ok`, `wait`, or what a test has put there."""

    tier = Tier.full

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.release = asyncio.Event()

    async def run(self, spec: RunSpec) -> AsyncIterator[Output | Exit]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield Output("stdout", b"begun\n")
            if spec.code == "wait":
                await self.release.wait()
            if spec.code == "big":
                for _ in range(40):
                    yield Output("stdout", b"x" * 50_000)
            status = Status.error if spec.argv == ("fail",) else Status.ok
            yield Exit(status=status, exit_code=0, duration_s=0.1, tier=self.tier,
                       evidence={"source": "exit"})  # fmt: skip
        finally:
            self.running -= 1


Put = Callable[..., Awaitable[CommandId]]


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.channel, self.sandbox, self.clock = FakeChannel(), FakeSandbox(), ManualClock()
        self.config = NodeConfig(
            name="exec1", role="execution", directory=tmp_path, slots=2, waiting=1
        )
        self.bundles: dict[Revision, Bundle] = {}

    def node(self) -> Node:
        @contextlib.asynccontextmanager
        async def connect(info: dict[str, str]) -> AsyncIterator[FakeChannel]:
            assert info["tier"] == "full"
            yield self.channel

        async def fetch(repo: str, revision: Revision) -> Bundle:
            if revision not in self.bundles:
                raise NotFound("no such revision")
            return self.bundles[revision]

        keys = Keys(grant=KEY.public, revision=KEY.public)
        return Node(self.config, connect, fetch, self.sandbox, self.clock, keys)

    def command(self, payload: Payload, *, who: PrincipalId = ADA, **changes: Any) -> Command:
        body = encode(payload)
        grant = Grant(
            id=new_grant_id(changes.pop("granted", None)), who=who,
            what=changes.pop("what", digest(body)), where=changes.pop("where", NODE),
            policy="p", rule="r", not_after=changes.pop("not_after", self.clock.time() + 60),
        )  # fmt: skip
        key = changes.pop("key", KEY)
        fields: dict[str, Any] = {"id": new_command_id(), "to": NODE, "trace": "t"} | changes
        return Command(grant=sign_grant(key, grant), payload=body, **fields)

    async def put(self, *commands: Command) -> None:
        await self.channel.inbox.put([Envelope("command", c.id, encode(c)) for c in commands])

    async def acked(self, *commands: Command) -> None:
        await self.channel.until(lambda: {c.id for c in commands} <= set(self.channel.acks))

    def finished(self, task: str) -> dict[str, Any]:
        (fact,) = self.channel.of("task.finished", task)
        assert fact.outcome == fact.data["status"]
        assert (fact.actor, fact.trace) == (NODE, "t")
        return fact.data


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with world.node() as node:
        job = asyncio.create_task(node.run())
        yield world
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    assert world.sandbox.running == 0


def run(task: str, code: str = "ok", **fields: Any) -> RunTask:
    return RunTask(task=TaskId(task), code=code, **fields)


async def test_a_task_is_told_from_start_to_end_and_then_acknowledged(world: World) -> None:
    command = world.command(run("task-1"))
    await world.put(command)
    await world.acked(command)
    kinds = [fact.kind for fact in world.channel.facts]
    assert kinds == ["task.started", "task.output", "task.finished"]
    assert world.channel.facts[0].data == {"node": "exec1", "tier": "full", "attempt": 1}
    assert world.channel.facts[1].data == {"stream": "stdout", "text": "begun\n", "index": 0}
    result = world.finished("task-1")
    assert (result["status"], result["stdout"], result["node"]) == ("ok", "begun\n", "exec1")


async def test_much_output_comes_in_few_facts_and_the_result_is_bounded(world: World) -> None:
    command = world.command(run("task-1", "big"))
    await world.put(command)
    await world.acked(command)
    told = world.channel.of("task.output")
    assert sum(len(fact.data["text"]) for fact in told) == 2_000_006
    assert [fact.data["index"] for fact in told] == list(range(len(told)))
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


async def test_the_guard_refuses_before_anything_starts(world: World) -> None:
    command = world.command(run("task-1", "import math\nimport ctypes\n"))
    await world.put(command)
    await world.acked(command)
    evidence = world.finished("task-1")["evidence"]
    assert (evidence["source"], evidence["line"]) == ("guard", 2)
    assert world.channel.of("task.started") == []


async def test_a_command_that_comes_again_runs_once_and_is_acknowledged_again(
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


async def test_cancelling_passes_by_running_tasks(world: World) -> None:
    commands = [world.command(run(f"task-{n}", "wait")) for n in range(3)]
    await world.put(*commands)
    await world.channel.until(lambda: len(world.channel.of("task.output")) == 2)
    stops = [world.command(CancelTask(task=TaskId(f"task-{n}"), reason="asked")) for n in (0, 2)]
    await world.put(*stops)
    await world.acked(commands[0], commands[2], *stops)
    for task in ("task-0", "task-2"):
        result = world.finished(task)
        assert (result["status"], result["evidence"]["reason"]) == ("killed", "asked")
    assert world.channel.of("task.finished", "task-1") == []
    world.sandbox.release.set()


def stop(world: World, command: Command, task: str, **fields: Any) -> Command:
    order = CancelTask(task=TaskId(task), command=command.id, reason="asked")
    return world.command(order, who=PrincipalId("system/control"), **fields)


async def test_a_command_that_is_cancelled_before_it_comes_is_never_carried_out(
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


async def test_the_end_is_one_fact_whether_the_command_was_seen_or_not(world: World) -> None:
    unseen, seen = world.command(run("task-1")), world.command(run("task-2"))
    await world.put(order := stop(world, unseen, "task-1"))
    await world.put(seen)
    await world.acked(order, seen)
    ids = {fact.subject: fact.id for fact in world.channel.of("task.finished")}
    assert ids == {
        "task-1": fact_of(unseen.id, "task.finished"),
        "task-2": fact_of(seen.id, "task.finished"),
    }


async def test_a_cancellation_is_acknowledged_after_the_end_that_it_brings(world: World) -> None:
    command = world.command(run("task-1", "wait"))
    await world.put(command)
    await world.channel.until(lambda: world.channel.of("task.output"))
    held, send = asyncio.Event(), world.channel.send

    async def slowly(batch: Sequence[Envelope]) -> None:
        if any(e.kind == "fact" and b"task.finished" in e.body for e in batch):
            await held.wait()
        await send(batch)

    world.channel.send = slowly  # type: ignore[method-assign]
    order, other = stop(world, command, "task-1"), world.command(run("task-2"))
    await world.put(order, other)
    await world.channel.until(lambda: world.channel.of("task.output", "task-2"))
    assert order.id not in world.channel.acks
    held.set()
    await world.acked(command, order, other)
    assert world.channel.acks.index(command.id) < world.channel.acks.index(order.id)


async def test_cancelling_what_has_ended_says_nothing_more(world: World) -> None:
    command = world.command(run("task-1"))
    await world.put(command)
    await world.acked(command)
    await world.put(order := stop(world, command, "task-1"))
    await world.acked(order)
    assert world.finished("task-1")["status"] == "ok"


async def test_a_task_whose_node_died_is_the_second_attempt(tmp_path: Path) -> None:
    first = World(tmp_path)
    command, other = first.command(run("task-1", "wait")), first.command(run("task-2"))
    async with first.node() as dying:
        job = asyncio.create_task(dying.run())
        await first.put(command, other)
        await first.channel.until(lambda: first.channel.of("task.output", "task-1"))
        await first.acked(other)
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
    assert [f.data["attempt"] for f in first.channel.of("task.started")] == [1, 1]
    (started,) = second.channel.of("task.started", "task-1")
    assert started.data["attempt"] == 2
    (started,) = second.channel.of("task.started", "task-3")
    assert started.data["attempt"] == 1
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


async def test_revoked_grants_end_what_runs_and_refuse_what_comes(
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
    assert world.finished("task-1")["status"] == "killed"
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


async def test_a_deadline_that_passed_while_waiting(world: World) -> None:
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
    assert world.finished("task-1")["status"] == "killed"
    assert world.channel.acks == [command.id]
    assert world.sandbox.running == 0


async def test_rubbish_is_acknowledged_and_the_next_task_served(world: World) -> None:
    rubbish = Envelope("command", "cmd-x", b"\xc1")
    unknown = world.command(run("task-1"))
    unknown = Command(id=unknown.id, to=NODE, grant=unknown.grant, payload=b"\x81\xa4kind\xa3new")
    await world.channel.inbox.put([rubbish])
    await world.put(unknown, honest := world.command(run("task-2")))
    await world.acked(unknown, honest)
    assert "cmd-x" in world.channel.acks
    assert world.finished("task-2")["status"] == "ok"


async def test_a_revision_that_cannot_be_had(world: World) -> None:
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
    assert fact.data["stayed_on"] is None


async def test_a_node_that_fails_itself_says_so(world: World, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("angelos.node.checkout.untouched", full)
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


async def test_a_channel_that_ends_ends_the_node(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def gone() -> list[Envelope]:
        raise Unavailable("fenced")

    world.channel.recv = gone  # type: ignore[method-assign]
    async with world.node() as node:
        with pytest.raises(Unavailable):
            await node.run()
