"""In which order memories answer a question: reciprocal rank fusion, with decay. Pure.

Each way of searching gives ranks, not comparable scores, so ranks are fused (Cormack, Clarke and
Buettcher 2009): a memory scores `sum(weight / (3 + rank))` over the ways that found it. The weights
and the 3 come from a grid on the tuning halves of two sets of questions (benchmarks/memory.py).
With 60 and equal weights, what is middling both ways beats what is first by meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Ranks(NamedTuple):
    """Where each way put a candidate, from 1; None where it did not find it."""

    vector: int | None
    text: int | None


class FusionWeights(NamedTuple):
    """What each way weighs, and how much more a first rank weighs than those behind it."""

    vector: float
    text: float
    offset: float


WEIGHTS = FusionWeights(vector=1.0, text=0.4, offset=3.0)


def fused(ranks: Ranks, weights: FusionWeights = WEIGHTS) -> float:
    """Return the fused score, at most 1.4 / 4 by the weights in use."""
    pairs = ((weights.vector, ranks.vector), (weights.text, ranks.text))
    return sum(weight / (weights.offset + rank) for weight, rank in pairs if rank is not None)


def decay(age_s: float, half_life_s: float) -> float:
    """Return the weight of a memory that was last confirmed `age_s` seconds ago, from 1 to 0.5.

    >>> decay(0, 10), decay(10, 10)
    (1.0, 0.75)
    """
    return 0.5 + 0.5 * 2.0 ** (-max(age_s, 0.0) / half_life_s)


def ranked(
    candidates: Sequence[tuple[T, Ranks, float]], limit: int, weights: FusionWeights = WEIGHTS
) -> list[tuple[T, float]]:
    """Return the best candidates with their scores, best first.

    Args:
        candidates: Each with its ranks and the weight of its age.
        limit: How many at most.
        weights: Of the ways; those in use by default.
    """
    scored = [(item, fused(ranks, weights) * weight) for item, ranks, weight in candidates]
    return sorted(scored, key=lambda pair: -pair[1])[:limit]
