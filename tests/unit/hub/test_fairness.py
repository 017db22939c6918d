"""A flooder has its share, not more, and never the turns of others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from angelos.core.errors import Busy, InvalidInput
from angelos.core.ids import PrincipalId
from angelos.hub import handlers
from angelos.hub.fairness import FairQueue, IdentityLimits, Ledger, TokenBucket, Turns
from angelos.testing import eventually

LOUD, CALM, NODE = PrincipalId("agent/loud"), PrincipalId("agent/calm"), PrincipalId("node/n")


def served(queue: FairQueue, count: int) -> list[str]:
    return [queue.pop() for _ in range(count)]


def test_who_asks_for_little_is_served_before_the_rest_of_a_flood():
    queue = FairQueue()
    for n in range(100):
        queue.push(LOUD, cost=256.0, weight=1.0, item=f"loud {n}")
    for n in range(3):
        queue.push(CALM, cost=1.0, weight=1.0, item=f"calm {n}")
    assert served(queue, 5) == ["loud 0", "calm 0", "calm 1", "calm 2", "loud 1"]
    assert served(queue, 98) == [f"loud {n}" for n in range(2, 100)]


def test_shares_follow_the_weights():
    queue = FairQueue()
    for _ in range(300):
        queue.push(LOUD, cost=10.0, weight=1.0, item=LOUD)
        queue.push(NODE, cost=10.0, weight=2.0, item=NODE)
    counts = Counter(served(queue, 150))
    assert (counts[NODE], counts[LOUD]) == (100, 50)


def test_the_order_of_one_principal_is_kept():
    queue = FairQueue()
    for n in range(50):
        queue.push(CALM, cost=50.0 - n, weight=1.0, item=n)
    assert served(queue, 50) == list(range(50))


def test_who_was_silent_has_saved_nothing_up_and_owes_nothing():
    queue = FairQueue()
    queue.push(LOUD, cost=1e6, weight=1.0, item="before")
    assert served(queue, 1) == ["before"]
    queue.push(LOUD, cost=1.0, weight=1.0, item="first")
    queue.push(CALM, cost=1.0, weight=1.0, item="second")
    assert served(queue, 2) == ["first", "second"]


async def test_turns_keep_the_budget_and_pass_over_who_gave_up():
    turns, entered, leave = Turns(budget=10), [], asyncio.Event()

    async def work(name: str, principal: PrincipalId, cost: float) -> None:
        async with turns.turn(principal, cost):
            entered.append(name)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(work("a", LOUD, 6))
        group.create_task(work("b", LOUD, 6))
        given_up = group.create_task(work("c", CALM, 1))
        group.create_task(work("d", CALM, 1))
        await eventually(lambda: entered == ["a"])
        given_up.cancel()
        leave.set()
    assert entered[0] == "a"
    assert sorted(entered) == ["a", "b", "d"]
    assert turns._busy == 0
    assert not len(turns._queue)
    async with turns.turn(LOUD, 1e9):  # more than the budget: alone, but not never
        pass


async def test_a_turn_that_is_given_back_is_waited_for_again():
    turns, order = Turns(budget=1), []

    async def work() -> None:
        async with turns.turn(CALM, 1):
            order.append("other")

    async with turns.turn(LOUD, 1) as turn:
        waiting = asyncio.create_task(work())
        await eventually(lambda: len(turns._queue) == 1)
        async with turn.given_back():
            await waiting
            order.append("meanwhile")
        order.append("again")
        assert not turns.enter(1)
    assert order == ["other", "meanwhile", "again"]
    with pytest.raises(InvalidInput):
        async with turns.turn(LOUD, 1) as turn, turn.given_back():
            raise InvalidInput("It fails while it holds no turn.")
    assert turns._busy == 0


async def test_a_cancellation_in_the_moment_of_ones_turn_leaves_it_to_the_next():
    turns, order = Turns(budget=1), []

    async def work(name: str) -> None:
        async with turns.turn(PrincipalId(f"agent/{name}"), 1):
            order.append(name)

    async with turns.turn(LOUD, 1):
        first, second = asyncio.create_task(work("first")), asyncio.create_task(work("second"))
        await eventually(lambda: len(turns._queue) == 2)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert order == ["second"]
    assert turns._busy == 0


def test_a_bucket_pauses_for_what_was_overdrawn_and_saves_up_no_more_than_its_burst():
    bucket = TokenBucket(rate=100, burst=50)
    assert bucket.take(50, now=0) == 0
    assert bucket.take(25, now=0) == 0.25
    assert bucket.take(0, now=0.25) == 0
    assert bucket.take(50, now=1_000) == 0
    assert bucket.take(1, now=1_000) == 0.01
    assert bucket.take(0, now=0) > 0  # a clock that goes back gives nothing


@pytest.mark.parametrize(
    ("limits", "frame"),
    [
        (IdentityLimits(items=10), (11, 1, 0.0)),
        (IdentityLimits(bytes=1000), (1, 1100, 0.0)),
        (IdentityLimits(cpu=0.5), (1, 1, 0.6)),
    ],
)
def test_every_limit_pauses_its_identity_alone(limits, frame):
    ledger = Ledger(limits)
    assert ledger.of(LOUD).frame(*frame, now=0.0) > 0
    assert ledger.of(CALM).frame(1, 1, 0.0, now=0.0) == 0
    assert ledger.of(LOUD).paused_s > 0
    assert ledger.of(LOUD).frame(0, 0, 0.0, now=100.0) == 0


def test_one_request_too_many_is_busy_and_costs_nothing():
    ledger = Ledger(IdentityLimits(requests=2))
    for _ in range(2):
        ledger.of(LOUD).request(LOUD, now=0.0)
    for _ in range(100):
        with pytest.raises(Busy) as caught:
            ledger.of(LOUD).request(LOUD, now=0.0)
    assert caught.value.extra["retry_after_s"] == 0.5
    ledger.of(LOUD).request(LOUD, now=0.5)
    ledger.of(CALM).request(CALM, now=0.0)


def test_a_ledger_forgets_who_was_not_seen_for_longest():
    ledger = Ledger()
    ledger.of(CALM).request(CALM, now=0.0)
    for n in range(5000):
        ledger.of(PrincipalId(f"agent/a{n}"))
        ledger.of(LOUD)
    assert ledger.of(CALM).requests == 0
    assert len(ledger._spending) <= 4097


def test_small_frames_are_measured_by_chance_and_large_ones_always(monkeypatch):
    chances = [n / 800 for n in range(800)]
    monkeypatch.setattr(handlers.random, "random", iter(chances).__next__)
    small = [handlers.frame_weight(300) for _ in chances]
    assert sum(small) == len(small), "on average each is counted once"
    assert {handlers.frame_weight(size) for size in (4097, 16_000_000)} == {1}
