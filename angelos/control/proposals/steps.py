"""The steps of a candidate's tests as tasks: which runs exist, and what came of them.

Pure. A run is retried when its node gave up, never when its program failed; each attempt has an id
made of proposal, candidate, step, role and number, so that a restart finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from angelos.control.context import hash_id
from angelos.control.gate.judges import is_setting, is_test
from angelos.control.proposals.repo_config import RepoConfig, Step, StepRunner
from angelos.control.proposals.verdicts import CaseVerdict, RunRole, cases_of, decide, named, sound
from angelos.control.state.models import SUPERVISOR, ControlState, ProposalRecord, TaskRecord
from angelos.control.state.tasks import task_for
from angelos.control.tasks.service import TaskOrigin
from angelos.core.api import SubmitTask
from angelos.core.facts import CancelCause, CandidateOutcome, StepResult, result_digest
from angelos.core.findings import GateFinding
from angelos.core.ids import CommandId, PrincipalId, Revision, TaskId
from angelos.core.messages import Status, encode
from angelos.core.plans import CasePlan, CaseRunner
from angelos.core.reports import CaseOutcome, RunReport, report_of
from angelos.core.repository import Change
from angelos.core.runs import EvidenceSource

_LISTED = 20


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """The last attempt at one run; `task` is None when it has not been accepted yet."""

    role: RunRole
    revision: Revision
    plan: CasePlan | None
    command: CommandId
    task: TaskRecord | None

    @property
    def ended_badly(self) -> bool:
        """Whether it ended, and not well."""
        result = self.task.result if self.task is not None else None
        return result is not None and result.status is not Status.ok

    @property
    def cancelled(self) -> bool:
        """Whether somebody had it stopped: it is not run again."""
        task = self.task
        return task is not None and not task.open and task.cancel_cause is CancelCause.request

    @property
    def report(self) -> RunReport | None:
        """What its runner saw; None while it has not ended."""
        if self.task is None or self.task.result is None:
            return None
        return self.task.result.report or report_of("", b"")


class StepProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A step, its runs so far and those to start, and what came of it."""

    step: Step
    runs: tuple[StepRun, ...]
    verdict: CaseVerdict
    """Its outcome is None while that is open."""

    @property
    def outcome(self) -> CandidateOutcome | None:
        """How it ended; None while it has not."""
        return self.verdict.outcome

    @property
    def shown(self) -> StepRun:
        """The run whose output people read: the last that did not end well, else the first."""
        own = [run for run in self.runs if run.role not in {RunRole.main, RunRole.main_again}]
        return next((run for run in own if run.ended_badly), self.runs[0])


def progress(
    state: ControlState,
    record: ProposalRecord,
    candidate: Revision,
    main: Revision,
    config: RepoConfig,
    attempts: int,
) -> list[StepProgress]:
    """Return how far each step of a candidate's tests is."""
    finished = _by_step(state)
    reader = _StepReader(state, record, candidate, main, attempts, finished)
    return [reader.progress(step) for step in config.pipeline.steps]


def combined(members: Sequence[ProposalRecord]) -> ProposalRecord:
    """Return the proposals of a candidate as one, which changes what all of them change."""
    first = members[0]
    if len(members) == 1:
        return first
    changes: dict[str, Change] = {}
    for change in (change for record in members for change in record.changes):
        before = changes.get(change.path, change).before
        changes[change.path] = msgspec.structs.replace(change, before=before, diff="")
    return msgspec.structs.replace(first, changes=tuple(changes.values()))


def refreshes(
    state: ControlState,
    record: ProposalRecord,
    candidate: Revision,
    main: Revision,
    config: RepoConfig,
    attempts: int,
) -> list[tuple[Step, StepRun]]:
    """Return the clean re-runs of notebooks whose outputs are to be written into a candidate."""
    reader = _StepReader(state, record, candidate, main, attempts, {})
    return [
        (step, reader.refresh(step, record.fresh[step.notebook]))
        for step in config.pipeline.steps
        if step.notebook in record.fresh
    ]


