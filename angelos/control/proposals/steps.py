"""The steps of a candidate's tests as tasks: which runs exist, and what came of them.

Pure. A step is retried when its node gave up, never when its program failed; each attempt has
an id made of proposal, candidate, step and number, so that a restart finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from angelos.control.context import hash_id
from angelos.control.proposals.notebook_step import program
from angelos.control.proposals.repo_config import PipelineConfig, Step
from angelos.control.state.models import ControlState, TaskRecord
from angelos.control.state.tasks import task_for
from angelos.core.api import SubmitTask
from angelos.core.facts import CancelCause, CandidateOutcome, StepResult
from angelos.core.ids import CommandId, ProposalId, Revision
from angelos.core.messages import Status
from angelos.core.runs import EvidenceSource


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """The last attempt at a step; `task` is None when it has not been accepted yet."""

    step: Step
    command: CommandId
    task: TaskRecord | None

    @property
    def outcome(self) -> CandidateOutcome | None:
        """How it ended; None while it has not."""
        if self.task is None or self.task.result is None:
            return None
        passed = self.task.result.status is Status.ok
        return CandidateOutcome.passed if passed else CandidateOutcome.failed


def runs(
    state: ControlState,
    proposal: ProposalId,
    candidate: Revision,
    steps: Sequence[Step],
    attempts: int,
) -> list[StepRun]:
    """Return the last attempt at each step, or the one to make next."""
    return [_run(state, proposal, candidate, step, attempts) for step in steps]


def _run(
    state: ControlState, proposal: ProposalId, candidate: Revision, step: Step, attempts: int
) -> StepRun:
    run = StepRun(step=step, command=CommandId(""), task=None)
    for attempt in range(attempts):
        # The first digits are the proposal's, so that ids go on sorting by time.
        tail = hash_id(proposal, candidate, step.name, str(attempt))[12:]
        command = CommandId(f"cmd-{proposal.removeprefix('prop-')[:12]}{tail}")
        run = StepRun(step=step, command=command, task=state.tasks.get(task_for(command)))
        if run.task is None or not _lost(run.task):
            break
    return run


def _lost(task: TaskRecord) -> bool:
    """Return whether a task ended for a reason of its node, so that another node may try it."""
    result = task.result
    return (
        result is not None
        and result.status in {Status.killed, Status.denied}
        and result.evidence.get("source") == EvidenceSource.node
        and (task.cancelled_at is None or task.cancel_cause is CancelCause.node_quarantined)
    )


def request(
    repo: str, candidate: Revision, pipeline: PipelineConfig, step: Step, command: CommandId
) -> SubmitTask:
    """Return a step as an ordinary task in the candidate's checkout."""
    limits = pipeline.limits(step)
    return SubmitTask(
        code=program(step.notebook, limits.wall_s) if step.notebook else "",
        argv=step.run,
        repo=repo,
        revision=candidate,
        limits=limits,
        guard=False,
        command=command,
        label=f"{repo}: {step.name}",
    )


def results(all_runs: Sequence[StepRun], keep: int) -> tuple[StepResult, ...]:
    """Return how each step ended, with the last `keep` characters of its output."""
    return tuple(_result(run, keep) for run in all_runs)


def _result(run: StepRun, keep: int) -> StepResult:
    task, result = run.task, run.task.result if run.task else None
    if result is None:
        output, status, seconds = "Stopped: another step failed first.", Status.killed, 0.0
    else:
        output = (result.stdout + result.stderr)[-keep:]
        if not output and result.status is not Status.ok:
            output = str(result.evidence.get("reason", ""))[-keep:]
        status, seconds = result.status, result.duration_s
    return StepResult(
        name=run.step.name,
        task=task.id if task else task_for(run.command),
        status=status,
        seconds=seconds,
        output=output,
        witnessed=run.step.kind.witnessed,
    )


class StepsVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all steps; `output` is that of the step that decided, if one did."""

    outcome: CandidateOutcome
    summary: str
    """In one sentence, without output."""
    output: str = ""

    @property
    def reason(self) -> str:
        """The summary and the output, for people to read."""
        return f"{self.summary}: {self.output}" if self.output else self.summary


def verdict(all_runs: Sequence[StepRun], keep: int) -> StepsVerdict | None:
    """Return what came of the steps, None while that is open; the first failure decides."""
    failed = [run for run in all_runs if run.outcome is CandidateOutcome.failed]
    if failed:
        result = _result(failed[0], keep)
        summary = f"Step {result.name} ended as {result.status}"
        return StepsVerdict(outcome=CandidateOutcome.failed, summary=summary, output=result.output)
    if all(run.outcome is CandidateOutcome.passed for run in all_runs):
        names = ", ".join(run.step.name for run in all_runs)
        summary = f"Tests passed: {names}." if names else "main has no tests to run."
        return StepsVerdict(outcome=CandidateOutcome.passed, summary=summary)
    return None
