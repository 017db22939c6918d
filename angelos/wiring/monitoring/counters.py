"""Counts what happens, fact by fact, since this process started.

    counters = FactCounters()
    counters.note(fact, now=clock.monotonic(), accepted_at=record.at)
    counters.finished["ok"]

What it holds is bounded: names come from the fixed lists of kinds, statuses and causes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from itertools import accumulate
from typing import NamedTuple

import msgspec

from angelos.core.facts import EPHEMERAL, Fact, Kind
from angelos.core.ids import START, Offset, offset_key
from angelos.core.messages import Status

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the histograms, in seconds."""
DECIDED = {
    Kind.proposal_promoted: "promoted",
    Kind.proposal_rejected: "rejected",
    Kind.proposal_refused: "refused",
    Kind.rollback_done: "rolled-back",
}
"""Kinds of facts that decide about a proposal or a `main`."""
_KINDS = frozenset(Kind)
_STATUSES = frozenset(Status)
_MARKS = 256


class _Ended(msgspec.Struct):
    duration_s: float = 0.0


_ended = msgspec.msgpack.Decoder(_Ended)


class HistogramReading(NamedTuple):
    """A histogram at one moment, as Prometheus has it."""

    buckets: tuple[tuple[str, int], ...]
    """Bounds, each with the count of all values up to it."""
    sum_s: float


class Histogram:
    """Counts seconds in buckets.

    >>> histogram = Histogram((1.0, 5.0))
    >>> for seconds in (0.5, 5.0, 9.0):
    ...     histogram.observe(seconds)
    >>> histogram.reading
    HistogramReading(buckets=(('1.0', 1), ('5.0', 2), ('+Inf', 3)), sum_s=14.5)
    """

    def __init__(self, bounds: tuple[float, ...] = BUCKETS_S) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value; what is negative, by a clock that was set back, counts as 0."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    @property
    def reading(self) -> HistogramReading:
        """The present counts."""
        bounds = (*map(str, self._bounds), "+Inf")
        return HistogramReading(
            tuple(zip(bounds, accumulate(self._counts), strict=True)), self._sum_s
        )


class Lag:
    """How far a reader of the journal is behind, from a bounded number of marks.

    >>> lag = Lag()
    >>> lag.note(Offset("5-0"), 100.0)
    >>> lag.note(Offset("6-0"), 101.0)
    >>> lag.behind(Offset("4-0"), 103.0), lag.behind(Offset("5-0"), 103.0)
    (3.0, 2.0)
    >>> lag.behind(Offset("6-0"), 103.0)
    0.0
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[Offset, float]] = deque()
        self._newest: tuple[Offset, float] = (START, 0.0)

    def note(self, offset: Offset, now: float) -> None:
        """Note a fact that the reader has to process, when it appeared (monotonic seconds)."""
        self._newest = (offset, now)
        if len(self._marks) < _MARKS:  # the oldest matter
            self._marks.append(self._newest)

    def behind(self, position: Offset, now: float) -> float:
        """Return for how long the oldest fact after `position` has waited, 0 if there is none."""
        reached = offset_key(position)
        while self._marks and offset_key(self._marks[0][0]) <= reached:
            self._marks.popleft()
        offset, at = self._marks[0] if self._marks else self._newest
        return max(0.0, now - at) if offset_key(offset) > reached else 0.0


class FactCounters:
    """Counters and histograms over the facts of the journal."""

    def __init__(self) -> None:
        self.facts: Counter[str] = Counter()
        """By kind; kinds of other versions are `unknown`."""
        self.finished: Counter[str] = Counter()
        """Tasks by status."""
        self.decided: Counter[str] = Counter()
        """Proposals by what became of them."""
        self.refused_calls = 0
        self.durations = Histogram()
        self.waits = Histogram()
        self.position = START
        self.lasting = Lag()
        """Of readers of all that lasts."""
        self.control = Lag()
        """Of control."""

    def note(
        self, fact: Fact, *, now: float, for_control: bool, accepted_at: float | None = None
    ) -> None:
        """Count one fact.

        Args:
            fact: As it came from the journal.
            now: Monotonic seconds.
            for_control: Whether control folds facts of its kind.
            accepted_at: When its task was accepted (Unix seconds), if it is about one.
        """
        self.position = fact.offset
        self.facts[fact.kind if fact.kind in _KINDS else "unknown"] += 1
        if fact.kind not in EPHEMERAL:
            self.lasting.note(fact.offset, now)
        if for_control:
            self.control.note(fact.offset, now)
        match fact.kind:
            case Kind.task_started if accepted_at is not None:
                self.waits.observe(fact.at - accepted_at)
            case Kind.task_finished:
                status = fact.outcome if fact.outcome in _STATUSES else "unknown"
                self.finished[status] += 1
                self.durations.observe(_duration(fact))
            case Kind.access_refused:
                self.refused_calls += 1
            case kind if kind in DECIDED:
                self.decided[DECIDED[Kind(kind)]] += 1
            case _:
                pass


def _duration(fact: Fact) -> float:
    try:
        return _ended.decode(fact.data).duration_s
    except (msgspec.DecodeError, ValueError):
        return 0.0
