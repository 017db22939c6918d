"""Following the journal: on from the last offset, refused in words, and gone when its reader is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from angelos.client import events
from angelos.core import errors
from angelos.core.facts import TaskOutput
from angelos.testing import eventually
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]


async def test_events_go_on_after_the_last_one_when_the_link_breaks(world, angelos):
    for n in range(1, 6):
        world.fact(f"{n}-0", "task.output", stream="stdout", text=str(n), index=n)
    world.drop_after = [2, 0, 1]
    got = []
    async with aclosing(angelos.events()) as facts:
        async for fact in facts:
            got.append(fact.read(TaskOutput).index)
            if len(got) == 5:
                break
    assert got == [1, 2, 3, 4, 5]
    assert world.followed == ["0-0", "2-0", "2-0", "3-0"]


async def test_events_give_up_when_the_server_stays_away(world, angelos):
    world.drop_after = [0] * 1000
    with pytest.raises(errors.Unavailable, match="keeps closing"):
        await anext(angelos.events(patience_s=0))


@pytest.mark.parametrize("status", [401, 403])
async def test_events_that_are_refused_raise(world, angelos, status):
    world.refuse_events = status
    with pytest.raises((errors.Forbidden, errors.Unauthenticated)):
        await anext(angelos.events())


async def test_the_connection_has_ended_when_its_reader_has(world, angelos, monkeypatch):
    links = []

    async def dial(*args, **kwargs):
        links.append(await dialled(*args, **kwargs))
        return links[-1]

    dialled = events.dial
    monkeypatch.setattr(events, "dial", dial)
    world.fact("1-0", "task.output")
    async with aclosing(angelos.events()) as facts:
        await anext(facts)
        (stream,) = [link.protocol.stream for link in links]
        assert not stream.closed()
    assert stream.closed()
    await asyncio.wait_for(world.closed.wait(), 20)


async def test_a_link_that_comes_after_its_reader_has_gone_is_closed(world, angelos):
    world.open_events = asyncio.Event()
    reading = asyncio.ensure_future(anext(angelos.events()))
    await eventually(lambda: world.asked, "the request")
    reading.cancel()
    await asyncio.wait({reading})
    world.open_events.set()
    await asyncio.wait_for(world.closed.wait(), 20)


async def test_an_end_for_good_is_not_tried_again(world, angelos):
    world.drop_after, world.close_code = [0], 1008
    with pytest.raises(errors.Forbidden, match="cut"):
        await anext(angelos.events())
