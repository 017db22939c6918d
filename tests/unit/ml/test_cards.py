"""Figures and their intervals, without torch."""

from __future__ import annotations

import msgspec
import pytest

from angelos.ml.cards import Card, Metric, hash_values

np = pytest.importorskip("numpy", reason="numpy is missing: pip install -e '.[ml]'")

from angelos.ml.intervals import auc, auc_interval, mean_interval  # noqa: E402


@pytest.mark.parametrize(
    ("low", "high", "less", "wins"),
    [(0.6, 0.8, False, True), (0.4, 0.8, False, False), (0.2, 0.4, True, True)],
)
def test_a_figure_wins_only_with_its_whole_interval(low, high, less, wins):
    metric = Metric(name="m", value=0.6, low=low, high=high, baseline=0.5, less_is_better=less)

    assert metric.wins is wins
    assert not msgspec.structs.replace(metric, baseline=None).wins


def test_auc_counts_pairs():
    positive, negative = [3.0, 1.0], [0.0, 1.0, 2.0]
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]

    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_an_interval_is_the_same_each_time_and_holds_the_figure():
    generator = np.random.default_rng(3)
    positive, negative = generator.normal(1, 1, 60), generator.normal(0, 1, 60)
    low, high = auc_interval(positive, negative)

    assert low < auc(positive, negative) < high
    assert (low, high) == auc_interval(positive, negative)
    assert mean_interval([1.0] * 9) == (1.0, 1.0)


def test_a_card_survives_json():
    card = Card(
        role="r", data="d", data_hash="a", hash="b", parameters=1, seed=0, config={"x": [1]},
        metrics=(Metric(name="m", value=1, low=0, high=2),), limits=("l",), bad_at=("b",),
    )  # fmt: skip

    assert msgspec.json.decode(msgspec.json.encode(card), type=Card) == card
    assert hash_values({"a": 1, "b": 2}) == hash_values({"b": 2, "a": 1})
