"""The queue of one destination is bounded in bytes as well: nobody fills the store for others."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from angelos.adapters.stores import envelope_queue
from angelos.adapters.stores.backlog import LANES
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.core.envelopes import EnvelopeHeader, Lane, RetryPolicy, RoutedEnvelope
from angelos.core.errors import Busy, Fenced
from angelos.core.ids import PrincipalId


def envelope(number, lane=Lane.message, to="agent/bob", size=400):
    header = EnvelopeHeader(
        id=f"m{number}", source=PrincipalId("agent/ada"), destination=PrincipalId(to), lane=lane,
        sequence=number, codec="json",
    )  # fmt: skip
    return RoutedEnvelope(header, bytes(size))


async def test_bytes_are_bounded_over_all_lanes_and_control_passes(valkey, monkeypatch):
    monkeypatch.setattr(envelope_queue, "_MOST_BYTES", 1_000)
    queue = ValkeyEnvelopeQueue(valkey)
    await queue.put(envelope(1))
    await queue.put(envelope(2, Lane.log))
    for lane in (Lane.message, Lane.log, Lane.command):
        with pytest.raises(Busy, match="bytes"):
            await queue.put(envelope(3, lane))
    assert (await queue.put(envelope(1))).duplicate
    await queue.put(envelope(4, Lane.control))
    await queue.put(envelope(5, to="agent/eve", size=5_000))  # alone, whatever its size
    token = await queue.claim(PrincipalId("agent/bob"), "test")
    depth = await queue.depth(PrincipalId("agent/bob"))
    assert depth.waiting == {Lane.message: 1, Lane.log: 1, Lane.control: 1}
    takes = queue.take(token)
    taken = [await anext(takes) for _ in range(3)]
    await queue.ack(token, [delivery.position for delivery in taken])
    await takes.aclose()
    await queue.put(envelope(6))


async def test_what_vanished_while_it_was_with_its_consumer_is_subtracted_once(valkey):
    queue, bob = ValkeyEnvelopeQueue(valkey, capacity=4), PrincipalId("agent/bob")
    lanes = [Lane.message] * 3 + [Lane.log] * 4
    for number, lane in enumerate(lanes):
        await queue.put(envelope(number + 1, lane, size=100 + number))
    token = await queue.claim(bob, "test")
    async with aclosing(queue.take(token)) as takes:
        taken = [(await anext(takes)).position for _ in lanes]
        assert await queue.remove(bob, PrincipalId("agent/ada"), ["m2"]) == 1
        assert (await queue.put(envelope(8, Lane.log, size=1_000))).dropped == 1
        assert await queue.ack(token, taken[:6]) == 4
        assert (await queue.depth(bob)).waiting_bytes == 106 + 1_000
        assert await queue.ack(token, taken[:6]) == 0
        assert (await queue.depth(bob)).waiting_bytes == 106 + 1_000
        keys = queue.keys(bob)
        await valkey.xdel(keys.lanes[LANES.index(Lane.log)], taken[6])  # a foreign hand
        assert await queue.ack(token, taken) == 0
        assert (await queue.depth(bob)).waiting_bytes == 1_000
        assert not await valkey.exists(keys.gone)


async def test_what_nobody_acknowledges_any_more_is_not_noted_for_ever(valkey):
    queue, bob = ValkeyEnvelopeQueue(valkey), PrincipalId("agent/bob")
    await queue.put(envelope(1))
    await queue.remove(bob, PrincipalId("agent/ada"), ["m1"])
    assert await valkey.scard(queue.keys(bob).gone) == 1
    await queue.claim(bob, "next")
    assert not await valkey.exists(queue.keys(bob).gone)


async def test_more_than_a_page_is_read_in_parts_and_little_at_once(valkey, monkeypatch):
    """Whole pages are read only where all that waits is no more than one."""
    monkeypatch.setattr(envelope_queue, "_PAGE_BYTES", 1_000)
    soon = RetryPolicy(first_s=0.001, most_s=0.002)
    queue, bob = ValkeyEnvelopeQueue(valkey, retry=soon), PrincipalId("agent/bob")
    plain, pages = [], queue.pages

    async def counted(token, starts):
        answer = await pages(token, starts)
        plain.append(sum(len(rows) for _, rows in answer[0]))
        return answer

    monkeypatch.setattr(queue, "pages", counted)
    for number in range(1, 11):
        await queue.put(envelope(number))
    token = await queue.claim(bob, "test")
    async with aclosing(queue.take(token)) as takes:
        taken = [(await anext(takes)).position for _ in range(10)]
        assert plain == []
        await queue.ack(token, taken)
        for number in (11, 12):  # the first read by the script, which says how little waits
            await queue.put(envelope(number))
            delivery = await anext(takes)
        assert sum(plain) == 1
        await queue.nack(token, delivery.position, "later")
        await queue.put(envelope(13))
        again = await anext(takes)
        assert (again.envelope.header.id, again.attempt) == ("m12", 2)
    await queue.claim(bob, "next")
    with pytest.raises(Fenced):
        await pages(token, ["-"] * len(LANES))
