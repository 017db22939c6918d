"""Quarantines end by two people, show what was changed, and lead to probation; cards say it all."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.cards import banner_of, cards
from angelos.control.state.decide import fold
from angelos.control.state.models import ControlState
from angelos.core.errors import Conflict, NotFound
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal, Role
from angelos.testing import ManualClock, make_fact
from tests.unit.control.fakes import ADA, World

EVE = ADA.id
OLGA, ANN = (
    Principal(id=PrincipalId(f"person/{name}"), role=Role.operator) for name in ("olga", "ann")
)


@pytest.fixture
def world(clock):
    return World(clock)


async def shut_out(world):
    await world.signals.quarantine(EVE, "why")
    await world.journal.append([make_fact(Kind.principal_quarantined, EVE, data={"reason": "why"})])
    await world.settled(lambda s: EVE in s.quarantined)


async def test_two_people_end_it_and_one_of_them_twice_does_not(world):
    async with world.running() as control:
        with pytest.raises(NotFound):
            await control.quarantines.release(OLGA, PrincipalId("agent/nobody"))
        with pytest.raises(Conflict, match="not quarantined"):
            await control.quarantines.release(OLGA, EVE)
        await shut_out(world)
        for _ in range(2):
            answer = await control.quarantines.release(OLGA, EVE)
            assert (answer.released, answer.needs) == (False, 1)
        assert EVE in world.signals.refused
        assert len(await world.facts(Kind.principal_release_asked)) == 1
        assert (await control.quarantines.show(EVE)).release_asked_by == OLGA.id
        answer = await control.quarantines.release(ANN, EVE)
        assert answer.released
        assert EVE not in world.signals.refused


async def test_hands_of_one_person_are_one(world):
    async with world.running() as control:
        made = make_fact(Kind.person_added, ANN.id, actor=OLGA.id, data={"role": "operator"})
        await world.journal.append([made])
        await world.settled(lambda s: ANN.id in s.makers)
        await shut_out(world)
        await control.quarantines.release(OLGA, EVE)
        assert not (await control.quarantines.release(ANN, EVE)).released


async def test_an_ask_lapses_after_a_day_and_with_the_next_quarantine(world):
    async with world.running() as control:
        await shut_out(world)
        await control.quarantines.release(OLGA, EVE)
        world.clock.advance(24 * 3600 + 1)
        assert not (await control.quarantines.release(ANN, EVE)).released


def state_after(*facts):
    state = ControlState()
    for number, fact in enumerate(facts, 1):
        state = fold(state, msgspec.structs.replace(fact, offset=f"{number}-0"))
    return state


def fact(kind, subject, at=0.0, **data):
    return make_fact(kind, subject, data=data, clock=ManualClock(1_700_000_000.0 + at))


def shown(state, at=0.0, **more):
    times = {"now": 1_700_000_000.0 + at, "stuck_s": 60.0, "log_behind_s": 0.0} | more
    return cards(state, **times)


def test_after_a_release_it_is_on_probation_and_the_ask_is_forgotten():
    state = state_after(
        fact(Kind.principal_quarantined, EVE, reason="why"),
        fact(Kind.principal_release_asked, EVE),
        fact(Kind.principal_released, EVE, probation_until=1_700_000_500.0),
    )
    assert (state.release_asks, state.quarantine_notes) == ({}, {})
    assert state.probation == {EVE: 1_700_000_500.0}


def test_an_alarm_is_a_card_with_figures_acts_and_what_was_done():
    state = state_after(
        fact(
            Kind.principal_flagged, EVE, reason="it probes", signal="probing", severity="certain",
            evidence={"score": 30}, acts=["fact-1"], response="quarantined",
        ),
        fact(Kind.principal_quarantined, EVE, reason="probing"),
        fact(Kind.principal_paused, "agent/bob", reason="9 tasks", cause="budget"),
    )  # fmt: skip
    quarantine, pause, alarm = shown(state)
    assert (alarm.figures, alarm.acts, alarm.done) == ({"score": 30}, ("fact-1",), "quarantined")
    assert (quarantine.kind, pause.kind) == ("quarantine", "pause")
    assert [card.kind for card in shown(state, at=90_000)] == ["quarantine", "pause"]


def test_restarts_silent_nodes_and_a_log_that_falls_behind_are_cards_and_some_are_urgent():
    state = state_after(
        fact(Kind.node_enrolled, "node/exec1", role="execution"),
        fact(Kind.node_connected, "node/exec1", role="execution"),
        fact(Kind.node_disconnected, "node/exec1", at=10),
        fact(Kind.part_restarted, "system/valkey", part="valkey", cause="ended", at=10),
    )
    assert [card.kind for card in shown(state, at=20)] == ["restart"]
    rows = shown(state, at=100, log_behind_s=31.0)
    assert [card.kind for card in rows] == ["log", "node", "restart"]
    assert banner_of(rows) == "The audit log is 31 s behind. node/exec1 is silent."


def test_the_last_alarms_are_kept():
    state = state_after(*[fact(Kind.principal_flagged, EVE, reason=str(n)) for n in range(60)])
    assert [alarm.reason for alarm in state.alarms] == [str(n) for n in range(10, 60)]
