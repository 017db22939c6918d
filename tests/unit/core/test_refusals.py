"""Refusals are counted, and their facts are bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.ids import PrincipalId
from angelos.core.refusals import (
    ANONYMOUS,
    LONGEST_PAUSE_S,
    MAX_ACTS,
    MAX_PRINCIPALS,
    RefusalState,
    RefusedCall,
    due,
    take,
)


def refusal(principal="agent/ada", act="POST /people", code="forbidden"):
    return RefusedCall(principal=PrincipalId(principal), door="api", act=act, code=code)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["agent/ada", "person/vic"]),
            st.integers(0, 60),
            st.floats(0, 5),
        ),
        max_size=200,
    )
)
def test_every_refusal_is_counted_once_and_none_is_lost(calls):
    state, now, counts = RefusalState(), 0.0, {}
    told = []
    for principal, act, passed in calls:
        now += passed
        told += due(state, now)
        first = take(state, refusal(principal, f"POST /{act}"), now)
        told += [first] if first else []
        counts[principal] = counts.get(principal, 0) + 1
    told += due(state, now + LONGEST_PAUSE_S + 1)
    for principal, count in counts.items():
        assert sum(r.count for r in told if r.refusal.principal == principal) == count


def test_one_who_asks_for_ever_makes_few_facts():
    state, told = RefusalState(), []
    for n in range(100_000):
        now = n / 1_000
        told += due(state, now) if n % 500 == 0 else []
        first = take(state, refusal(act=f"GET /{n}"), now)
        told += [first] if first else []
    assert len(told) <= 3 * (MAX_ACTS + 1) + 10


def test_more_principals_than_are_kept_are_counted_as_nobody():
    state = RefusalState()
    for n in range(MAX_PRINCIPALS + 10):
        take(state, refusal(f"agent/a{n}"), 0.0)
    assert len(state.entries) <= MAX_PRINCIPALS + 1
    assert ANONYMOUS in state.entries


def test_whoever_is_quiet_is_forgotten():
    state = RefusalState()
    take(state, refusal(), 0.0)
    assert due(state, LONGEST_PAUSE_S + 1) == []
    assert not state.entries
