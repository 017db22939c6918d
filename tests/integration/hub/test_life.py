"""The hub's own life: a start that fails leaves nothing, a renewal that fails is tried again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from angelos.adapters.identity.authority import Pki
from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.core.frames import FactReport
from angelos.core.ids import PrincipalId
from angelos.hub import app, service, sessions
from angelos.hub.config import HubConfig
from angelos.testing import eventually, make_fact
from angelos.testing.hub import AcceptAll, connect, join, running_hub


async def test_a_start_that_fails_leaves_no_open_port(
    database, journal, queue, tmp_path, monkeypatch
):
    urls: list[str] = []

    class OnlyOne(app.Listener):
        def __init__(self, *args, **ways) -> None:
            if urls:
                raise Unavailable("The hub cannot listen.")
            super().__init__(*args, **ways)
            urls.append(self.url)

    monkeypatch.setattr(app, "Listener", OnlyOne)
    with pytest.raises(Unavailable, match="cannot listen"):
        async with running_hub(database, journal, queue, tmp_path):
            pytest.fail("it started")
    (url,) = urls
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_renewal_that_fails_is_tried_again(database, journal, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "LIFETIME_S", 0)
    monkeypatch.setattr(service, "_RETRY_S", 0)
    failures, real = [ValueError("not a key"), OSError("no disk")], Pki.renew_server
    renewed: list[float] = []

    def renew(pki: Pki) -> float:
        if failures:
            raise failures.pop(0)
        renewed.append(real(pki))
        return renewed[-1]

    async with running_hub(database, journal, queue, tmp_path):
        monkeypatch.setattr(Pki, "renew_server", renew)
        await eventually(lambda: renewed)


async def test_a_quarantine_of_another_hub_counts_though_the_database_was_away(
    database, journal, queue, tmp_path, monkeypatch
):
    """The one who follows identities ended in silence, and no later quarantine was heard of."""
    mallory = PrincipalId("agent/mallory")
    answers: list[Exception] = [Unavailable("PostgreSQL is away."), RuntimeError("a fault")]
    cut: list[str] = []
    async with running_hub(database, journal, queue, tmp_path) as hub:

        async def is_quarantined(principal: PrincipalId) -> bool:
            if answers:
                raise answers.pop(0)
            return principal == mallory

        monkeypatch.setattr(hub._identities, "is_quarantined", is_quarantined)
        monkeypatch.setattr(hub.sessions, "cut", lambda principal, *_: cut.append(principal))
        await journal.append([make_fact(Kind.principal_quarantined, mallory)])
        await eventually(lambda: cut == [mallory], "a cut after both failures")


async def test_a_peer_that_waits_for_a_fold_that_stands_still_does_not_keep_the_hub(
    database, journal, queue, tmp_path, monkeypatch
):
    monkeypatch.setattr(sessions, "_CLOSE_S", 0.1)
    waiting = asyncio.Event()

    class StandsStill(AcceptAll):
        def folds(self, kind):
            return True

        async def folded(self, offset):
            waiting.set()
            await asyncio.get_running_loop().create_future()

    def report(n):
        actor, data = PrincipalId("node/exec1"), {"node": "exec1"}
        fact = make_fact(Kind.task_started, f"task-{n:032x}", actor=actor, data=data)
        return FactReport(fact.id, msgspec.msgpack.encode(fact))

    async with AsyncExitStack() as peer:
        async with asyncio.timeout(60):
            async with running_hub(
                database, journal, queue, tmp_path,
                config=HubConfig(unfolded=1), admission=StandsStill(),
            ) as hub:  # fmt: skip
                identity = await join(hub, "node", "exec1", tmp_path / "exec1")
                channel = await peer.enter_async_context(connect(hub, identity))
                await channel.send([report(1)])
                await eventually(
                    lambda: hub.sessions._credits.of(PrincipalId("node/exec1")).unfolded
                )
                await channel.send([report(2)])
                await waiting.wait()