def clean_outputs(runs: Sequence[tuple[Step, StepRun]]) -> dict[str, dict[str, str]] | None:
    """Return the outputs of cells by notebook, of clean re-runs that went well; None meanwhile."""
    outputs: dict[str, dict[str, str]] = {}
    for step, run in runs:
        if run.cancelled:
            continue
        if run.report is None:
            return None
        cases = [case for case in run.report.cases if not case.sentinel]
        if sound(run.report) and all(case.outcome is CaseOutcome.passed for case in cases):
            named = {case.case.partition("::")[2]: case.output for case in cases if case.output}
            if named:
                outputs[step.notebook] = named
    return outputs


def passing(config: RepoConfig) -> tuple[StepResult, ...]:
    """Return the results of all steps as if they had gone well."""
    return tuple(
        StepResult(
            name=step.name,
            task=TaskId(""),
            status=Status.ok,
            seconds=0.0,
            output="",
            witnessed=step.kind.witnessed,
            stage=step.staged,
            required=step.required,
        )
        for step in config.pipeline.steps
    )


def _by_step(state: ControlState) -> dict[str, TaskRecord]:
    """Return the finished tasks in which every case passed, by what they ran."""
    return {
        task.step: task
        for task in state.tasks.values()
        if task.step and task.result is not None and task.result.report is not None
        if sound(task.result.report)
        and not cases_of(task.result.report, CaseOutcome.failed, CaseOutcome.error)
    }


class _StepReader:
    """Finds the runs of one candidate's steps."""

    def __init__(
        self,
        state: ControlState,
        record: ProposalRecord,
        candidate: Revision,
        main: Revision,
        attempts: int,
        finished: dict[str, TaskRecord],
    ) -> None:
        self.state = state
        self.record = record
        self.candidate = candidate
        self.main = main
        self.attempts = attempts
        self.finished = finished

    def progress(self, step: Step) -> StepProgress:
        """Return how far one step is."""
        if step.kind.cases is None:
            run = self._run(step, RunRole.candidate)
            return StepProgress(step=step, runs=(run,), verdict=_by_exit(run))
        changed = bool(_judges(self.record, step))
        runs: dict[RunRole, StepRun] = {}
        reports: dict[RunRole, RunReport] = {}
        while True:
            verdict = decide(reports, judges_changed=changed)
            new = [self._run(step, role) for role in verdict.needs]
            runs |= {run.role: run for run in new}
            if any(run.cancelled for run in new):
                verdict = CaseVerdict(outcome=CandidateOutcome.failed, reason="it was cancelled")
            reports |= {run.role: run.report for run in new if run.report is not None}
            if verdict.outcome is not None or len(reports) < len(runs):
                return StepProgress(step=step, runs=tuple(runs.values()), verdict=verdict)

    def refresh(self, step: Step, cells: tuple[str, ...]) -> StepRun:
        """Return the run by which a notebook's outputs are made anew."""
        plan = CasePlan(runner=CaseRunner.notebook, arguments=(step.notebook,), fresh=cells)
        return self._attempt(step, RunRole.refresh, self.candidate, plan)

    def _run(self, step: Step, role: RunRole) -> StepRun:
        on_main = role in {RunRole.main, RunRole.main_again}
        revision = self.main if on_main else self.candidate
        plan = self._plan(step, role)
        known = self.finished.get(step_key(self.record.repo, revision, step, plan))
        if role is RunRole.main and known is not None:
            return StepRun(
                role=role, revision=revision, plan=plan, command=known.command, task=known
            )
        return self._attempt(step, role, revision, plan)

    def _attempt(
        self, step: Step, role: RunRole, revision: Revision, plan: CasePlan | None
    ) -> StepRun:
        """Return the last attempt at a run, or the one to start."""
        command, task = CommandId(""), None
        for attempt in range(self.attempts):
            # The first digits are the proposal's, so that ids go on sorting by time.
            parts = (self.record.id, self.candidate, step.name, role, str(attempt))
            tail = hash_id(*parts)[12:]
            command = CommandId(f"cmd-{self.record.id.removeprefix('prop-')[:12]}{tail}")
            task = self.state.tasks.get(task_for(command))
            if task is not None and (task.by, task.proposal) != (SUPERVISOR, self.record.id):
                task = None  # somebody has guessed the id: theirs is no run of this step
                continue
            if task is None or not _lost(task):
                break
        return StepRun(role=role, revision=revision, plan=plan, command=command, task=task)

    def _plan(self, step: Step, role: RunRole) -> CasePlan | None:
        runner = step.kind.cases
        if runner is None:
            return None
        arguments = (step.notebook,) if step.notebook else _arguments(step)
        changed = _judges(self.record, step)
        if role in {RunRole.main, RunRole.main_again} or not changed or role is RunRole.candidate:
            return CasePlan(runner=runner, arguments=arguments)
        present = [change for change in self.record.changes if change.path in changed]
        return CasePlan(
            runner=runner,
            arguments=arguments,
            judges=self.main,
            taken=tuple(change.path for change in present if change.before is not None),
            removed=tuple(change.path for change in present if change.before is None),
        )


