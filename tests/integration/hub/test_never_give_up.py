"""A channel ends only when the hub refuses it; after any other failure it is dialled again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import warnings
from contextlib import AsyncExitStack

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.net import websocket
from angelos.adapters.net.websocket import connect_channel
from angelos.core.errors import Unauthenticated
from angelos.core.frames import EndCode
from angelos.testing import ManualClock, eventually
from angelos.testing.hub import join, running_hub

NODES, KILLS, DIALS_A_KILL = 10, 20, 50
BACK_S = 30.0


class Forwarder:
    """A TCP forwarder in front of the hub; without a hub it closes after 0 to 2 ms."""

    def __init__(self):
        self.target = None
        self.dials = 0
        self.enough = asyncio.Event()
        self.wanted = 0
        self._links = set()
        self._random = random.Random(0)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()

    def cut(self):
        """Lose every connection at once."""
        for writer in self._links:
            writer.transport.abort()

    async def until_dialled(self, count):
        self.wanted, self.enough = self.dials + count, asyncio.Event()
        await self.enough.wait()

    async def _serve(self, reader, writer):
        self.dials += 1
        if self.dials >= self.wanted:
            self.enough.set()
        if self.target is None:
            await asyncio.sleep(self._random.uniform(0, 0.002))
            writer.transport.abort() if self._random.random() < 0.5 else writer.close()
            return
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._links |= {writer, back}
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._links -= {writer}


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    with contextlib.suppress(OSError):
        writer.close()


def _port(hub):
    return int(hub.url.rpartition(":")[2])


@pytest.fixture(autouse=True)
def collected():
    """Collect what a test leaves when its frame is gone, and not in the test that comes next."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


# Tornado leaves the socket of a TLS handshake that fails to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.slow
async def test_no_node_gives_up_while_the_hub_dies_behind_a_forwarder(
    database, journal, queue, tmp_path, monkeypatch
):
    monkeypatch.setattr(websocket, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(websocket, "_LAST_PAUSE_S", 0.02)
    logging.getLogger("tornado").setLevel(logging.CRITICAL)

    async def all_up():
        return all(c.up.is_set() and c.machine.phase == "up" for c in channels)

    async with AsyncExitStack() as outer, Forwarder() as forwarder:
        inner = AsyncExitStack()
        hub = await inner.enter_async_context(running_hub(database, journal, queue, tmp_path))
        forwarder.target = _port(hub)
        channels = []
        for n in range(NODES):
            identity = await join(hub, "node", f"n{n}", tmp_path / f"n{n}")
            context = identity.client_context()
            channel = connect_channel(forwarder.url, context, SystemClock(), patience_s=None)
            channels.append(await outer.enter_async_context(channel))
        for _ in range(KILLS):
            forwarder.target = None
            forwarder.cut()
            await inner.aclose()
            await forwarder.until_dialled(DIALS_A_KILL)
            hub = await inner.enter_async_context(running_hub(database, journal, queue, tmp_path))
            forwarder.target = _port(hub)
            async with asyncio.timeout(BACK_S):
                await eventually(all_up, "every node", within_s=BACK_S)
        assert forwarder.dials >= NODES + KILLS * DIALS_A_KILL
        assert [c.ended for c in channels] == [None] * NODES
        await outer.aclose()
        await inner.aclose()


@pytest.mark.parametrize(
    "error", [ValueError("closed"), RuntimeError("odd"), KeyError("x"), AttributeError("y")]
)
async def test_any_error_of_a_dial_means_try_again(
    database, journal, queue, tmp_path, monkeypatch, error
):
    dial, tries = websocket.dial, []

    async def failing(*args, **kwargs):
        tries.append(error)
        if len(tries) < 4:
            raise error
        return await dial(*args, **kwargs)

    monkeypatch.setattr(websocket, "dial", failing)
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect_channel(hub.url, identity.client_context(), SystemClock()) as channel:
            assert len(tries) == 4
            assert channel.ended is None


async def test_a_certificate_that_the_hub_calls_expired_twice_ends_the_channel(
    database, journal, queue, tmp_path, monkeypatch
):
    monkeypatch.setattr(websocket, "_LAST_PAUSE_S", 0.02)
    yesterday = ManualClock(SystemClock().time() - 30 * 3600)
    async with running_hub(database, journal, queue, tmp_path, clock=yesterday) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
    async with running_hub(database, journal, queue, tmp_path) as hub:
        clock = ManualClock()
        channel = connect_channel(hub.url, identity.client_context(), clock, patience_s=None)
        waiting = asyncio.create_task(channel.__aenter__())

        async def refused():
            return channel._expired_since is not None

        await eventually(refused, "the first refusal")
        clock.advance(50)
        asked_at = channel._ask_alert_at
        await eventually(lambda: channel._ask_alert_at > asked_at, "one more")
        await eventually(lambda: channel.last_end is None, "its answer")
        assert not waiting.done(), "refused for less than a minute"
        clock.advance(16)
        with pytest.raises(Unauthenticated, match="expired") as caught:
            await asyncio.wait_for(waiting, 30)
        assert "Enrol again" in caught.value.hint
        assert channel.ended.code == EndCode.expired
