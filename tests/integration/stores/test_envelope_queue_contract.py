"""What every queue of envelopes promises (`core.ports.EnvelopeQueue`).

A queue under test also offers `damage`, as `angelos.testing.MemoryEnvelopeQueue` does.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing

import msgspec
import pytest
import redis

from angelos.adapters.stores.backlog import LANES
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.queue_scripts import lane_of
from angelos.core.envelopes import (
    MAX_BODY_BYTES,
    DeadReason,
    EnvelopeHeader,
    Lane,
    RetryPolicy,
    RoutedEnvelope,
)
from angelos.core.errors import Busy, Conflict, Fenced, InvalidInput, TooLarge
from angelos.core.ids import START, PrincipalId, offset_key
from angelos.testing import MemoryEnvelopeQueue, eventually

NODE, OTHER = PrincipalId("node/exec1"), PrincipalId("node/exec2")
ADA, BOB = PrincipalId("agent/ada"), PrincipalId("agent/bob")
CAPACITY = 5
SOON = RetryPolicy(first_s=0.001, most_s=0.002, attempts=3)
NEVER = RetryPolicy(first_s=3_600, most_s=3_600)
numbers = itertools.count(1)


class DamagedValkeyQueue(ValkeyEnvelopeQueue):
    """Valkey's, with a hand in the store."""

    url = ""

    def damage(self, destination, position, raw):
        """Write the stream anew with something else at one position: entries cannot be changed."""
        stream = self.keys(destination).lanes[LANES.index(lane_of(position))]
        with redis.Redis.from_url(self.url) as client:
            entries = client.xrange(stream)
            client.delete(stream)
            for place, fields in entries:
                here = place.decode() == position
                client.xadd(stream, {"h": raw} if here else fields, id=place)


@pytest.fixture(params=["memory", "valkey"])
def make_queue(request):
    if request.param == "memory":
        return lambda retry=SOON: MemoryEnvelopeQueue(capacity=CAPACITY, retry=retry)
    client = request.getfixturevalue("valkey")
    DamagedValkeyQueue.url = request.getfixturevalue("stores").valkey_url
    return lambda retry=SOON: DamagedValkeyQueue(client, CAPACITY, retry)


@pytest.fixture
def queue(make_queue):
    return make_queue()


def envelope(source=ADA, to=NODE, lane=Lane.command, body=b"body", **fields):
    number = next(numbers)
    header = EnvelopeHeader(
        id=f"msg-{number}", source=source, destination=to, lane=lane, sequence=number,
        codec="msgpack", **fields,
    )  # fmt: skip
    return RoutedEnvelope(header, body)


async def put(queue, *envelopes):
    return [await queue.put(each) for each in envelopes]


class Consumer:
    """Takes with one token and counts on nothing but what comes."""

    def __init__(self, queue, token):
        self.queue, self.token = queue, token
        self.taking = queue.take(token)

    async def next(self):
        async with asyncio.timeout(20):
            return await anext(self.taking)

    async def some(self, count):
        return [await self.next() for _ in range(count)]

    async def ack(self, *deliveries):
        return await self.queue.ack(self.token, [d.position for d in deliveries])

    async def nack(self, delivery, **options):
        await self.queue.nack(self.token, delivery.position, "not now", **options)


@pytest.fixture
async def consume():
    """Claims a destination and takes from it, until the test ends."""
    consumers = []

    async def claim(queue, to=NODE, holder="hub-1"):
        consumers.append(Consumer(queue, await queue.claim(to, holder)))
        return consumers[-1]

    yield claim
    for consumer in consumers:
        await consumer.taking.aclose()


def envelopes_of(deliveries):
    return [delivery.envelope for delivery in deliveries]


# -- order, once, bounds -----------------------------------------------------------------------


async def test_envelopes_come_whole_and_in_order(queue, consume):
    sent = [envelope(deadline=4e9, trace="t-1"), envelope(body=b""), envelope(source=BOB)]
    receipts = await put(queue, *sent)
    assert [(r.id, r.duplicate, r.dropped) for r in receipts] == [
        (e.header.id, False, 0) for e in sent
    ]
    assert sorted(receipts, key=lambda r: offset_key(r.position)) == receipts
    consumer = await consume(queue)
    got = await consumer.some(3)
    assert envelopes_of(got) == sent
    assert [d.position for d in got] == [r.position for r in receipts]
    assert [d.attempt for d in got] == [1, 1, 1]


