"""95 % intervals by the bootstrap: examples are drawn again, with a fixed seed.

>>> low, high = mean_interval([0.0, 1.0] * 50)
>>> 0.38 < low < 0.5 < high < 0.62
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ROUNDS = 1_000


def mean_interval(values: Sequence[float], *, rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the interval of a mean; of differences of pairs, that of the lead."""
    return interval(lambda picked: picked.mean(), [values], rounds=rounds)


def auc(positive: Any, negative: Any) -> float:
    """Return the chance that a positive scores above a negative; half for a draw.

    Mann and Whitney's U over both counts, by ranks of the sorted negatives.
    """
    import numpy as np

    ordered = np.sort(np.asarray(negative, dtype=float))
    above = np.searchsorted(ordered, positive, side="left")
    level = np.searchsorted(ordered, positive, side="right")
    return float((above + level).mean() / (2 * len(ordered)))


def auc_interval(
    positive: Sequence[float], negative: Sequence[float], *, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return the interval of an AUC; positives and negatives are drawn apart."""
    return interval(auc, [positive, negative], rounds=rounds)


def interval(
    figure: Callable[..., float], groups: Sequence[Sequence[Any]], *, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return the 95 % interval of a figure of groups, each drawn again with replacement.

    Args:
        figure: Takes one array a group. Rows stay whole, so pairs stay pairs.
        groups: The examples.
        rounds: How often they are drawn.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    arrays = [np.asarray(group, dtype=float) for group in groups]
    drawn = [
        figure(*(array[generator.integers(len(array), size=len(array))] for array in arrays))
        for _ in range(rounds)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
