"""What the reports of a step's runs say together: pure, so that it can be read and tried.

A step whose cases a runner asks for may have several runs:

- `candidate`: the candidate with its own tests;
- `main`: `main` with its tests, by which it is known what has to pass. What `main` became by a
  promotion was tested as that candidate, so it is seldom run;
- `judges`: the candidate's code with `main`'s tests, where the candidate changed what judges;
- `again` and `main-again`: once more, where a case of `main` fails on the candidate and did not on
  `main`: a case that then passes, or that then fails on `main` too, is flaky and evicts nobody.

    >>> decide({}, judges_changed=False).needs
    (<RunRole.candidate: 'candidate'>, <RunRole.main: 'main'>)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

import msgspec

from angelos.core.facts import CandidateOutcome
from angelos.core.findings import GateFinding, GateRule
from angelos.core.reports import CaseOutcome, Expectation, ReportWord, RunReport, verdict_of

_NAMED = 5
_GOOD = frozenset({CaseOutcome.passed, CaseOutcome.skipped})


class RunRole(StrEnum):
    """Which run of a step it is."""

    candidate = "candidate"
    main = "main"
    judges = "judges"
    again = "again"
    main_again = "main-again"
    refresh = "refresh"
    """A notebook's first clean re-run, whose outputs are written into the candidate."""


class CaseVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about a step, or what came of it."""

    needs: tuple[RunRole, ...] = ()
    """Runs without which nothing can be said; empty when something was."""
    outcome: CandidateOutcome | None = None
    reason: str = ""
    findings: tuple[GateFinding, ...] = ()
    flaky: tuple[str, ...] = ()


def decide(reports: Mapping[RunRole, RunReport], *, judges_changed: bool) -> CaseVerdict:
    """Return what the reports say, or which runs are needed first.

    Args:
        reports: Of the runs that have ended; a run that gave no report has an incomplete one.
        judges_changed: Whether the candidate changed, moved or removed what judges.
    """
    first = (RunRole.candidate, RunRole.main, *((RunRole.judges,) if judges_changed else ()))
    if needs := tuple(role for role in first if role not in reports):
        return CaseVerdict(needs=needs)
    judging = reports[RunRole.judges if judges_changed else RunRole.candidate]
    if not sound(judging) or (judges_changed and not sound(reports[RunRole.candidate])):
        return _unsound(reports, judging)
    if not sound(reports[RunRole.main]):
        return _main_unsound(judging)
    return _Comparison(reports, judging, judges_changed=judges_changed).verdict()


def sound(report: RunReport) -> bool:
    """Return whether a report is complete and each of its sentinels failed."""
    sentinels = tuple(case.case for case in report.cases if case.sentinel)
    if not sentinels:
        return False
    word = verdict_of(report, Expectation(sentinels=sentinels)).word
    return word not in {ReportWord.incomplete, ReportWord.forged}


def cases_of(report: RunReport, *outcomes: CaseOutcome) -> list[str]:
    """Return the cases of a report, without sentinels, that ended so."""
    return [c.case for c in report.cases if not c.sentinel and c.outcome in outcomes]


def named(cases: Collection[str]) -> str:
    """Return the first cases in a phrase."""
    more = len(cases) - _NAMED
    return ", ".join(list(cases)[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _unsound(reports: Mapping[RunRole, RunReport], judging: RunReport) -> CaseVerdict:
    """Return what follows when the candidate's tests gave no report to be believed."""
    if RunRole.again not in reports:
        return CaseVerdict(needs=(RunRole.again,))
    if sound(reports[RunRole.again]):
        rest = {role: report for role, report in reports.items() if role is not RunRole.again}
        changed = RunRole.judges in reports
        role = RunRole.judges if changed else RunRole.candidate
        verdict = decide({**rest, role: reports[RunRole.again]}, judges_changed=changed)
        # A second unsound report is not tried a third time.
        return verdict if not verdict.needs else _no_report(judging)
    if not sound(reports[RunRole.main]):
        return _asked(GateRule.main_fails, "neither it nor main gives a complete report")
    return _no_report(judging)


def _no_report(judging: RunReport) -> CaseVerdict:
    problems = ", ".join(judging.problems) or "a sentinel that must fail did not"
    return _failed(f"its tests gave no report that can be believed ({problems})")


def _main_unsound(judging: RunReport) -> CaseVerdict:
    failed = cases_of(judging, CaseOutcome.failed, CaseOutcome.error)
    if failed:
        return _asked(GateRule.main_fails, f"{named(failed)} fail, and main gives no report at all")
    return _asked(GateRule.main_fails, "main's own tests give no complete report")


