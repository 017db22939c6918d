"""Whether what somebody does in a minute is odd against their own history. Pure.

The logarithm of each minute's amount is compared with its moving mean and deviation (an EWMA),
and only some odd minutes of the last five are a signal: one burst of an honest agent is none.

    >>> rate = Rate()
    >>> for minute in range(5):
    ...     rate = counted(rate, at=60.0 * minute, amount=40.0, deviations=4.0)
    >>> odd_minutes(rate) >= 2
    True
"""

from __future__ import annotations

import math

import msgspec

MINUTE_S = 60.0
_ALPHA = 0.02
"""Weight of the newest minute: a history of some fifty minutes with work in them."""
_IDLE_ALPHA = 0.002
"""An idle minute says little about how busy the next one with work is."""
_REMEMBERED = 5


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one agent's rate of something."""

    minute: int = -1
    amount: float = 0.0
    """Of the present minute."""
    mean: float = math.log1p(3.0)
    variance: float = 0.16
    odd: tuple[int, ...] = ()
    """The last odd minutes."""


def counted(rate: Rate, at: float, amount: float, deviations: float, least: float = 8.0) -> Rate:
    """Return the history after something more was done.

    Args:
        rate: The history before.
        at: Unix seconds; a clock that goes back counts for the present minute.
        amount: How much.
        deviations: How many deviations above the mean are odd.
        least: A minute with less is never odd.
    """
    minute = max(int(at // MINUTE_S), rate.minute)
    if minute != rate.minute:
        rate = _closed(rate, minute)
    rate = msgspec.structs.replace(rate, amount=rate.amount + amount)
    excess = math.log1p(rate.amount) - rate.mean
    is_odd = rate.amount >= least and excess > deviations * _deviation(rate)
    if is_odd and minute not in rate.odd:
        odd = (*rate.odd, minute)[-_REMEMBERED:]
        rate = msgspec.structs.replace(rate, odd=odd)
    return rate


def odd_minutes(rate: Rate) -> int:
    """Return how many of the last five minutes were odd."""
    return sum(minute > rate.minute - _REMEMBERED for minute in rate.odd)


def usual(rate: Rate) -> float:
    """Return what a minute usually has."""
    return math.expm1(rate.mean)


def _deviation(rate: Rate) -> float:
    return max(math.sqrt(rate.variance), 0.4)


def _closed(rate: Rate, minute: int) -> Rate:
    """Return the history with its last minute, and the idle ones since, counted in."""
    mean, variance = rate.mean, rate.variance
    if rate.minute >= 0 and rate.minute not in rate.odd:  # an attack is nobody's habit
        change = math.log1p(rate.amount) - mean
        mean += _ALPHA * change
        variance = (1 - _ALPHA) * (variance + _ALPHA * change * change)
    idle = min(max(0, minute - rate.minute - 1), 10_000) if rate.minute >= 0 else 0
    mean *= (1 - _IDLE_ALPHA) ** idle
    # However long it idled, the first work afterwards is compared with what any agent does.
    mean = max(mean, math.log1p(1.0))
    odd = tuple(m for m in rate.odd if m > minute - _REMEMBERED)
    return msgspec.structs.replace(
        rate, minute=minute, amount=0.0, mean=mean, variance=variance, odd=odd
    )
