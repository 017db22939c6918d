"""What every queue promises (`core.ports.Queue`)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from angelos.core.errors import Busy
from angelos.core.grants import SignedGrant
from angelos.core.ids import PrincipalId, new_command_id, offset_key
from angelos.core.messages import Command
from angelos.testing import eventually

CAPACITY = 20  # as in conftest.py
NODE, OTHER = PrincipalId("node/exec1"), PrincipalId("node/exec2")
GRANT = SignedGrant(body=b"", signature=b"")


def command(to=NODE):
    return Command(id=new_command_id(), to=to, grant=GRANT, payload=b"payload")


async def deliveries(queue, count, to=NODE):
    got = []
    async with asyncio.timeout(20), aclosing(queue.take(to)) as taking:
        async for delivery in taking:
            got.append(delivery)
            if len(got) == count:
                return got
    return got


async def test_commands_come_in_order_and_whole(any_queue):
    commands = [command() for _ in range(5)]
    receipts = [await any_queue.put(NODE, c) for c in commands]
    assert [r.command for r in receipts] == [c.id for c in commands]
    assert sorted(receipts, key=lambda r: offset_key(r.position)) == receipts
    assert await any_queue.depth(NODE) == 5
    got = await deliveries(any_queue, 5)
    assert [d.command for d in got] == commands
    assert [d.position for d in got] == [r.position for r in receipts]


async def test_destinations_do_not_mix(any_queue):
    mine, theirs = command(), command(OTHER)
    await any_queue.put(NODE, mine)
    await any_queue.put(OTHER, theirs)
    assert [d.command for d in await deliveries(any_queue, 1)] == [mine]
    assert [d.command for d in await deliveries(any_queue, 1, OTHER)] == [theirs]


async def test_what_is_acknowledged_does_not_come_again_and_the_rest_does(any_queue):
    commands = [command() for _ in range(4)]
    for c in commands:
        await any_queue.put(NODE, c)
    got = await deliveries(any_queue, 4)
    await got[2].ack()  # out of order
    await got[0].ack()
    await got[0].ack()  # twice is once
    assert await any_queue.depth(NODE) == 2
    assert [d.command for d in await deliveries(any_queue, 2)] == [commands[1], commands[3]]


async def test_a_command_sent_again_is_a_duplicate_even_after_it_was_done(any_queue):
    c = command()
    first = await any_queue.put(NODE, c)
    again = await any_queue.put(NODE, c)
    assert not first.duplicate
    assert again.duplicate
    assert again.position == first.position
    (delivery,) = await deliveries(any_queue, 1)
    await delivery.ack()
    assert (await any_queue.put(NODE, c)).duplicate
    assert await any_queue.depth(NODE) == 0


async def test_a_full_queue_is_busy_and_keeps_what_it_has(any_queue):
    commands = [command() for _ in range(CAPACITY)]
    for c in commands:
        await any_queue.put(NODE, c)
    with pytest.raises(Busy, match="node/exec1"):
        await any_queue.put(NODE, command())
    assert (await any_queue.put(NODE, commands[0])).duplicate  # known ones are not refused
    await any_queue.put(OTHER, command(OTHER))  # nor other destinations
    (delivery,) = await deliveries(any_queue, 1)
    await delivery.ack()
    await any_queue.put(NODE, command())
    assert await any_queue.depth(NODE) == CAPACITY


async def test_what_is_given_back_comes_again_in_its_place(any_queue):
    commands = [command() for _ in range(3)]
    for c in commands:
        await any_queue.put(NODE, c)
    async with asyncio.timeout(20), aclosing(any_queue.take(NODE)) as taking:
        got = [await anext(taking) for _ in range(3)]
        await got[1].nack("not now")
        await got[0].nack("not now")
        again = [await anext(taking) for _ in range(2)]
        assert [d.command for d in again] == commands[:2]
        await got[2].ack()
        for delivery in again:
            await delivery.ack()
    assert await any_queue.depth(NODE) == 0


async def test_giving_back_wakes_a_consumer_that_waits(any_queue):
    await any_queue.put(NODE, command())
    async with asyncio.timeout(20), aclosing(any_queue.take(NODE)) as taking:
        delivery = await anext(taking)
        waiting = asyncio.create_task(anext(taking))
        await asyncio.sleep(0)
        await delivery.nack("again")
        assert (await waiting).command == delivery.command


async def test_a_waiting_consumer_gets_what_is_put_later(any_queue):
    waiting = asyncio.create_task(deliveries(any_queue, 2))
    commands = [command(), command()]
    for c in commands:
        await any_queue.put(NODE, c)
    assert [d.command for d in await waiting] == commands


async def test_drop_removes_waiting_commands_only(any_queue):
    commands = [command() for _ in range(4)]
    for c in commands:
        await any_queue.put(NODE, c)
    (first,) = await deliveries(any_queue, 1)
    await first.ack()
    dropped = await any_queue.drop(NODE, [commands[0].id, commands[2].id, new_command_id()])
    assert dropped == 1
    assert await any_queue.drop(NODE, []) == 0
    assert [d.command for d in await deliveries(any_queue, 2)] == [commands[1], commands[3]]


async def test_many_senders_and_one_consumer(any_queue):
    total = 60

    async def send(part):
        for c in part:
            await eventually(lambda c=c: try_put(c), "room in the queue")

    async def try_put(c):
        try:
            return await any_queue.put(NODE, c)
        except Busy:
            return None

    async def work():
        seen = []
        async with aclosing(any_queue.take(NODE)) as taking:
            async for delivery in taking:
                seen.append(delivery.command.id)
                await delivery.ack()
                if len(seen) == total:
                    return seen
        return seen

    commands = [command() for _ in range(total)]
    worker = asyncio.create_task(work())
    await asyncio.gather(*(send(commands[i::3]) for i in range(3)))
    seen = await asyncio.wait_for(worker, 20)
    assert sorted(seen) == sorted(c.id for c in commands)
    for i in range(3):
        mine = [c.id for c in commands[i::3]]
        assert [s for s in seen if s in set(mine)] == mine