class _Comparison:
    """Compares sound reports, case by case."""

    def __init__(
        self, reports: Mapping[RunRole, RunReport], judging: RunReport, *, judges_changed: bool
    ) -> None:
        self.reports = reports
        self.judging = _outcomes(judging)
        self.own = _outcomes(reports[RunRole.candidate])
        self.main = _outcomes(reports[RunRole.main])
        self.changed = judges_changed
        self.failing = _bad(self.judging)
        self.flaky: list[str] = []
        self.findings: list[GateFinding] = []

    def verdict(self) -> CaseVerdict:
        """Return what they say together."""
        own = [case for case in _bad(self.own) if case not in self.main]
        if own:
            return _failed(f"{named(own)} failed")
        both = [case for case in self.failing if self.main.get(case) not in _GOOD]
        mine = [case for case in self.failing if self.main.get(case) in _GOOD]
        if mine and (needs := self._reruns()):
            return CaseVerdict(needs=needs)
        culprits = self._culprits(mine)
        if rejected := [case for case in culprits if not self._changed_it(case)]:
            return msgspec.structs.replace(
                _failed(f"{named(rejected)} failed"), flaky=tuple(self.flaky)
            )
        if culprits:
            reason = f"main's {named(culprits)} fail on it, its own version passes"
            self._ask(GateRule.results_differ, reason)
        if both:
            self._ask(GateRule.main_fails, f"{named(both)} fail on main as well")
        self._missing()
        return self._end()

    def _reruns(self) -> tuple[RunRole, ...]:
        roles = (RunRole.again, RunRole.main_again)
        return tuple(role for role in roles if role not in self.reports)

    def _culprits(self, failing: list[str]) -> list[str]:
        """Return the cases that fail twice on the candidate and pass twice on `main`."""
        if not failing:
            return []
        repeat = self.reports[RunRole.again]
        again = _outcomes(repeat) if sound(repeat) else {}  # whose sentinels failed
        main_again = _outcomes(self.reports[RunRole.main_again])
        believed = sound(self.reports[RunRole.main_again])
        culprits: list[str] = []
        for case in failing:
            if again.get(case) is CaseOutcome.passed:
                self.flaky.append(case)
            elif believed and main_again.get(case) not in _GOOD:
                self.flaky.append(case)
                self._ask(GateRule.main_fails, f"{case} fails on main now as well")
            else:
                culprits.append(case)
        return culprits

    def _changed_it(self, case: str) -> bool:
        """Return whether the candidate's own version of a failing test passes, or is not there."""
        return self.changed and self.own.get(case) not in {CaseOutcome.failed, CaseOutcome.error}

    def _missing(self) -> None:
        """Ask for the cases that passed on `main` and do not run, or are skipped."""
        passed = [case for case, outcome in self.main.items() if outcome is CaseOutcome.passed]
        gone = [case for case in passed if case not in self.own]
        skipped = [case for case in passed if self.own.get(case) is CaseOutcome.skipped]
        if gone:
            self._ask(GateRule.tests_fewer, f"{named(gone)} of main did not run")
        if skipped:
            self._ask(GateRule.tests_skipped, f"{named(skipped)} passed on main and is skipped")

    def _ask(self, rule: GateRule, reason: str) -> None:
        self.findings.append(GateFinding(rule=rule, reason=reason))

    def _end(self) -> CaseVerdict:
        ran = CaseOutcome.passed in self.own.values() or bool(self.flaky)
        if not self.findings and not ran:
            self._ask(GateRule.not_witnessed, "no test ran")
        return CaseVerdict(
            outcome=CandidateOutcome.passed,
            findings=tuple(self.findings),
            flaky=tuple(self.flaky),
        )


def _outcomes(report: RunReport) -> dict[str, CaseOutcome | None]:
    return {case.case: case.outcome for case in report.cases if not case.sentinel}


def _bad(outcomes: Mapping[str, CaseOutcome | None]) -> list[str]:
    return [case for case, outcome in outcomes.items() if outcome not in _GOOD]


def _failed(reason: str) -> CaseVerdict:
    return CaseVerdict(outcome=CandidateOutcome.failed, reason=reason)


def _asked(rule: GateRule, reason: str) -> CaseVerdict:
    finding = GateFinding(rule=rule, reason=reason)
    return CaseVerdict(outcome=CandidateOutcome.passed, findings=(finding,))