def step_key(repo: str, revision: Revision, step: Step, plan: CasePlan | None) -> str:
    """Return what is equal for runs of the same cases on the same revision."""
    return hash_id(repo, revision, step.name, encode(plan).hex())


def _arguments(step: Step) -> tuple[str, ...]:
    """Return what stands behind the runner's name."""
    runner = step.kind.value
    return step.run[step.run.index(runner) + 1 :]


def _judges(record: ProposalRecord, step: Step) -> frozenset[str]:
    """Return the paths that judge, if the proposal changes one that `main` has; new ones too."""
    paths = {
        change.path: change.before is not None
        for change in record.changes
        if is_test(change.path) or is_setting(change.path) or change.path == step.notebook
    }
    return frozenset(paths) if any(paths.values()) else frozenset()


def _by_exit(run: StepRun) -> CaseVerdict:
    """Return what a step's exit says: all that is known of an analyser, or of a plain command."""
    if run.task is None or run.task.result is None:
        return CaseVerdict(needs=(run.role,))
    status = run.task.result.status
    passed = status is Status.ok
    return CaseVerdict(
        outcome=CandidateOutcome.passed if passed else CandidateOutcome.failed,
        reason="" if passed else f"it ended as {status}",
    )


def _lost(task: TaskRecord) -> bool:
    """Return whether a task ended for a reason of its node, so that another node may try it."""
    result = task.result
    return (
        result is not None
        and result.status in {Status.killed, Status.denied}
        and result.evidence.get("source") in {EvidenceSource.node, EvidenceSource.silence}
        and (task.cancelled_at is None or task.cancel_cause is CancelCause.node_quarantined)
    )


def request(repo: str, config: RepoConfig, step: Step, run: StepRun) -> SubmitTask:
    """Return a run as an ordinary task in the checkout of its revision."""
    suffix = "" if run.role is RunRole.candidate else f" ({run.role})"
    return SubmitTask(
        argv=_command(step) if run.plan is None else (),
        repo=repo,
        revision=run.revision,
        limits=config.pipeline.limits(step),
        guard=False,
        command=run.command,
        label=f"{repo}: {step.name}{suffix}",
    )


def origin(record: ProposalRecord, by: PrincipalId, step: Step, run: StepRun) -> TaskOrigin:
    """Return where a run comes from, and which cases it asks for."""
    return TaskOrigin(
        by=by,
        on_behalf_of=record.author if record.batch == 1 else None,  # nobody cancels others' tests
        proposal=record.id,
        step=step_key(record.repo, run.revision, step, run.plan) if run.plan is not None else "",
        cases=run.plan,
        trace=record.trace,
    )


def _command(step: Step) -> tuple[str, ...]:
    """Return a step's command line; an analyser's imports nothing from the checkout."""
    if step.kind is not StepRunner.analyser:
        return step.run
    words = step.run if step.run[0] not in {"python", "python3"} else step.run[2:]
    return ("python", "-I", "-m", *words)