async def test_a_body_is_never_looked_into(queue, consume):
    sent = [envelope(body=body) for body in (b"\xc1", b"\0" * 1000, b"\xff\xfe{", b"\x82\xa1")]
    await put(queue, *sent)
    assert envelopes_of(await (await consume(queue)).some(4)) == sent


async def test_the_largest_body_is_taken_and_a_larger_one_is_not(queue, consume):
    largest = envelope(body=bytes(MAX_BODY_BYTES))
    await queue.put(largest)
    with pytest.raises(TooLarge):
        await queue.put(envelope(body=bytes(MAX_BODY_BYTES + 1)))
    assert envelopes_of(await (await consume(queue)).some(1)) == [largest]
    depth = await queue.depth(NODE)
    assert (depth.waiting, depth.waiting_bytes) == ({Lane.command: 1}, MAX_BODY_BYTES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""}, {"id": "a" * 65}, {"id": "a b"}, {"source": "ada"}, {"destination": "nobody"},
        {"sequence": 0}, {"codec": ""}, {"codec": "M"}, {"deadline": float("nan")},
        {"deadline": float("inf")}, {"deadline": 0.0}, {"trace": "a\nb"}, {"trace": "t" * 129},
    ],
    ids=str,
)  # fmt: skip
async def test_a_header_of_the_wrong_form_is_refused_by_field(queue, wrong):
    good = envelope()
    header = msgspec.structs.replace(good.header, **wrong)
    with pytest.raises(InvalidInput) as error:
        await queue.put(RoutedEnvelope(header, b""))
    assert error.value.extra["field"] == next(iter(wrong))
    assert (await queue.depth(NODE)).waiting == {}


async def test_destinations_do_not_mix(queue, consume):
    one, two = envelope(), envelope(to=OTHER)
    await put(queue, one, two)
    assert envelopes_of(await (await consume(queue, OTHER)).some(1)) == [two]
    assert envelopes_of(await (await consume(queue)).some(1)) == [one]


async def test_put_again_is_a_duplicate_even_after_it_was_acknowledged(queue, consume):
    sent = envelope()
    first, again = await put(queue, sent, sent)
    assert (again.duplicate, again.position) == (True, first.position)
    consumer = await consume(queue)
    await consumer.ack(await consumer.next())
    assert (await queue.put(sent)).duplicate
    assert (await queue.depth(NODE)).waiting == {}


async def test_an_id_is_the_sources_own(queue):
    """Nobody keeps another's envelope from being taken by guessing its id."""
    sent = envelope()
    forged = RoutedEnvelope(msgspec.structs.replace(sent.header, source=BOB), b"forged")
    receipts = await put(queue, forged, sent, forged, sent)
    assert [r.duplicate for r in receipts] == [False, False, True, True]
    elsewhere = RoutedEnvelope(msgspec.structs.replace(sent.header, destination=OTHER), b"")
    assert not (await queue.put(elsewhere)).duplicate


async def test_a_full_lane_is_busy_and_stands_in_nobodys_way(queue, consume):
    sent = [envelope() for _ in range(CAPACITY)]
    await put(queue, *sent)
    with pytest.raises(Busy) as error:
        await queue.put(envelope())
    assert error.value.extra["retry_after_s"] > 0
    assert (await queue.put(sent[0])).duplicate
    cancel = envelope(lane=Lane.control)
    await put(queue, cancel, envelope(lane=Lane.message), envelope(to=OTHER))
    consumer = await consume(queue)
    assert envelopes_of(await consumer.some(1)) == [cancel]
    (oldest,) = await consumer.some(1)
    with pytest.raises(Busy):  # it is out, and still there
        await queue.put(envelope())
    await consumer.ack(oldest)
    await queue.put(envelope())


@pytest.mark.parametrize("lane", [Lane.log, Lane.heartbeat, Lane.dashboard])
async def test_a_full_lossy_lane_drops_its_oldest_and_says_how_many(queue, consume, lane):
    sent = [envelope(lane=lane) for _ in range(CAPACITY + 2)]
    receipts = await put(queue, *sent)
    assert [r.dropped for r in receipts] == [0] * CAPACITY + [1, 1]
    depth = await queue.depth(NODE)
    assert depth.waiting == {lane: CAPACITY}
    assert depth.dropped == {lane: 2}
    assert envelopes_of(await (await consume(queue)).some(CAPACITY)) == sent[2:]
    assert (await queue.dead_letters(NODE)) == []


