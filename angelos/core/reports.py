r"""Reports: what a runner saw of the tests that it asked for, in words that the tested code lacks.

A test shares a process with what it tests, so its exit code is the word of the accused. The runner
sits in a box of its own, the judged process in a second one. The runner asks for each case with a
fresh nonce, sentinels that must fail among them, and writes events to a descriptor that only it
holds. `fold_report` makes a report of the events; what is missing or out of order makes it
incomplete, and an incomplete report never passes.

    >>> run = "r" * 32
    >>> events = [
    ...     RunBegan(run=run, runner="unittest 1"),
    ...     CasesCollected(cases=("t.test_a",), sentinels=("s.must_fail",)),
    ...     CaseBegan(case="s.must_fail", nonce="1" * 32),
    ...     CaseEnded(case="s.must_fail", nonce="1" * 32, outcome=CaseOutcome.failed),
    ...     CaseBegan(case="t.test_a", nonce="2" * 32),
    ...     CaseEnded(case="t.test_a", nonce="2" * 32, outcome=CaseOutcome.passed),
    ...     RunEnded(run=run)]
    >>> report = fold_report(run, events)
    >>> verdict_of(report, Expectation(sentinels=("s.must_fail",))).word
    <ReportWord.passed: 'passed'>
    >>> verdict_of(fold_report(run, events[:-1]), Expectation(sentinels=("s.must_fail",))).word
    <ReportWord.incomplete: 'incomplete'>

An event is one line of JSON, at most 64 KiB, a report at most 16 MiB and 100,000 cases. Rules of
what must run and who is asked otherwise are control's; here is only what no rule can do without.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.messages import Message

MAX_EVENT_BYTES = 64 * 1024
MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_CASES = 100_000
MAX_PIECE = 8_000
"""Characters of one piece of a case's output."""
MAX_CASE_OUTPUT = 2_000_000
"""Characters of the outputs of all cases of a report."""

Nonce = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{16,64}$(?!\n)")]
"""Random, made for one use by whoever asks; 32 hex digits are right."""
CaseName = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
"""As the runner names it, for example `tests/test_a.py::test_mean[1]`."""
_Words = Annotated[str, msgspec.Meta(max_length=4_000)]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class CaseOutcome(StrEnum):
    """How a case ended."""

    passed = "passed"
    failed = "failed"
    """An assertion did not hold."""
    error = "error"
    """It, or what sets it up, raised something else."""
    skipped = "skipped"


# -- what a runner writes --------------------------------------------------------------------


class RunBegan(Message, frozen=True, kw_only=True, tag="run.began", tag_field="event"):
    """The first event."""

    run: Nonce
    """The nonce that whoever started the runner gave to it."""
    runner: _Words
    """Its name and version."""


class CasesCollected(Message, frozen=True, kw_only=True, tag="cases.collected", tag_field="event"):
    """What there is to run; once, before the first case."""

    cases: tuple[CaseName, ...]
    sentinels: tuple[CaseName, ...]
    """Cases of the runner's own that must fail; the judged code cannot tell them from others."""


class CaseBegan(Message, frozen=True, kw_only=True, tag="case.began", tag_field="event"):
    """The judged process was asked for a case."""

    case: CaseName
    nonce: Nonce


class CaseOutput(Message, frozen=True, kw_only=True, tag="case.output", tag_field="event"):
    """A piece of what a case made, where the plan asks for it (`CasePlan.fresh`)."""

    case: CaseName
    nonce: Nonce
    """As the judged process gave it back."""
    piece: Annotated[str, msgspec.Meta(max_length=MAX_PIECE)]


class CaseEnded(Message, frozen=True, kw_only=True, tag="case.ended", tag_field="event"):
    """The judged process answered."""

    case: CaseName
    nonce: Nonce
    """As the judged process gave it back."""
    outcome: CaseOutcome
    seconds: _Seconds = 0.0
    output_sha256: _Hash = ""
    """Of what the case printed, empty where that is not kept apart."""
    detail: _Words = ""
    """The last line of the failure, or the reason of the skip."""


class RunEnded(Message, frozen=True, kw_only=True, tag="run.ended", tag_field="event"):
    """The last event: the runner saw everything."""

    run: Nonce


ReportEvent = RunBegan | CasesCollected | CaseBegan | CaseOutput | CaseEnded | RunEnded


# -- what became of it -----------------------------------------------------------------------


