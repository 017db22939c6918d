"""Cancelling a reader ends it, whatever it was doing.

Before Python 3.12 `asyncio.wait_for` may swallow a cancellation that comes just as it is done.
redis-py sends through it when it has a socket timeout: followers then lived for ever.
"""

from __future__ import annotations

import asyncio

import pytest

from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.core.ids import START, PrincipalId
from angelos.testing import make_fact


@pytest.mark.parametrize("steps", range(16))
@pytest.mark.parametrize("reader", ["follow", "take"])
async def test_a_reader_cancelled_after_any_number_of_steps_ends(valkey, reader, steps):
    async def read():
        if reader == "follow":
            iterator = ValkeyJournal(valkey).follow(START)
        else:
            queue = ValkeyEnvelopeQueue(valkey)
            iterator = queue.take(await queue.claim(PrincipalId("node/exec1"), "test"))
        async for _ in iterator:
            pass

    task = asyncio.create_task(read())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done, "it went on after it was cancelled"
    assert task.cancelled()


async def test_a_cancelled_append_holds_nobody_up(valkey):
    journal = ValkeyJournal(valkey)
    facts = [make_fact("task.accepted", f"task-{n}") for n in range(6)]
    tasks = [asyncio.create_task(journal.append([fact])) for fact in facts]
    await asyncio.sleep(0)
    tasks[0].cancel()  # it sends for the others
    tasks[3].cancel()  # it waits
    await asyncio.wait(tasks, timeout=10)
    assert [task.cancelled() for task in tasks] == [n in {0, 3} for n in range(6)]
    kept = [fact.id for fact in await journal.read(START)]
    assert len(kept) == len(set(kept))
    assert {fact.id for n, fact in enumerate(facts) if n not in {0, 3}} <= set(kept)
