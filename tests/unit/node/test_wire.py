"""A wire shares the event loop, however fast its other end is."""

from __future__ import annotations

import asyncio
import socket

import h11
import pytest

from angelos.node.broker.models import BrokerLimits, RequestRefused
from angelos.node.broker.upstream import Upstream
from angelos.node.broker.wire import PlainWire

STEPS = 20


async def _turns_beside(steps: asyncio.Task[None]) -> int:
    turns = 0
    while not steps.done():
        await asyncio.sleep(0)
        turns += 1
    await steps
    return turns


async def test_who_sends_all_the_time_does_not_stop_everything_else() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"x" * STEPS)
        wire = PlainWire(near, 60.0)

        async def read() -> None:
            count = 0
            while count < STEPS:
                far.send(b"y")
                count += min(1, len(await wire.receive()))

        assert await _turns_beside(asyncio.create_task(read())) >= STEPS


async def test_who_takes_all_at_once_does_not_stop_everything_else() -> None:
    near, far = socket.socketpair()
    with near, far:
        wire = PlainWire(near, 60.0)

        async def write() -> None:
            for _ in range(STEPS):
                await wire.send(b"x")

        assert await _turns_beside(asyncio.create_task(write())) >= STEPS
        assert far.recv(100) == b"x" * STEPS


async def test_a_host_that_never_comes_to_its_answer_is_given_up() -> None:
    near, far = socket.socketpair()
    with near, far:
        host = Upstream(PlainWire(near, 60.0), "a.test", BrokerLimits())
        await host.send(h11.Request(method="GET", target="/", headers=[("host", "a.test")]))
        await host.send(h11.EndOfMessage())
        far.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + b"HTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(RequestRefused, match="does not come"):
            await host.head()
