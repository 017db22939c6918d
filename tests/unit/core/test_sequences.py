"""Sequence numbers: whatever is left out, sent again or sent by a copy shows."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.errors import InvalidInput
from angelos.core.ids import PrincipalId
from angelos.core.sequences import (
    FactSequence,
    SequenceStep,
    StepKind,
    check_sequence,
    latest,
    unsound_steps,
)

NODE, OTHER = PrincipalId("node/exec1"), PrincipalId("node/exec2")


def at(life, number, writer=NODE):
    return FactSequence(writer=writer, life=life, number=number)


STEPS = [
    (None, at(1, 1), StepKind.next, 0),
    (None, at(1, 4), StepKind.gap, 3),
    (None, at(2, 1), StepKind.restart, 0),
    (None, at(2, 3), StepKind.gap, 2),
    (at(1, 4), at(1, 5), StepKind.next, 0),
    (at(1, 4), at(1, 6), StepKind.gap, 1),
    (at(1, 4), at(1, 4), StepKind.repeated, 0),
    (at(1, 4), at(1, 1), StepKind.repeated, 0),
    (at(1, 4), at(2, 1), StepKind.restart, 0),
    (at(1, 4), at(2, 3), StepKind.restart, 2),
    (at(1, 4), at(3, 1), StepKind.restart, 0),
    (at(2, 4), at(1, 5), StepKind.past_life, 0),
]


@pytest.mark.parametrize(("last", "now", "kind", "missing"), STEPS)
def test_a_fact_follows_the_last_or_it_is_said_how_not(last, now, kind, missing):
    step = check_sequence(last, now)
    assert step == SequenceStep(kind, missing)
    assert step.sound == (kind is StepKind.next)
    assert latest(last, now) == max(filter(None, [last, now]), key=lambda s: (s.life, s.number))


@pytest.mark.parametrize(
    "wrong", [at(0, 1), at(1, 0), at(-1, 1), at(1, 2**53), at(1, 1, PrincipalId("exec1"))]
)
def test_a_sequence_out_of_its_bounds_is_refused(wrong):
    with pytest.raises(InvalidInput):
        check_sequence(None, wrong)


def test_writers_are_not_compared():
    with pytest.raises(InvalidInput):
        check_sequence(at(1, 1), at(1, 2, OTHER))


@given(st.lists(st.sampled_from([NODE, OTHER]), max_size=30))
def test_writers_that_leave_nothing_out_are_sound_in_any_interleaving(writers):
    counts = {NODE: 0, OTHER: 0}
    rows = []
    for writer in writers:
        counts[writer] += 1
        rows.append(at(1, counts[writer], writer))
    assert unsound_steps(rows) == []


@given(st.integers(2, 30), st.data())
def test_any_omission_before_the_end_shows_exactly_once(count, data):
    rows = [at(1, number) for number in range(1, count + 1)]
    low = data.draw(st.integers(0, count - 2))
    high = data.draw(st.integers(low + 1, count - 1))
    ((first, step),) = unsound_steps(rows[:low] + rows[high:])
    assert first == rows[high]
    assert step == SequenceStep(StepKind.gap, high - low)


@given(st.integers(1, 10), st.integers(0, 9))
def test_a_writer_that_was_rolled_back_shows(count, back):
    rows = [at(1, number) for number in range(1, count + 1)]
    again = rows[min(back, count - 1) :]
    unsound = unsound_steps(rows + again)
    assert [step.kind for _, step in unsound] == [StepKind.repeated] * len(again)


def test_a_copy_of_a_writer_shows_whichever_of_them_is_first():
    rows = [at(1, 1), at(2, 1), at(1, 2), at(2, 2), at(1, 3)]
    kinds = [step.kind for _, step in unsound_steps(rows)]
    assert kinds == [StepKind.restart, StepKind.past_life, StepKind.past_life]


def test_the_next_of_a_writer_follows():
    assert check_sequence(at(3, 7), at(3, 7).following()).sound


@given(st.builds(at, st.integers(1, 2**53 - 1), st.integers(1, 2**53 - 1)))
def test_a_sequence_crosses_the_wire(sequence):
    body = msgspec.msgpack.encode(sequence)
    assert msgspec.msgpack.decode(body, type=FactSequence) == sequence
