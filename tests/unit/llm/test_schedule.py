"""The decisions of training are pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.llm.needs import need_ml

need_ml()

from llm.config import TrainingConfig  # noqa: E402
from llm.train import batch_seed, is_due, learning_rate, should_stop  # noqa: E402


@settings(deadline=None)
@given(
    st.integers(1, 300), st.floats(0, 0.9), st.sampled_from(["linear", "cosine"]), st.floats(0.1, 2)
)
def test_the_rate_rises_once_then_falls_and_stays_in_bounds(steps, warmup, schedule, peak):
    config = TrainingConfig(
        max_steps=steps, warmup_fraction=warmup, schedule=schedule, learning_rate=peak
    )
    rates = [learning_rate(step, config) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_half_way_down_both_schedules_meet():
    for schedule in ("linear", "cosine"):
        config = TrainingConfig(max_steps=10, warmup_fraction=0, learning_rate=1, schedule=schedule)
        assert learning_rate(0, config) == 1
        assert learning_rate(5, config) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([], 1, False),
        ([3.0, 2.0], 1, False),
        ([2.0, 2.0], 1, True),
        ([2.0, 3.0], 2, False),
        ([2.0, 3.0, 2.5], 2, True),
        ([2.0, 3.0, 1.9], 2, False),
        ([1.0, 2.0, 3.0], 0, False),
    ],
)
def test_it_stops_when_patience_is_used_up(losses, patience, stops):
    assert should_stop(losses, patience) is stops


def test_no_two_parts_of_a_run_share_a_seed():
    config = TrainingConfig(max_steps=50, accumulation=2, devices=2)
    seeds = [batch_seed(config, step, part) for step in range(50) for part in range(4)]
    assert len(set(seeds)) == 200


def test_two_devices_draw_what_one_draws_in_two_turns():
    one, two = TrainingConfig(accumulation=2), TrainingConfig(devices=2)
    assert [batch_seed(one, 7, part) for part in (0, 1)] == [
        batch_seed(two, 7, part) for part in (0, 1)
    ]


def test_things_are_due_at_each_interval_and_at_the_end():
    config = TrainingConfig(max_steps=7)
    assert [step for step in range(1, 8) if is_due(step, 3, config)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_due(step, 0, config)] == [7]
