"""What every dispatcher of generations promises (`core.ports.Generations`).

In memory, and ADAM's in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.control.identity.generations import GenerationStore
from angelos.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from angelos.core.ids import PrincipalId
from angelos.core.principals import (
    ActingSession,
    EndCause,
    Generation,
    SessionKind,
    check_current,
    is_current,
)
from angelos.testing import MemoryGenerations, MemoryJournal

EVE, ADA = PrincipalId("person/eve"), PrincipalId("agent/ada")
STAYS = [cause for cause in EndCause if cause.stays]
STOPS = [cause for cause in EndCause if not cause.stays]


@pytest.fixture(params=["memory", "postgres"])
def generations(request):
    if request.param == "memory":
        return MemoryGenerations()
    database = request.getfixturevalue("database")
    return GenerationStore(database, MemoryJournal(), SystemClock())


def session_of(standing):
    return ActingSession(
        id="s-1", principal=standing.principal, generation=standing.generation,
        kind=SessionKind.browser,
    )  # fmt: skip


def counts(session, standing):
    return is_current(session, standing, now=0.0)


async def test_a_new_principal_begins_at_one(generations):
    with pytest.raises(NotFound):
        await generations.standing(EVE)
    standing = await generations.begin(EVE)
    assert (standing.generation, standing.active, standing.cause) == (1, True, None)
    assert await generations.begin(EVE) == standing == await generations.standing(EVE)
    with pytest.raises(NotFound):
        await generations.standing(ADA)


@pytest.mark.parametrize("cause", EndCause)
async def test_what_ends_a_generation_ends_its_sessions_and_no_others(generations, cause):
    session = session_of(await generations.begin(EVE))
    other = session_of(await generations.begin(ADA))
    after = await generations.end(EVE, session.generation, cause)
    assert (after.generation, after.cause) == (2, cause)
    assert await generations.standing(EVE) == after
    assert not counts(session, after)
    with pytest.raises(Unauthenticated) as error:
        check_current(session, after, now=0.0)
    assert error.value.extra["cause"] == cause
    assert counts(other, await generations.standing(ADA))


@pytest.mark.parametrize("cause", STAYS)
async def test_somebody_who_stays_may_sign_in_again(generations, cause):
    await generations.begin(EVE)
    after = await generations.end(EVE, Generation(1), cause)
    assert after.active
    assert counts(session_of(after), after)


@pytest.mark.parametrize("cause", STOPS)
async def test_somebody_who_is_stopped_may_not(generations, cause):
    await generations.begin(EVE)
    after = await generations.end(EVE, Generation(1), cause)
    assert not after.active
    assert not counts(session_of(after), after)


async def test_a_released_principal_begins_anew(generations):
    before = session_of(await generations.begin(ADA))
    await generations.end(ADA, Generation(1), EndCause.quarantined)
    released = await generations.begin(ADA)
    assert (released.generation, released.active) == (2, True)
    assert counts(session_of(released), released)
    assert not counts(before, released)


async def test_a_removed_id_is_never_used_again(generations):
    await generations.begin(EVE)
    gone = await generations.end(EVE, Generation(1), EndCause.removed)
    with pytest.raises(Conflict):
        await generations.begin(EVE)
    for cause in EndCause:
        assert await generations.end(EVE, gone.generation, cause) == gone


async def test_ending_what_is_over_is_no_change(generations):
    await generations.begin(EVE)
    after = await generations.end(EVE, Generation(1), EndCause.logged_out)
    for cause in STAYS:
        assert await generations.end(EVE, Generation(1), cause) == after


@pytest.mark.parametrize("cause", STOPS)
async def test_a_stop_takes_hold_whichever_generation_it_names(generations, cause):
    """A log-out beside it must not save anybody from quarantine."""
    await generations.begin(EVE)
    await generations.end(EVE, Generation(1), EndCause.logged_out)
    stopped = await generations.end(EVE, Generation(1), cause)
    assert (stopped.generation, stopped.active, stopped.cause) == (3, False, cause)
    assert await generations.end(EVE, Generation(1), cause) == stopped


async def test_nothing_but_a_release_ends_a_quarantine(generations):
    await generations.begin(EVE)
    stopped = await generations.end(EVE, Generation(1), EndCause.quarantined)
    for cause in STAYS:
        after = await generations.end(EVE, stopped.generation, cause)
        assert not after.active
        assert after.cause is EndCause.quarantined
        stopped = after
    gone = await generations.end(EVE, stopped.generation, EndCause.removed)
    assert gone.cause is EndCause.removed
    with pytest.raises(Conflict):
        await generations.begin(EVE)


async def test_a_generation_that_has_not_been_cannot_be_ended(generations):
    await generations.begin(EVE)
    for generation in (0, 2, -1):
        with pytest.raises(InvalidInput):
            await generations.end(EVE, Generation(generation), EndCause.logged_out)
    with pytest.raises(NotFound):
        await generations.end(ADA, Generation(1), EndCause.removed)
    with pytest.raises(InvalidInput):
        await generations.begin(PrincipalId("eve"))


async def test_two_who_end_one_generation_at_once_end_it_once(generations):
    await generations.begin(EVE)
    ends = (generations.end(EVE, Generation(1), EndCause.logged_out) for _ in range(5))
    standings = await asyncio.gather(*ends)
    assert {standing.generation for standing in standings} == {2}


async def test_a_generation_only_grows_and_a_stop_is_never_lost(generations):
    for number, causes in enumerate(itertools.permutations(EndCause, 3)):
        principal = PrincipalId(f"person/eve-{number}")
        standing = await generations.begin(principal)
        seen_stop = False
        for cause in causes:
            after = await generations.end(principal, Generation(1), cause)
            seen_stop = seen_stop or not cause.stays
            assert after.generation >= standing.generation, causes
            assert after.active == (not seen_stop), causes
            standing = after
