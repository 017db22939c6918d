"""A report counts only if everything that was collected began and ended, once, in order."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core import reports
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.reports import (
    CaseBegan,
    CaseEnded,
    CaseOutcome,
    CasesCollected,
    Expectation,
    ReportProblem,
    ReportWord,
    RunBegan,
    RunEnded,
    fold_report,
    read_events,
    report_of,
    verdict_of,
    write_event,
)

RUN = "r" * 32
PASSED, FAILED = CaseOutcome.passed, CaseOutcome.failed
GOOD = {"t.a": PASSED, "t.b": PASSED, "s.1": FAILED}
SENTINELS = Expectation(sentinels=("s.1",))


def case(name, outcome, number):
    nonce = f"{number:032}"
    began = CaseBegan(case=name, nonce=nonce)
    return [began, CaseEnded(case=name, nonce=nonce, outcome=outcome, seconds=0.1, detail="d")]


def events(outcomes=GOOD, order=None):
    sentinels = tuple(name for name in outcomes if name.startswith("s."))
    cases = tuple(name for name in outcomes if name not in sentinels)
    rows = [RunBegan(run=RUN, runner="x 1"), CasesCollected(cases=cases, sentinels=sentinels)]
    for number, name in enumerate(order or outcomes):
        rows += case(name, outcomes[name], number)
    return [*rows, RunEnded(run=RUN)]


def test_a_complete_report_says_what_came():
    report = fold_report(RUN, events(order=["s.1", "t.b", "t.a"]))
    assert report.complete
    assert (report.run, report.runner) == (RUN, "x 1")
    assert [(c.case, c.sentinel, c.outcome) for c in report.cases] == [
        ("t.a", False, PASSED), ("t.b", False, PASSED), ("s.1", True, FAILED),
    ]  # fmt: skip
    assert {(c.seconds, c.detail) for c in report.cases} == {(0.1, "d")}


@given(st.integers(0, len(events()) - 1))
def test_an_event_that_is_missing_or_comes_twice_is_seen(at):
    rows = events()
    assert not fold_report(RUN, rows[:at] + rows[at + 1 :]).complete
    assert not fold_report(RUN, rows[: at + 1] + rows[at:]).complete
    assert not fold_report(RUN, rows[:at]).complete


@given(st.permutations(events()))
def test_only_orders_in_which_cases_follow_each_other_are_complete(rows):
    """Whole cases may change places; nothing else may."""
    names = [row.case for row in rows if isinstance(row, CaseBegan)]
    numbers = {name: number for number, name in enumerate(GOOD)}
    middle = [event for name in names for event in case(name, GOOD[name], numbers[name])]
    right = rows == [events()[0], events()[1], *middle, events()[-1]]
    assert fold_report(RUN, rows).complete == right


def changed(at, **fields):
    rows = events()
    rows[at] = msgspec.structs.replace(rows[at], **fields)
    return rows


PROBLEMS = [
    ([], {ReportProblem.not_begun, ReportProblem.not_collected, ReportProblem.not_ended}),
    (changed(0, run="x" * 32), {ReportProblem.not_begun}),
    (changed(-1, run="x" * 32), {ReportProblem.not_ended}),
    (changed(1, cases=("t.a", "t.b", "t.c")), {ReportProblem.case_missing}),
    (changed(1, cases=("t.a", "t.a", "t.b")), {ReportProblem.not_collected}),
    (changed(1, cases=("t.a", "t.b", "s.1")), {ReportProblem.not_collected}),
    (changed(1, cases=("t.a",)), {ReportProblem.unknown_case}),
    (changed(3, nonce="x" * 32), {ReportProblem.wrong_nonce}),
    (changed(3, case="t.b"), {ReportProblem.out_of_order}),
    ([*events()[:2], *case("t.a", PASSED, 1), *case("t.b", PASSED, 1), *events()[6:]],
     {ReportProblem.wrong_nonce}),
    ([*events()[:4], *case("t.a", PASSED, 9), *events()[4:]], {ReportProblem.case_twice}),
    ([*events(), events()[0]], {ReportProblem.out_of_order}),
    ([events()[0], *events()], {ReportProblem.out_of_order}),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "problems"), PROBLEMS)
def test_each_problem_has_its_name(rows, problems):
    assert problems <= set(fold_report(RUN, rows).problems)


def test_too_many_cases_are_no_report(monkeypatch):
    monkeypatch.setattr(reports, "MAX_CASES", 2)
    assert ReportProblem.unreadable in fold_report(RUN, events()).problems


# -- the verdict -------------------------------------------------------------------------------

VERDICTS = [
    (GOOD, SENTINELS, ReportWord.passed, ()),
    ({**GOOD, "t.b": FAILED}, SENTINELS, ReportWord.failed, ("t.b",)),
    ({**GOOD, "t.b": CaseOutcome.error}, SENTINELS, ReportWord.failed, ("t.b",)),
    ({**GOOD, "t.b": CaseOutcome.skipped}, SENTINELS, ReportWord.passed, ()),
    ({**GOOD, "s.1": PASSED}, SENTINELS, ReportWord.forged, ("s.1",)),
    ({**GOOD, "s.1": CaseOutcome.error}, SENTINELS, ReportWord.forged, ("s.1",)),
    ({**GOOD, "s.1": CaseOutcome.skipped}, SENTINELS, ReportWord.forged, ("s.1",)),
    ({**GOOD, "s.1": PASSED, "t.a": FAILED}, SENTINELS, ReportWord.forged, ("s.1",)),
    (GOOD, Expectation(sentinels=("s.1", "s.2")), ReportWord.forged, ("s.2",)),
    ({**GOOD, "s.2": FAILED}, SENTINELS, ReportWord.forged, ("s.2",)),
    ({"t.a": PASSED}, SENTINELS, ReportWord.forged, ("s.1",)),
    ({"s.1": FAILED}, SENTINELS, ReportWord.missing, ()),
    ({"s.1": FAILED, "t.a": CaseOutcome.skipped}, SENTINELS, ReportWord.missing, ()),
    (GOOD, Expectation(sentinels=("s.1",), required=("t.a", "t.c")), ReportWord.missing, ("t.c",)),
    ({**GOOD, "t.b": CaseOutcome.skipped},
     Expectation(sentinels=("s.1",), required=("t.b",)), ReportWord.missing, ("t.b",)),
    ({**GOOD, "t.b": CaseOutcome.skipped},
     Expectation(sentinels=("s.1",), required=("t.b",), may_skip=("t.b",)), ReportWord.passed, ()),
    (GOOD, Expectation(sentinels=("s.1",), required=("t.c",), may_skip=("t.c",)),
     ReportWord.missing, ("t.c",)),
    (GOOD, Expectation(sentinels=("s.1",), required=("s.1",)), ReportWord.missing, ("s.1",)),
]  # fmt: skip


@pytest.mark.parametrize(("outcomes", "expectation", "word", "cases"), VERDICTS)
def test_a_report_says_one_word_and_why(outcomes, expectation, word, cases):
    verdict = verdict_of(fold_report(RUN, events(outcomes)), expectation)
    assert (verdict.word, verdict.cases) == (word, cases)


@given(st.sampled_from([row for row, _ in PROBLEMS]))
def test_what_is_not_complete_never_passes(rows):
    assert verdict_of(fold_report(RUN, rows), SENTINELS).word is ReportWord.incomplete


def test_without_a_sentinel_nothing_is_proven():
    with pytest.raises(InvalidInput):
        verdict_of(fold_report(RUN, events()), Expectation(sentinels=()))


# -- the channel -------------------------------------------------------------------------------


def test_events_cross_the_channel():
    data = b"".join(map(write_event, events()))
    assert list(read_events(data)) == events()
    assert report_of(RUN, data) == fold_report(RUN, events())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_report_that_is_not_complete(data):
    assert not report_of(RUN, data).complete


@given(st.integers(0, 2_000), st.integers(1, 255))
def test_a_flipped_byte_never_makes_another_outcome_of_a_whole_report(at, flip):
    """What still reads as a whole report differs at most in words that nothing decides by."""
    data = bytearray(b"".join(map(write_event, events({**GOOD, "t.b": FAILED}))))
    data[at % len(data)] ^= flip
    report = report_of(RUN, bytes(data))
    if report.complete:
        assert verdict_of(report, SENTINELS).word is not ReportWord.passed


def test_a_channel_has_bounds(monkeypatch):
    with pytest.raises(TooLarge):
        write_event(CaseEnded(case="t", nonce="1" * 32, outcome=FAILED, detail="x" * 65_536))
    many = CasesCollected(cases=tuple(f"t.{i}" for i in range(20_000)), sentinels=())
    assert read_events(write_event(many)) == (many,)
    monkeypatch.setattr(reports, "MAX_REPORT_BYTES", 10)
    with pytest.raises(TooLarge):
        read_events(b"x" * 11)
    assert report_of(RUN, b"x" * 11).problems == (ReportProblem.unreadable,)


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"null", b"[]", b'{"event":"nosuch"}', b"{" * 10_000, b"\xff",
        b'{"event":"run.began","run":"short","runner":""}',
        b'{"event":"case.ended","case":"a","nonce":"1234567890123456","outcome":"great"}',
        b'{"event":"case.ended","case":"a","nonce":"1234567890123456","outcome":"passed","seconds":-1}',
        b'{"event":"run.ended","run":"1234567890123456\\n"}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(InvalidInput):
        read_events(line + b"\n")


def test_an_event_without_its_end_is_refused():
    with pytest.raises(InvalidInput, match="cut off"):
        read_events(write_event(RunEnded(run=RUN))[:-1])
