"""Sequence numbers of facts: an omission shows.

Each writer (a node, an agent, the control plane) counts its facts from 1 and keeps the count as
durably as what it counts. A writer that has lost its count begins a new life, one higher than the
last that it or anybody remembers of it. Whoever reads facts in the order of the journal tells by
`check_sequence` whether one is missing, was sent twice under two ids, or comes from a writer that
was copied.

    >>> node = PrincipalId("node/exec1")
    >>> last = FactSequence(writer=node, life=1, number=4)
    >>> check_sequence(last, FactSequence(writer=node, life=1, number=5))
    SequenceStep(kind=<StepKind.next: 'next'>, missing=0)
    >>> check_sequence(last, FactSequence(writer=node, life=1, number=8))
    SequenceStep(kind=<StepKind.gap: 'gap'>, missing=3)
    >>> check_sequence(last, FactSequence(writer=node, life=2, number=1)).kind
    <StepKind.restart: 'restart'>
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.ids import PrincipalId, is_principal

MAX_NUMBER = 2**53 - 1


class FactSequence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which of its writer's facts one is; it stands in the fact's header.

    The hub checks that `writer` is the identity of the connection that it came by. It need not be
    the fact's actor: control writes what a person did.
    """

    writer: PrincipalId
    life: int
    """From 1; higher each time the writer had lost its count."""
    number: int
    """From 1 in each life, by one for each fact, whatever its kind."""

    def following(self) -> FactSequence:
        """Return the sequence of this writer's next fact in the same life."""
        return FactSequence(writer=self.writer, life=self.life, number=self.number + 1)


class StepKind(StrEnum):
    """How one fact of a writer follows the last that was read."""

    next = "next"
    """The next number, or the first of the first life."""
    gap = "gap"
    """Facts between the two are missing."""
    restart = "restart"
    """A later life. How the one before it ended cannot be told from numbers, so a reader that
    counts on completeness treats it as a gap of unknown size."""
    repeated = "repeated"
    """A number that was read before, under another id: its writer was rolled back or copied."""
    past_life = "past-life"
    """A life that is over still writes: two processes believe that they are this writer."""


class SequenceStep(msgspec.Struct, frozen=True):
    """How one fact follows the last, and how many are missing between them."""

    kind: StepKind
    missing: int = 0
    """Of this life; what a life before it did not bring is not counted."""

    @property
    def sound(self) -> bool:
        """Whether nothing is missing or out of place, as far as numbers tell."""
        return self.kind is StepKind.next


def is_sequence(sequence: FactSequence) -> bool:
    """Return whether writer, life and number are within their bounds."""
    counts = (sequence.life, sequence.number)
    return is_principal(sequence.writer) and all(1 <= count <= MAX_NUMBER for count in counts)


def check_sequence(last: FactSequence | None, now: FactSequence) -> SequenceStep:
    """Return how a fact follows the last one of its writer that was read.

    Args:
        last: The highest life and number read so far; None if none was.
        now: The fact's.

    Raises:
        InvalidInput: The two are of different writers, or `now` is out of its bounds.
    """
    if not is_sequence(now):
        raise InvalidInput(f"The sequence of a fact of {now.writer[:80]!r} is out of its bounds.")
    if last is None:
        kind = StepKind.next if now.life == 1 else StepKind.restart
        return SequenceStep(StepKind.gap, now.number - 1) if now.number > 1 else SequenceStep(kind)
    if last.writer != now.writer:
        raise InvalidInput(f"{now.writer} does not follow {last.writer}.")
    if now.life < last.life:
        return SequenceStep(StepKind.past_life)
    if now.life > last.life:
        return SequenceStep(StepKind.restart, now.number - 1)
    if now.number <= last.number:
        return SequenceStep(StepKind.repeated)
    missing = now.number - last.number - 1
    return SequenceStep(StepKind.gap if missing else StepKind.next, missing)


def latest(last: FactSequence | None, now: FactSequence) -> FactSequence:
    """Return the higher of two sequences of one writer: what is remembered after reading."""
    if last is None or (now.life, now.number) > (last.life, last.number):
        return now
    return last


def unsound_steps(
    sequences: Iterable[FactSequence],
) -> list[tuple[FactSequence, SequenceStep]]:
    """Return what does not follow what came before it, of several writers, in journal order."""
    last: dict[PrincipalId, FactSequence] = {}
    unsound: list[tuple[FactSequence, SequenceStep]] = []
    for now in sequences:
        previous = last.get(now.writer)
        step = check_sequence(previous, now)
        if not step.sound:
            unsound.append((now, step))
        last[now.writer] = latest(previous, now)
    return unsound