@pytest.mark.parametrize("lane", [Lane.control, Lane.command, Lane.message])
async def test_a_lane_that_is_not_lossy_drops_nothing(queue, lane):
    await put(queue, *(envelope(lane=lane) for _ in range(CAPACITY)))
    with pytest.raises(Busy):
        await queue.put(envelope(lane=lane))
    depth = await queue.depth(NODE)
    assert (depth.waiting, depth.dropped) == ({lane: CAPACITY}, {})


async def test_control_overtakes_what_waits(queue, consume):
    sent = [envelope(), envelope(lane=Lane.log), envelope(lane=Lane.control)]
    await put(queue, *sent)
    got = envelopes_of(await (await consume(queue)).some(3))
    assert got == [sent[2], sent[0], sent[1]]


# -- taking, acknowledging, giving back --------------------------------------------------------


async def test_what_is_acknowledged_does_not_come_again_and_the_rest_does(queue, consume):
    sent = [envelope() for _ in range(4)]
    await put(queue, *sent)
    first = await consume(queue)
    got = await first.some(4)
    assert await first.ack(got[2], got[0]) == 2
    assert await first.ack(got[0], got[1], got[1]) == 1
    second = await consume(queue, holder="hub-2")
    assert envelopes_of(await second.some(1)) == [sent[3]]
    assert (await queue.depth(NODE)).waiting == {Lane.command: 1}


async def test_a_waiting_consumer_gets_what_is_put_later(queue, consume):
    consumer = await consume(queue)
    waiting = asyncio.create_task(consumer.some(2))
    sent = [envelope(), envelope()]
    for each in sent:
        await asyncio.sleep(0)
        await queue.put(each)
    assert envelopes_of(await waiting) == sent


async def test_what_is_given_back_comes_again_and_counts_its_attempts(queue, consume):
    sent = envelope()
    await queue.put(sent)
    consumer = await consume(queue)
    for attempt in (1, 2, 3):
        delivery = await consumer.next()
        assert (delivery.envelope, delivery.attempt) == (sent, attempt)
        await consumer.nack(delivery)
    (dead,) = await queue.dead_letters(NODE)
    assert (dead.envelope, dead.reason, dead.attempts) == (sent, DeadReason.attempts, 3)
    assert (dead.position, dead.detail) == (delivery.position, "not now")
    depth = await queue.depth(NODE)
    assert (depth.waiting, depth.dead) == ({}, 1)
    assert (await queue.put(sent)).duplicate


async def test_being_killed_is_not_giving_back(queue, consume):
    """A poor connection must not make dead letters of good envelopes."""
    sent = envelope()
    await queue.put(sent)
    for life in range(10):
        (delivery,) = await (await consume(queue, holder=f"hub-{life}")).some(1)
        assert delivery.attempt == 1


async def test_a_retry_holds_only_its_own_source_and_lane(make_queue, consume):
    queue = make_queue(NEVER)
    sent = [
        envelope(), envelope(), envelope(source=BOB), envelope(lane=Lane.message), envelope(),
    ]  # fmt: skip
    await put(queue, sent[0])
    consumer = await consume(queue)
    await consumer.nack(await consumer.next())
    await put(queue, *sent[1:])
    assert envelopes_of(await consumer.some(2)) == [sent[2], sent[3]]
    later = envelope(source=BOB)
    await queue.put(later)
    assert envelopes_of(await consumer.some(1)) == [later]
    assert (await queue.depth(NODE)).waiting == {Lane.command: 5, Lane.message: 1}


async def test_order_is_kept_over_a_retry(queue, consume):
    sent = [envelope() for _ in range(4)]
    await put(queue, sent[0])
    consumer = await consume(queue)
    await consumer.nack(await consumer.next())
    await put(queue, *sent[1:])
    again = await consumer.next()
    assert (again.envelope, again.attempt) == (sent[0], 2)
    await consumer.ack(again)
    assert envelopes_of(await consumer.some(3)) == sent[1:]


