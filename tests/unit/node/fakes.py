"""A hub and a sandbox for tests of the node, and a node between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast

import pytest

from angelos.core.envelopes import EnvelopeHeader, Lane
from angelos.core.errors import NotFound
from angelos.core.facts import Fact
from angelos.core.frames import Dispatch, FactReport, Item, Settle
from angelos.core.grants import Grant, digest, sign_grant
from angelos.core.ids import (
    CommandId,
    PrincipalId,
    Revision,
    TaskId,
    new_command_id,
    new_grant_id,
)
from angelos.core.messages import Command, Payload, RunTask, Status, Tier, decode, encode
from angelos.core.ports import SandboxSession
from angelos.core.revision import Bundle
from angelos.core.runs import Exit, Output, RunSpec
from angelos.core.sessions import SessionSpec
from angelos.core.signing import SigningKey
from angelos.node.config import NodeConfig
from angelos.node.service import Keys, Node
from angelos.testing import ManualClock

KEY = SigningKey(bytes(range(32)))
NODE = PrincipalId("node/exec1")
ADA = PrincipalId("agent/ada")


def dispatch(command: Command, body: bytes = b"") -> Dispatch:
    """Return what a hub sends for a command; its position is the command's id."""
    header = EnvelopeHeader(
        id=command.id, source=PrincipalId("system/control"), destination=NODE, lane=Lane.command,
        sequence=1, codec="msgpack",
    )  # fmt: skip
    return Dispatch(command.id, 1, header, body or encode(command))


class FakeChannel:
    """A hub that keeps what it is told."""

    def __init__(self) -> None:
        self.peer = PrincipalId("system/hub")
        self.inbox: asyncio.Queue[list[Item]] = asyncio.Queue()
        self.facts: list[Fact] = []
        self.acks: list[str] = []
        self.news = asyncio.Condition()
        self.online = self.idle = True

    async def send(self, batch: Sequence[Item]) -> None:
        for item in batch:
            if isinstance(item, FactReport):
                self.facts.append(decode(item.body, Fact))
            elif isinstance(item, Settle):
                self.acks += item.positions
        async with self.news:
            self.news.notify_all()

    async def recv(self) -> list[Item]:
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
        self.waits, self.release = asyncio.Event(), asyncio.Event()

    async def start(self, spec: SessionSpec) -> SandboxSession:
        self.running += 1
        self.most = max(self.most, self.running)
        return cast("SandboxSession", FakeSession(self, spec.run))


class FakeSession:
    """A run of `FakeSandbox`: what `run_session` uses of a session."""

    def __init__(self, sandbox: FakeSandbox, spec: RunSpec) -> None:
        self._sandbox = sandbox
        self._spec = spec

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._sandbox.running -= 1

    displayed = False

    async def output(self) -> AsyncIterator[Output]:
        yield Output("stdout", b"begun\n")
        if "wait" in (self._spec.code, *self._spec.argv):
            self._sandbox.waits.set()
            await self._sandbox.release.wait()
        if self._spec.code == "big":
            for _ in range(40):
                yield Output("stdout", b"x" * 50_000)

    async def wait(self) -> Exit:
        status = Status.error if self._spec.argv == ("fail",) else Status.ok
        return Exit(status=status, exit_code=0, duration_s=0.1, tier=self._sandbox.tier,
                    evidence={"source": "exit"})  # fmt: skip


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

        async def fetch(repo: str, revision: Revision, have: Revision | None) -> Bundle:
            del repo, have
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
        await self.channel.inbox.put([dispatch(c) for c in commands])

    async def acked(self, *commands: Command) -> None:
        await self.channel.until(lambda: {c.id for c in commands} <= set(self.channel.acks))

    async def over(self, command: Command) -> None:
        """Wait until the node's job for a command has ended, acknowledged or not."""
        name = f"command {command.id}"
        if jobs := [task for task in asyncio.all_tasks() if task.get_name() == name]:
            await asyncio.wait(jobs)

    def finished(self, task: str) -> dict[str, Any]:
        (fact,) = self.channel.of("task.finished", task)
        assert fact.outcome == fact.plain()["status"]
        assert (fact.actor, fact.trace) == (NODE, "t")
        return fact.plain()


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
