"""Messages from peer to peer, within rights, by name and by label; what cannot go is a fact."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.net.websocket import connect_channel
from angelos.adapters.stores.announcements import ValkeyAnnouncements
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.core.envelopes import DeadReason, Lane
from angelos.core.facts import Kind, MessageRefused
from angelos.core.frames import Dispatch, Post, PostReceipt, Settle
from angelos.core.ids import PrincipalId
from angelos.hub.config import HubConfig
from angelos.hub.fairness import IdentityLimits
from angelos.testing import eventually, next_fact
from angelos.testing.hub import connect, join, running_hub

ADA, BOB, NODE = PrincipalId("agent/ada"), PrincipalId("agent/bob"), PrincipalId("node/exec1")


def post(number, to=BOB, lane=Lane.message, **fields):
    return Post(f"m{number}", to, lane, number, "json", b'{"n": %d}' % number, **fields)


async def received(channel, kind, count):
    items = []
    while len(items) < count:
        items += [item for item in await channel.recv() if isinstance(item, kind)]
    return items


async def test_messages_come_in_order_whole_and_from_who_sent_them(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        bob = await join(hub, "agent", "bob", tmp_path / "bob")
        async with connect(hub, ada) as sender:
            await sender.send([post(n, trace="t-1") for n in range(1, 51)])
            await sender.send([post(1)])  # again, while nobody is there to take it
            receipts = await received(sender, PostReceipt, 51)
            assert [(r.code, r.to, r.duplicate) for r in receipts[:50]] == [("", BOB, False)] * 50
            assert receipts[50].duplicate
        async with connect(hub, bob) as receiver:
            dispatches = await received(receiver, Dispatch, 50)
            headers = [d.header for d in dispatches]
            assert [h.sequence for h in headers] == list(range(1, 51))
            assert {(h.source, h.lane, h.codec, h.trace) for h in headers} == {
                (ADA, Lane.message, "json", "t-1")
            }
            assert dispatches[6].body == b'{"n": 7}'
            await receiver.send([Settle(tuple(d.position for d in dispatches))])

            async def settled():
                return (await queue.depth(BOB)).waiting == {}

            await eventually(settled)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"lane": Lane.command}, "forbidden"),
        ({"lane": Lane.control}, "forbidden"),
        ({"to": "person/owner"}, "forbidden"),
        ({"to": "system/hub"}, "forbidden"),
        ({"to": "gpu"}, "not-found"),
        ({"to": "agent/nobody"}, "not-found"),
        ({"to": "node/../x"}, "invalid-input"),
        ({"to": ""}, "invalid-input"),
    ],
    ids=str,
)
async def test_what_may_not_be_sent_is_refused_with_a_fact(
    database, journal, queue, tmp_path, wrong, code
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        await join(hub, "agent", "bob", tmp_path / "bob")
        async with connect(hub, ada) as sender:
            await sender.send([post(1, **wrong), post(2)])
            refused, taken = await received(sender, PostReceipt, 2)
            assert (refused.code, taken.code) == (code, "")
        fact = await next_fact(journal, kind=Kind.message_refused, subject=ADA)
        assert fact.read(MessageRefused).code == code
    assert (await queue.depth(NODE)).waiting == {}
    assert (await queue.depth(PrincipalId("agent/nobody"))).waiting == {}


async def test_a_label_finds_who_has_it_and_a_word_sticks(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        names = ("one", "two", "three")
        nodes = {name: await join(hub, "node", name, tmp_path / name) for name in names}
        channels = [
            connect(hub, nodes["one"], info={"labels": "gpu"}),
            connect(hub, nodes["two"], info={"labels": "language=rust,role=admin"}),
            connect(hub, nodes["three"], info={"labels": "language=rust"}),
        ]
        async with connect(hub, ada) as sender, channels[0], channels[1], channels[2]:
            await eventually(lambda: len(hub.sessions.candidates()) == 4)
            await sender.send(
                [post(1, "gpu"), post(2, "role=execution,gpu"), post(3, "role=admin")]
            )
            receipts = await received(sender, PostReceipt, 3)
            assert [r.to for r in receipts[:2]] == ["node/one", "node/one"]
            assert receipts[2].code == "not-found", "a role is enrolled, not reported"
            await sender.send([post(n, "language=rust", sticky="x") for n in range(10, 20)])
            assert len({r.to for r in await received(sender, PostReceipt, 10)}) == 1
            for number in range(20, 24):  # each goes to the one with less to do
                await sender.send([post(number, "role=execution,language=rust")])
                await received(sender, PostReceipt, 1)
            await eventually(lambda: sum(c.load for c in hub.sessions.candidates()) == 16)


async def test_a_message_that_is_refused_is_a_dead_letter(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        bob = await join(hub, "agent", "bob", tmp_path / "bob")
        async with connect(hub, ada) as sender, connect(hub, bob) as receiver:
            await sender.send([post(1), post(2)])
            first, second = await received(receiver, Dispatch, 2)
            await receiver.send(
                [Settle((first.position,), "refused", "not mine"), Settle((second.position,))]
            )

            async def dead():
                return await queue.dead_letters(BOB)

            (letter,) = await eventually(dead)
            assert (letter.reason, letter.detail) == (DeadReason.refused, "not mine")


async def test_a_second_hub_takes_a_destination_over_and_the_first_is_fenced(
    database, journal, queue, tmp_path
):
    async with (
        running_hub(database, journal, queue, tmp_path) as one,
        running_hub(database, journal, queue, tmp_path) as two,
    ):
        bob = await join(two, "agent", "bob", tmp_path / "bob")
        ada = await join(one, "agent", "ada", tmp_path / "ada")
        await eventually(lambda: BOB in one.sessions.enrolled, "the other hub's enrolment")
        context = bob.client_context()
        async with (
            connect_channel(one.url, context, SystemClock()) as old,
            connect_channel(two.url, context, SystemClock()) as new,
            connect(one, ada) as sender,
        ):
            await eventually(lambda: old.ended is not None, "the end of the older connection")
            assert old.ended.code == "fenced"
            await sender.send([post(n) for n in range(1, 4)])
            assert [d.header.id for d in await received(new, Dispatch, 3)] == ["m1", "m2", "m3"]


async def test_a_quarantine_cuts_on_every_hub(database, journal, queue, tmp_path):
    async with (
        running_hub(database, journal, queue, tmp_path) as one,
        running_hub(database, journal, queue, tmp_path) as two,
    ):
        bob = await join(one, "agent", "bob", tmp_path / "bob")
        async with connect_channel(two.url, bob.client_context(), SystemClock()) as channel:
            await one.quarantine(BOB, "It asked for it.")
            await eventually(lambda: channel.ended is not None, "the cut")
            assert channel.ended.code in {"quarantined", "unauthenticated"}


async def test_a_flooder_is_read_slowly_loses_nothing_and_holds_nobody_up(
    database, journal, valkey, tmp_path
):
    queue = ValkeyEnvelopeQueue(valkey, capacity=5_000)
    config = HubConfig(limits=IdentityLimits(items=1_000))
    async with running_hub(database, journal, queue, tmp_path, config=config) as hub:
        loud = await join(hub, "agent", "loud", tmp_path / "loud")
        calm = await join(hub, "agent", "calm", tmp_path / "calm")
        await join(hub, "agent", "bob", tmp_path / "bob")
        await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, loud) as flood, connect(hub, calm) as other:
            sending = asyncio.create_task(flood.send([post(n) for n in range(1, 3001)]))
            await eventually(lambda: hub.ledger.of(loud.id).paused_s > 0)
            await other.send([post(1, to=NODE)])
            (receipt,) = await received(other, PostReceipt, 1)
            assert receipt.code == ""
            receipts = await received(flood, PostReceipt, 3_000)
            await sending
            assert [receipt.id for receipt in receipts] == [f"m{n}" for n in range(1, 3001)]
            assert {receipt.code for receipt in receipts} == {""}
            assert hub.ledger.of(calm.id).paused_s == 0
        assert (await queue.depth(BOB)).waiting == {Lane.message: 3_000}


async def test_a_full_lane_is_busy_for_a_time_and_a_lossy_one_says_what_it_dropped(
    database, journal, valkey, tmp_path
):
    queue = ValkeyEnvelopeQueue(valkey, capacity=3)
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        await join(hub, "agent", "bob", tmp_path / "bob")
        async with connect(hub, ada) as sender:
            await sender.send([post(n) for n in range(1, 6)])
            receipts = await received(sender, PostReceipt, 5)
            assert [(r.code, r.retry_after_s > 0) for r in receipts] == [
                ("", False), ("", False), ("", False), ("busy", True), ("busy", True),
            ]  # fmt: skip
            for number, lane in enumerate((Lane.log, Lane.heartbeat, Lane.dashboard)):
                await sender.send([post(100 * number + n, lane=lane) for n in range(10, 15)])
                receipts = await received(sender, PostReceipt, 5)
                assert [(r.code, r.dropped) for r in receipts] == [("", 0)] * 3 + [("", 1)] * 2
        depth = await queue.depth(BOB)
        assert depth.waiting == {
            Lane.message: 3, Lane.log: 3, Lane.heartbeat: 3, Lane.dashboard: 3,
        }  # fmt: skip
        assert depth.dropped == {Lane.log: 2, Lane.heartbeat: 2, Lane.dashboard: 2}


async def test_a_label_finds_peers_of_all_hubs_and_work_is_spread_over_them(
    database, journal, queue, valkey, tmp_path
):
    hubs = [
        running_hub(
            database, journal, queue, tmp_path, announcements=ValkeyAnnouncements(valkey, "hub")
        )
        for _ in range(2)
    ]
    async with hubs[0] as one, hubs[1] as two, AsyncExitStack() as stack:
        workers, senders = {}, []
        for hub, name in ((one, "one"), (two, "two"), (two, "three")):
            identity = await join(hub, "node", name, tmp_path / name)
            link = connect_channel(
                hub.url, identity.client_context(), SystemClock(), info={"labels": "gpu"}
            )
            workers[identity.id] = await stack.enter_async_context(link)
        for hub, name in ((one, "ada"), (two, "bob")):
            await eventually(
                lambda hub=hub: {*workers} <= {p.principal for p in hub.sessions.candidates()}
            )
            identity = await join(hub, "agent", name, tmp_path / name)
            link = connect_channel(hub.url, identity.client_context(), SystemClock())
            senders.append(await stack.enter_async_context(link))
        ada, bob = senders
        await ada.send([post(n, "gpu") for n in range(1, 31)])
        receipts = await received(ada, PostReceipt, 30)
        assert {r.code for r in receipts} == {""}
        assert {r.to for r in receipts} == {*workers}
        for principal, link in workers.items():
            share = sum(r.to == principal for r in receipts)
            assert len(await received(link, Dispatch, share)) == share
        await ada.send([post(n, "gpu", sticky="w") for n in range(31, 41)])
        (chosen,) = {r.to for r in await received(ada, PostReceipt, 10)}
        await bob.send([post(1, "gpu", sticky="w")])
        assert [r.to for r in await received(bob, PostReceipt, 1)] == [chosen], "on every hub"
        await valkey.execute_command("FLUSHDB")  # what the store forgot is announced again
        await valkey.execute_command("HSET", "{announced:hub}:bodies", "stranger", b"no rows")
        await valkey.execute_command("HSET", "{announced:hub}:seen", "stranger", 2**40)
        neighbours = one.sessions._neighbours
        for _ in range(2):
            await two.sessions._neighbours.refresh()
            await neighbours.refresh()
        assert {"node/two", "node/three"} <= {p.principal for p in neighbours.peers()}
    left = await valkey.execute_command("HKEYS", "{announced:hub}:seen")
    assert left == [b"stranger"], "who has ended has withdrawn"