async def test_what_waits_behind_a_retry_waits_until_it_is_acknowledged(queue, consume):
    sent = [envelope(), envelope()]
    await put(queue, sent[0])
    consumer = await consume(queue)
    await consumer.nack(await consumer.next())
    await put(queue, sent[1])
    again = await consumer.next()
    other = envelope(source=BOB)
    await queue.put(other)
    assert envelopes_of([again, await consumer.next()]) == [sent[0], other]
    await consumer.ack(again)
    assert envelopes_of(await consumer.some(1)) == [sent[1]]


async def test_a_dead_letter_lets_what_is_behind_it_pass(queue, consume):
    sent = [envelope(), envelope()]
    await put(queue, *sent)
    consumer = await consume(queue)
    first = await consumer.next()
    await consumer.nack(first, final=True)
    await consumer.nack(first)  # it is not there any more
    assert envelopes_of(await consumer.some(1)) == [sent[1]]
    (dead,) = await queue.dead_letters(NODE)
    assert (dead.reason, dead.attempts) == (DeadReason.refused, 1)


async def test_what_expired_is_set_aside_and_the_rest_comes(queue, consume):
    late, sent = envelope(deadline=1.0), envelope(deadline=4e9)
    await put(queue, late, sent)
    assert envelopes_of(await (await consume(queue)).some(1)) == [sent]
    (dead,) = await queue.dead_letters(NODE)
    assert (dead.envelope, dead.reason) == (late, DeadReason.expired)


async def test_what_cannot_be_read_is_set_aside_and_the_rest_comes(queue, consume):
    sent = [envelope() for _ in range(3)]
    receipts = await put(queue, *sent)
    queue.damage(NODE, receipts[1].position, b"\xc1 something else")
    consumer = await consume(queue)
    assert envelopes_of(await consumer.some(2)) == [sent[0], sent[2]]
    (dead,) = await queue.dead_letters(NODE)
    assert (dead.position, dead.reason) == (receipts[1].position, DeadReason.unreadable)
    assert (dead.envelope, dead.raw) == (None, b"\xc1 something else")
    assert await queue.replay(NODE, [dead.position]) == 0
    assert await queue.drop_dead(NODE, [dead.position]) == 1


async def test_remove_takes_one_sources_envelopes_by_id(queue, consume):
    sent = [envelope(), envelope(source=BOB), envelope(), envelope()]
    await put(queue, *sent)
    ids = [e.header.id for e in sent[:3]]
    assert await queue.remove(NODE, ADA, [*ids, ids[0], "msg-unknown"]) == 2
    assert await queue.remove(NODE, ADA, ids) == 0
    assert await queue.remove(OTHER, BOB, ids) == 0
    assert (await queue.put(sent[0])).duplicate
    assert envelopes_of(await (await consume(queue)).some(2)) == [sent[1], sent[3]]


# -- dead letters ------------------------------------------------------------------------------


async def kill(queue, consumer, *envelopes):
    await put(queue, *envelopes)
    for delivery in await consumer.some(len(envelopes)):
        await consumer.nack(delivery, final=True)


async def test_dead_letters_are_listed_in_pages(queue, consume):
    consumer = await consume(queue)
    sent = [envelope() for _ in range(5)]
    await kill(queue, consumer, *sent)
    listed, after = [], START
    for length in (2, 2, 1, 0):
        page = await queue.dead_letters(NODE, after, 2)
        assert len(page) == length
        listed += page
        after = listed[-1].position
    assert [dead.envelope for dead in listed] == sent
    assert await queue.drop_dead(NODE, [listed[0].position] * 2) == 1
    assert (await queue.depth(NODE)).dead == 4
    assert await queue.dead_letters(OTHER) == []


async def test_a_replayed_letter_comes_last_and_anew(queue, consume):
    consumer = await consume(queue)
    dead, waiting = envelope(), envelope()
    await kill(queue, consumer, dead)
    await queue.put(waiting)
    (letter,) = await queue.dead_letters(NODE)
    assert await queue.replay(NODE, [letter.position, letter.position]) == 1
    assert await queue.replay(NODE, [letter.position]) == 0
    got = await consumer.some(2)
    assert envelopes_of(got) == [waiting, dead]
    assert [d.attempt for d in got] == [1, 1]
    assert got[1].position != letter.position
    assert await queue.dead_letters(NODE) == []


