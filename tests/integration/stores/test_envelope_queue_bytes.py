"""The queue of one destination is bounded in bytes as well: nobody fills the store for others."""

from __future__ import annotations

import pytest

from angelos.adapters.stores import envelope_queue
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.errors import Busy
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