class ReportProblem(StrEnum):
    """Why a report is not complete."""

    unreadable = "unreadable"
    """A line is no event, or there are too many bytes or cases."""
    not_begun = "not-begun"
    """The first event is not `RunBegan`, or it has another run's nonce."""
    not_collected = "not-collected"
    """No cases were collected, or twice, or a name twice."""
    not_ended = "not-ended"
    """The last event is not `RunEnded` of this run."""
    out_of_order = "out-of-order"
    """A case began before another had ended, ended without having begun, or anything came after
    the end."""
    unknown_case = "unknown-case"
    """A case was not collected."""
    case_twice = "case-twice"
    case_missing = "case-missing"
    """A case that was collected did not begin, or did not end."""
    wrong_nonce = "wrong-nonce"
    """A case ended with another nonce than it began with, or one was used twice."""
    too_much_output = "too-much-output"
    """The outputs of all cases together are more than a report holds."""


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """One case that was collected."""

    case: str
    sentinel: bool = False
    outcome: CaseOutcome | None = None
    """None: it did not end, or its end does not count."""
    seconds: float = 0.0
    output_sha256: str = ""
    detail: str = ""
    output: str = ""
    """What it made, where the plan asked for it: JSON of a notebook cell's outputs."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a runner reported of one run."""

    run: str
    runner: str
    cases: tuple[CaseReport, ...]
    """In the order in which they were collected, sentinels last."""
    problems: tuple[ReportProblem, ...] = ()
    """Each once, in order of first appearance."""

    @property
    def complete(self) -> bool:
        """Whether each case that was collected began and ended once, and nothing else came."""
        return not self.problems


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What a report must hold whatever its own cases say."""

    sentinels: tuple[str, ...]
    """Exactly these are its sentinels, at least one."""
    required: tuple[str, ...] = ()
    """These must be among its cases and pass."""
    may_skip: tuple[str, ...] = ()
    """These of the required may be skipped as well."""


class ReportWord(StrEnum):
    """What a report says, all in all."""

    passed = "passed"
    failed = "failed"
    """A case failed; the report is sound."""
    incomplete = "incomplete"
    """There is no complete report: no evidence."""
    forged = "forged"
    """A sentinel is missing or did not fail: the outcomes are not to be believed."""
    missing = "missing"
    """A required case did not run or was skipped, or no case ran at all."""


class ReportVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says, with the cases that are the reason."""

    word: ReportWord
    cases: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ReportEvent)


def write_event(event: ReportEvent) -> bytes:
    """Return the line of an event, with its line feed.

    Raises:
        TooLarge: It has more than `MAX_EVENT_BYTES`; collected cases may be that many.
    """
    line = _encoder.encode(event) + b"\n"
    limit = MAX_REPORT_BYTES if isinstance(event, CasesCollected) else MAX_EVENT_BYTES
    if len(line) > limit:
        raise TooLarge(f"An event has at most {limit} bytes, not {len(line)}.")
    return line


