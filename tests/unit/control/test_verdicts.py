"""What the reports of a step's runs say together."""

from __future__ import annotations

import pytest

from angelos.control.proposals.verdicts import RunRole, decide, sound
from angelos.core.facts import CandidateOutcome
from angelos.core.findings import GateRule
from angelos.core.reports import CaseOutcome, CaseReport, ReportProblem, RunReport

GOOD, BAD, SKIP = CaseOutcome.passed, CaseOutcome.failed, CaseOutcome.skipped
CANDIDATE, MAIN, JUDGES = RunRole.candidate, RunRole.main, RunRole.judges
AGAIN, MAIN_AGAIN = RunRole.again, RunRole.main_again


def report(sentinel=BAD, problems=(), **cases):
    rows = [CaseReport(case=name, outcome=outcome) for name, outcome in cases.items()]
    guard = CaseReport(case="s.guard", sentinel=True, outcome=sentinel)
    return RunReport(run="r", runner="fake", cases=(*rows, guard), problems=problems)


BROKEN = report(problems=(ReportProblem.not_ended,), a=GOOD)


def rules(verdict):
    return {finding.rule for finding in verdict.findings}


def test_runs_are_asked_for_as_they_are_needed():
    assert decide({}, judges_changed=False).needs == (CANDIDATE, MAIN)
    assert decide({}, judges_changed=True).needs == (CANDIDATE, MAIN, JUDGES)
    bad = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD)}
    assert decide(bad, judges_changed=False).needs == (AGAIN, MAIN_AGAIN)


def test_what_passes_like_main_passes():
    verdict = decide(
        {CANDIDATE: report(a=GOOD, b=GOOD), MAIN: report(a=GOOD)}, judges_changed=False
    )
    assert (verdict.outcome, verdict.findings) == (CandidateOutcome.passed, ())


@pytest.mark.parametrize("judging", [BROKEN, report(sentinel=GOOD, a=GOOD), report(sentinel=None)])
def test_a_report_that_is_not_to_be_believed_rejects(judging):
    assert not sound(judging)
    reports = {CANDIDATE: judging, MAIN: report(a=GOOD)}
    assert decide(reports, judges_changed=False).needs == (AGAIN,)
    verdict = decide({**reports, AGAIN: judging}, judges_changed=False)
    assert verdict.outcome is CandidateOutcome.failed


def test_a_case_that_fails_twice_and_passes_on_main_twice_rejects():
    reports = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD), AGAIN: report(a=BAD)}
    verdict = decide({**reports, MAIN_AGAIN: report(a=GOOD)}, judges_changed=False)
    assert verdict.outcome is CandidateOutcome.failed
    assert "a failed" in verdict.reason


def test_a_case_that_then_passes_is_flaky_and_evicts_nobody():
    reports = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD), AGAIN: report(a=GOOD)}
    verdict = decide({**reports, MAIN_AGAIN: report(a=GOOD)}, judges_changed=False)
    assert (verdict.outcome, verdict.flaky) == (CandidateOutcome.passed, ("a",))
    assert not verdict.findings


@pytest.mark.parametrize("repeat", [report(sentinel=GOOD, a=GOOD), BROKEN, report(a=SKIP)])
def test_a_repeat_that_is_not_to_be_believed_excuses_nothing(repeat):
    reports = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD), AGAIN: repeat}
    verdict = decide({**reports, MAIN_AGAIN: report(a=GOOD)}, judges_changed=False)
    assert (verdict.outcome, verdict.flaky) == (CandidateOutcome.failed, ())


def test_a_case_that_then_fails_on_main_too_asks_a_person():
    reports = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD), AGAIN: report(a=BAD)}
    verdict = decide({**reports, MAIN_AGAIN: report(a=BAD)}, judges_changed=False)
    assert (verdict.outcome, verdict.flaky) == (CandidateOutcome.passed, ("a",))
    assert rules(verdict) == {GateRule.main_fails}


def test_a_main_that_gives_no_second_report_excuses_nobody():
    reports = {CANDIDATE: report(a=BAD), MAIN: report(a=GOOD), AGAIN: report(a=BAD)}
    verdict = decide({**reports, MAIN_AGAIN: BROKEN}, judges_changed=False)
    assert verdict.outcome is CandidateOutcome.failed


def test_a_new_case_that_fails_rejects_at_once():
    verdict = decide({CANDIDATE: report(a=GOOD, b=BAD), MAIN: report(a=GOOD)}, judges_changed=False)
    assert verdict.outcome is CandidateOutcome.failed


def test_fewer_cases_and_new_skips_ask_a_person():
    main = report(a=GOOD, b=GOOD, c=SKIP)
    verdict = decide({CANDIDATE: report(a=GOOD, b=SKIP, c=SKIP), MAIN: main}, judges_changed=False)
    assert rules(verdict) == {GateRule.tests_skipped}
    verdict = decide({CANDIDATE: report(a=GOOD, c=SKIP), MAIN: main}, judges_changed=False)
    assert rules(verdict) == {GateRule.tests_fewer}
    verdict = decide({CANDIDATE: report(), MAIN: report()}, judges_changed=False)
    assert rules(verdict) == {GateRule.not_witnessed}


def test_mains_own_version_of_a_changed_test_asks_with_both_results():
    twice = report(a=BAD)
    reports = {CANDIDATE: report(a=GOOD), MAIN: report(a=GOOD), JUDGES: twice, AGAIN: twice}
    verdict = decide({**reports, MAIN_AGAIN: report(a=GOOD)}, judges_changed=True)
    assert verdict.outcome is CandidateOutcome.passed
    assert rules(verdict) == {GateRule.results_differ}


def test_a_changed_test_that_fails_itself_rejects():
    bad = report(a=BAD)
    reports = {CANDIDATE: bad, MAIN: report(a=GOOD), JUDGES: bad, AGAIN: bad}
    verdict = decide({**reports, MAIN_AGAIN: report(a=GOOD)}, judges_changed=True)
    assert verdict.outcome is CandidateOutcome.failed


def test_what_main_fails_as_well_asks_a_person():
    verdict = decide({CANDIDATE: report(a=BAD), MAIN: report(a=BAD)}, judges_changed=False)
    assert rules(verdict) == {GateRule.main_fails}
    verdict = decide({CANDIDATE: report(a=GOOD), MAIN: BROKEN}, judges_changed=False)
    assert rules(verdict) == {GateRule.main_fails}