async def test_an_expired_letter_is_replayed_without_its_deadline(queue, consume):
    late = envelope(deadline=1.0)
    await put(queue, late, envelope())
    consumer = await consume(queue)
    await consumer.next()
    (letter,) = await queue.dead_letters(NODE)
    await queue.replay(NODE, [letter.position])
    (again,) = await consumer.some(1)
    assert again.envelope.header == msgspec.structs.replace(late.header, deadline=None)


async def test_a_replay_without_room_is_busy_and_replays_nothing(queue, consume):
    consumer = await consume(queue)
    await kill(queue, consumer, envelope(), envelope())
    await put(queue, *(envelope() for _ in range(CAPACITY - 1)))
    letters = await queue.dead_letters(NODE)
    with pytest.raises(Busy):
        await queue.replay(NODE, [letter.position for letter in letters])
    assert await queue.dead_letters(NODE) == letters
    assert await queue.replay(NODE, [letters[0].position]) == 1


# -- ownership ---------------------------------------------------------------------------------


async def test_whoever_claims_last_is_the_only_consumer(queue, consume):
    sent = [envelope(), envelope()]
    await put(queue, *sent)
    old = await consume(queue, holder="hub-1")
    (held,) = await old.some(1)
    new = await consume(queue, holder="hub-2")
    assert new.token.epoch > old.token.epoch
    for call in (old.next(), old.ack(held), old.nack(held)):
        with pytest.raises(Fenced):
            await call
    assert envelopes_of(await new.some(2)) == sent
    assert await new.ack(held) == 1  # by its position, whoever was handed it


async def test_a_consumer_that_waits_is_woken_to_be_fenced(queue, consume):
    old = await consume(queue, holder="hub-1")
    waiting = asyncio.create_task(old.next())
    await asyncio.sleep(0)
    await consume(queue, holder="hub-2")
    with pytest.raises(Fenced):
        await waiting


async def test_the_same_holder_is_fenced_by_its_later_self(queue, consume):
    old = await consume(queue, holder="hub-1")
    await consume(queue, holder="hub-1")
    with pytest.raises(Fenced):
        await old.next()


async def test_a_token_takes_once_at_a_time(queue, consume):
    sent = envelope()
    await queue.put(sent)
    consumer = await consume(queue)
    await consumer.next()
    second = queue.take(consumer.token)
    with pytest.raises(Conflict):
        await anext(second)
    await consumer.taking.aclose()
    async with aclosing(queue.take(consumer.token)) as again:
        assert (await anext(again)).envelope == sent


async def test_other_destinations_keep_their_consumers(queue, consume):
    other = await consume(queue, OTHER)
    await consume(queue, NODE, "hub-2")
    sent = envelope(to=OTHER)
    await queue.put(sent)
    assert envelopes_of(await other.some(1)) == [sent]


# -- many at once ------------------------------------------------------------------------------


async def test_many_senders_one_consumer_that_falters_and_no_loss(queue, consume):
    """Each stream comes in order; what is given back comes again; consumers replace each other."""
    sources = [PrincipalId(f"agent/a{i}") for i in range(3)]
    streams = list(itertools.product(sources, (Lane.command, Lane.message)))
    sent = {(s, lane): [envelope(s, NODE, lane) for _ in range(15)] for s, lane in streams}
    done = {stream: [] for stream in streams}

    async def work():
        for life in itertools.count():
            consumer = await consume(queue, holder=f"hub-{life}")
            for turn in range(20):
                delivery = await consumer.next()
                if turn % 7 == 0 and delivery.attempt == 1:
                    await consumer.nack(delivery)
                    continue
                await consumer.ack(delivery)
                header = delivery.envelope.header
                done[header.source, header.lane].append(delivery.envelope)
                if sum(map(len, done.values())) == 15 * len(streams):
                    return

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(work())
        for stream in streams:
            group.create_task(put_patiently(queue, sent[stream]))
    assert done == sent
    assert (await queue.depth(NODE)).dead == 0


async def put_patiently(queue, envelopes):
    async def taken(each):
        try:
            return await queue.put(each)
        except Busy:
            return None

    for each in envelopes:
        await eventually(lambda each=each: taken(each), "room in the queue")
