"""A checkout that works becomes current; one that does not, does not: with real boxes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from angelos.adapters.host.clock import SystemClock
from angelos.core.envelopes import EnvelopeHeader, Lane
from angelos.core.facts import Fact
from angelos.core.frames import Dispatch, FactReport, Item, Settle
from angelos.core.grants import Grant, digest, sign_grant
from angelos.core.ids import PrincipalId, Revision, TaskId, new_command_id, new_grant_id
from angelos.core.messages import Checkout, Command, Payload, RunTask, Tier, decode, encode
from angelos.core.revision import Bundle
from angelos.core.signing import SigningKey
from angelos.node.config import NodeConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.service import Keys, Node
from angelos.testing import need, signed_bundle

KEY = SigningKey(bytes(range(32)))
ME = PrincipalId("node/labs1")


class Hub:
    """The other end of the channel: one command at a time, and what is printed until its ack."""

    def __init__(self) -> None:
        self.peer = PrincipalId("system/hub")
        self.down: asyncio.Queue[list[Item]] = asyncio.Queue()
        self.up: asyncio.Queue[Item] = asyncio.Queue()

    async def send(self, batch: Sequence[Item]) -> None:
        for item in batch:
            await self.up.put(item)

    async def recv(self) -> list[Item]:
        return await self.down.get()

    async def close(self, reason: str = "") -> None:
        del reason

    async def ask(self, payload: Payload) -> list[Fact]:
        body = encode(payload)
        grant = Grant(
            id=new_grant_id(), who=PrincipalId("system/control"), what=digest(body), where=ME,
            policy="", rule="", not_after=SystemClock().time() + 60,
        )  # fmt: skip
        command = Command(id=new_command_id(), to=ME, grant=sign_grant(KEY, grant), payload=body)
        header = EnvelopeHeader(
            id=command.id, source=PrincipalId("system/control"), destination=ME, lane=Lane.command,
            sequence=1, codec="msgpack",
        )  # fmt: skip
        await self.down.put([Dispatch("1-1", 1, header, encode(command))])
        facts = []
        while isinstance(item := await self.up.get(), FactReport):
            facts.append(decode(item.body, Fact))
        assert item == Settle(("1-1",))
        return facts


def revision_of(files: dict[str, bytes], bundles: dict[Revision, Bundle]) -> Revision:
    bundle = signed_bundle(KEY, files)
    bundles[bundle.signed.revision] = bundle
    return bundle.signed.revision


async def test_only_a_healthy_revision_becomes_current(tmp_path: Path) -> None:
    bundles: dict[Revision, Bundle] = {}
    good = revision_of({"study/__init__.py": b"", "study/check.py": b"print('well')"}, bundles)
    bad = revision_of({"study/__init__.py": b"", "study/check.py": b"1/0"}, bundles)
    hub = Hub()

    @contextlib.asynccontextmanager
    async def connect(info: dict[str, str]) -> AsyncIterator[Hub]:
        del info
        yield hub

    async def fetch(repo: str, revision: Revision, have: Revision | None) -> Bundle:
        del repo, have
        return bundles[revision]

    def checkout(revision: Revision) -> Checkout:
        health = ("python", "-m", "study.check")
        return Checkout(repo="study", branch="main", revision=revision, health=health, canary=True)

    config = NodeConfig(name="labs1", role="labs", directory=tmp_path / "node")
    keys = Keys(grant=KEY.public, revision=KEY.public)
    async with BubblewrapSandbox() as sandbox:
        need(sandbox.tier in {Tier.full, Tier.reduced}, f"no boxes here: {sandbox.reasons}")
        async with Node(config, connect, fetch, sandbox, SystemClock(), keys) as node:
            job = asyncio.create_task(node.run())
            (healthy,) = await hub.ask(checkout(good))
            assert (healthy.kind, healthy.outcome) == ("checkout.healthy", "ok")
            assert healthy.plain() == {"repo": "study", "branch": "main", "canary": True}
            (failed,) = await hub.ask(checkout(bad))
            assert (failed.kind, failed.outcome) == ("checkout.failed", "error")
            assert failed.plain()["stayed_on"] == good == node.checkouts.current("study")
            assert "ZeroDivisionError" in failed.plain()["detail"]
            code = "import study.check, os; print(os.getcwd(), study.check.__file__)"
            task = RunTask(task=TaskId("task-1"), code=code, repo="study", revision=good)
            end = (await hub.ask(task))[-1]
            assert end.plain()["stdout"] == "well\n/work /work/study/check.py\n", end.plain()
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
