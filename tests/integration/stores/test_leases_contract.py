"""What every store of leases promises (`core.ports.Leases`).

A store under test comes with `later`, which lets the store's own time pass.
"""

from __future__ import annotations

import psycopg
import pytest

from angelos.adapters.stores.leases import PostgresLeases
from angelos.core.errors import Conflict, Fenced
from angelos.core.fencing import FencingToken
from angelos.testing import ManualClock, MemoryLeases

REPO = "repo/study"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=["memory", "postgres"])
def leases(request, clock):
    if request.param == "memory":
        return MemoryLeases(clock)
    return PostgresLeases(request.getfixturevalue("database"))


@pytest.fixture
def later(request, clock, leases):
    """PostgreSQL's clock is its own: what it has noted moves into the past instead."""
    if isinstance(leases, MemoryLeases):
        return clock.advance
    dsn = request.getfixturevalue("database").dsn

    def advance(seconds):
        with psycopg.connect(dsn) as connection:
            connection.execute(
                "update lease set expires_at = expires_at - make_interval(secs => %s)", [seconds]
            )

    return advance


async def test_one_holder_at_a_time(leases, later):
    token = await leases.acquire(REPO, "one", 10)
    assert (token.resource, token.holder) == (REPO, "one")
    later(9)
    with pytest.raises(Conflict) as error:
        await leases.acquire(REPO, "two", 10)
    assert error.value.extra["holder"] == "one"
    assert 0 < error.value.extra["free_in_s"] <= 1
    await leases.check(token)
    await leases.acquire("repo/other", "two", 10)


async def test_what_expired_is_taken_over_and_its_holder_fenced(leases, later):
    old = await leases.acquire(REPO, "one", 10)
    later(11)
    new = await leases.acquire(REPO, "two", 10)
    assert new.epoch > old.epoch
    for call in (leases.check(old), leases.renew(old, 10)):
        with pytest.raises(Fenced):
            await call
    await leases.check(new)


async def test_a_renewed_lease_lasts(leases, later):
    token = await leases.acquire(REPO, "one", 10)
    for _ in range(5):
        later(9)
        await leases.renew(token, 10)
    with pytest.raises(Conflict):
        await leases.acquire(REPO, "two", 10)


async def test_an_expired_lease_that_nobody_took_is_kept(leases, later):
    token = await leases.acquire(REPO, "one", 10)
    later(60)
    await leases.check(token)
    await leases.renew(token, 10)
    with pytest.raises(Conflict):
        await leases.acquire(REPO, "two", 10)


async def test_a_later_self_fences_the_earlier(leases):
    old = await leases.acquire(REPO, "one", 10)
    new = await leases.acquire(REPO, "one", 10)
    assert new.epoch > old.epoch
    with pytest.raises(Fenced):
        await leases.check(old)
    await leases.check(new)


async def test_what_is_released_is_free_at_once_and_its_epoch_never_comes_again(leases):
    old = await leases.acquire(REPO, "one", 10)
    await leases.release(old)
    for call in (leases.check(old), leases.renew(old, 10)):
        with pytest.raises(Fenced):
            await call
    new = await leases.acquire(REPO, "two", 10)
    assert new.epoch > old.epoch
    await leases.release(old)  # it is fenced: no change
    await leases.check(new)
    with pytest.raises(Conflict):
        await leases.acquire(REPO, "three", 10)


async def test_a_token_that_was_never_given_is_fenced(leases):
    token = await leases.acquire(REPO, "one", 10)
    for forged in (FencingToken(REPO, "one", token.epoch + 1), FencingToken("repo/x", "one", 1)):
        with pytest.raises(Fenced):
            await leases.check(forged)