def results(all_steps: Sequence[StepProgress], keep: int) -> tuple[StepResult, ...]:
    """Return how each step ended, with the last `keep` characters of its output."""
    return tuple(_result(step, keep) for step in all_steps)


def _result(progress: StepProgress, keep: int) -> StepResult:
    run = progress.shown
    task, result = run.task, run.task.result if run.task else None
    if progress.outcome is None:
        output, status, seconds = "Stopped: another step failed first.", Status.killed, 0.0
    else:
        assert result is not None  # noqa: S101 - there is no outcome without a result
        output = (result.stdout + result.stderr)[-keep:]
        if not output and result.status is not Status.ok:
            output = str(result.evidence.get("reason", ""))[-keep:]
        passed = progress.outcome is CandidateOutcome.passed
        bad = result.status if result.status is not Status.ok else Status.error
        status, seconds = Status.ok if passed else bad, result.duration_s
    report = result.report if result is not None else None
    return StepResult(
        name=progress.step.name,
        task=task.id if task else task_for(run.command),
        status=status,
        seconds=seconds,
        output=output,
        witnessed=progress.step.kind.witnessed,
        stage=progress.step.staged,
        required=progress.step.required,
        **_witness(task),
        passed=len(cases_of(report, CaseOutcome.passed)) if report else 0,
        skipped=len(cases_of(report, CaseOutcome.skipped)) if report else 0,
        failed=_first(cases_of(report, CaseOutcome.failed, CaseOutcome.error)) if report else (),
        flaky=_first(progress.verdict.flaky),
    )


def _witness(task: TaskRecord | None) -> dict[str, Any]:
    """Return who ran a step, how isolated, and the digest of what was reported."""
    if task is None or task.result is None:
        return {}
    report = task.result.report
    return {
        "node": task.node,
        "tier": task.result.tier,
        "runner": report.runner if report is not None else "",
        "digest": result_digest(task.result),
    }


def _first(cases: Sequence[str]) -> tuple[str, ...]:
    return tuple(cases[:_LISTED])


class StepsVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all steps; `output` is that of the step that decided, if one did."""

    outcome: CandidateOutcome
    summary: str
    """In one sentence, without output."""
    output: str = ""
    findings: tuple[GateFinding, ...] = ()

    @property
    def reason(self) -> str:
        """The summary and the output, for people to read."""
        return f"{self.summary}: {self.output}" if self.output else self.summary


def _summary(all_steps: Sequence[StepProgress]) -> str:
    """Return what the steps say together in a sentence or two; none that is required failed."""
    if not all_steps:
        return "main has no tests to run."
    good = [s.step.name for s in all_steps if s.outcome is CandidateOutcome.passed]
    bad = [s.step.name for s in all_steps if s.outcome is CandidateOutcome.failed]
    flaky = [case for step in all_steps for case in step.verdict.flaky]
    words = [f"Tests passed: {', '.join(good)}." if good else "No test passed."]
    if bad:
        words.append(f"Failed, and only shown: {', '.join(bad)}.")
    if flaky:
        words.append(f"Flaky: {named(flaky)}.")
    return " ".join(words)


def verdict(all_steps: Sequence[StepProgress], keep: int) -> StepsVerdict | None:
    """Return what came of the steps, None while that is open; the first failure decides."""
    failed = [
        step for step in all_steps if step.outcome is CandidateOutcome.failed and step.step.required
    ]
    if failed:
        result = _result(failed[0], keep)
        summary = f"Step {result.name}: {failed[0].verdict.reason}"
        return StepsVerdict(outcome=CandidateOutcome.failed, summary=summary, output=result.output)
    if any(step.outcome is None for step in all_steps):
        return None
    summary = _summary(all_steps)
    findings = tuple(
        msgspec.structs.replace(finding, path=finding.path or f"step {step.step.name}")
        for step in all_steps
        for finding in step.verdict.findings
        if step.step.required
    )
    return StepsVerdict(outcome=CandidateOutcome.passed, summary=summary, findings=findings)