def read_events(data: bytes) -> tuple[ReportEvent, ...]:
    """Return the events in what a report channel carried.

    Raises:
        InvalidInput: A line is no event, or the last has no end.
        TooLarge: There are more than `MAX_REPORT_BYTES`.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise TooLarge(f"A report has at most {MAX_REPORT_BYTES} bytes, not {len(data)}.")
    if data and not data.endswith(b"\n"):
        raise InvalidInput("The last event of the report is cut off.")
    try:
        return tuple(_decoder.decode(line) for line in data.splitlines())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Not an event of a report: {error}") from error


def report_of(run: str, data: bytes) -> RunReport:
    """Return the report in what a channel carried; what cannot be read makes it incomplete."""
    try:
        return fold_report(run, read_events(data))
    except (InvalidInput, TooLarge):
        return RunReport(run=run, runner="", cases=(), problems=(ReportProblem.unreadable,))


def fold_report(run: str, events: Iterable[ReportEvent]) -> RunReport:
    """Return the report that events make, in the order in which they came.

    Args:
        run: The nonce that the runner was started with.
        events: What came over the channel; nothing of it is believed before it fits.
    """
    fold = _Fold(run)
    for event in events:
        fold.take(event)
    return fold.report()


def verdict_of(report: RunReport, expectation: Expectation) -> ReportVerdict:
    """Return what a report says against what it must hold; the first that applies.

    Raises:
        InvalidInput: The expectation has no sentinel: then nothing would show a patched assertion.
    """
    if not expectation.sentinels:
        raise InvalidInput("A report without a sentinel proves nothing.")
    if not report.complete:
        return ReportVerdict(word=ReportWord.incomplete)
    if wrong := _wrong_sentinels(report, expectation):
        return ReportVerdict(word=ReportWord.forged, cases=wrong)
    passed, skipped = _named(report, CaseOutcome.passed), _named(report, CaseOutcome.skipped)
    if failed := _named(report, CaseOutcome.failed, CaseOutcome.error):
        return ReportVerdict(word=ReportWord.failed, cases=failed)
    missing = {*expectation.required} - {*passed} - ({*skipped} & {*expectation.may_skip})
    if missing or not passed:
        return ReportVerdict(word=ReportWord.missing, cases=tuple(sorted(missing)))
    return ReportVerdict(word=ReportWord.passed)


def _named(report: RunReport, *outcomes: CaseOutcome) -> tuple[str, ...]:
    """Return the cases that ended so, without sentinels."""
    return tuple(c.case for c in report.cases if not c.sentinel and c.outcome in outcomes)


def _wrong_sentinels(report: RunReport, expectation: Expectation) -> tuple[str, ...]:
    """Return the sentinels that are missing, too many, or did not fail."""
    sentinels = {case.case: case.outcome for case in report.cases if case.sentinel}
    wrong = sorted(sentinels.keys() ^ {*expectation.sentinels})
    wrong += [name for name, outcome in sentinels.items() if outcome is not CaseOutcome.failed]
    return tuple(wrong)


class _Fold:
    """Reads events one by one."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.runner: str | None = None
        self.ended = False
        self.cases: dict[str, CaseReport] = {}
        self.collected = False
        self.began: dict[str, str] = {}
        self.nonces: set[str] = set()
        self.current: CaseBegan | None = None
        self.pieces: list[str] = []
        self.output_size = 0
        self.problems: dict[ReportProblem, None] = {}

    def take(self, event: ReportEvent) -> None:
        if self.ended:
            self.problem(ReportProblem.out_of_order)
        elif isinstance(event, RunBegan):
            self.begin(event)
        elif self.runner is None:
            self.problem(ReportProblem.not_begun)
        elif isinstance(event, CasesCollected):
            self.collect(event)
        elif isinstance(event, CaseBegan):
            self.begin_case(event)
        elif isinstance(event, CaseOutput):
            self.add_output(event)
        elif isinstance(event, CaseEnded):
            self.end_case(event)
        else:
            self.ended = event.run == self.run

    def begin(self, event: RunBegan) -> None:
        if self.runner is not None:
            self.problem(ReportProblem.out_of_order)
        elif event.run != self.run:
            self.problem(ReportProblem.not_begun)
        else:
            self.runner = event.runner

    def collect(self, event: CasesCollected) -> None:
        names = [*event.cases, *event.sentinels]
        if self.collected or len(set(names)) != len(names):
            self.problem(ReportProblem.not_collected)
        elif len(names) > MAX_CASES:
            self.problem(ReportProblem.unreadable)
        else:
            first_sentinel = len(event.cases)
            for index, name in enumerate(names):
                self.cases[name] = CaseReport(case=name, sentinel=index >= first_sentinel)
        self.collected = True

    def begin_case(self, event: CaseBegan) -> None:
        if self.current is not None:
            self.problem(ReportProblem.out_of_order)
        if event.case not in self.cases:
            self.problem(ReportProblem.unknown_case)
        elif event.case in self.began:
            self.problem(ReportProblem.case_twice)
        if event.nonce in self.nonces:
            self.problem(ReportProblem.wrong_nonce)
        self.nonces.add(event.nonce)
        self.began[event.case] = event.nonce
        self.current = event

    def add_output(self, event: CaseOutput) -> None:
        current = self.current
        self.output_size += len(event.piece)
        if current is None or current.case != event.case:
            self.problem(ReportProblem.out_of_order)
        elif current.nonce != event.nonce:
            self.problem(ReportProblem.wrong_nonce)
        elif self.output_size > MAX_CASE_OUTPUT:
            self.problem(ReportProblem.too_much_output)
        else:
            self.pieces.append(event.piece)

    def end_case(self, event: CaseEnded) -> None:
        current, self.current = self.current, None
        output, self.pieces = "".join(self.pieces), []
        if current is None or current.case != event.case:
            self.problem(ReportProblem.out_of_order)
        elif current.nonce != event.nonce:
            self.problem(ReportProblem.wrong_nonce)
        elif event.case in self.cases:
            self.cases[event.case] = msgspec.structs.replace(
                self.cases[event.case],
                outcome=event.outcome,
                seconds=event.seconds,
                output_sha256=event.output_sha256,
                detail=event.detail,
                output=output,
            )

    def problem(self, problem: ReportProblem) -> None:
        self.problems.setdefault(problem)

    def report(self) -> RunReport:
        if self.runner is None:
            self.problem(ReportProblem.not_begun)
        if not self.collected:
            self.problem(ReportProblem.not_collected)
        if any(case.outcome is None for case in self.cases.values()):
            self.problem(ReportProblem.case_missing)
        if not self.ended:
            self.problem(ReportProblem.not_ended)
        return RunReport(
            run=self.run,
            runner=self.runner or "",
            cases=tuple(self.cases.values()),
            problems=tuple(self.problems),
        )
