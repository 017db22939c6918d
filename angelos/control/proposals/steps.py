"""The steps of a candidate's tests as tasks: which runs are there, and what came of them.

Pure. A step is tried again when its node gave up, never when its program failed; each try has
an id made of proposal, candidate, step and number, so that a restart finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from angelos.control.context import hash_id
from angelos.control.proposals.notebook_step import program
from angelos.control.proposals.repo_config import Pipeline, Step
from angelos.control.state.models import SUPERVISOR, State, TaskRecord
from angelos.control.state.tasks import quarantine_reason, task_for
from angelos.core.api import SubmitTask
from angelos.core.facts import StepResult
from angelos.core.ids import CommandId, ProposalId, Revision
from angelos.core.messages import Status


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The last try of a step; `task` is None when it has not been accepted yet."""

    step: Step
    command: CommandId
    task: TaskRecord | None

    @property
    def ended(self) -> Literal["", "passed", "failed"]:
        """How it ended; empty while it has not."""
        if self.task is None or self.task.result is None:
            return ""
        return "passed" if self.task.result.status is Status.ok else "failed"


def runs(
    state: State,
    proposal: ProposalId,
    candidate: Revision,
    steps: Sequence[Step],
    attempts: int,
) -> list[Run]:
    """Return the last try of each step, or the one to make next."""
    return [_run(state, proposal, candidate, step, attempts) for step in steps]


def _run(state: State, proposal: ProposalId, candidate: Revision, step: Step, attempts: int) -> Run:
    run = Run(step=step, command=CommandId(""), task=None)
    for attempt in range(attempts):
        # The first digits are the proposal's, so that ids go on sorting by time.
        tail = hash_id(proposal, candidate, step.name, str(attempt))[12:]
        command = CommandId(f"cmd-{proposal.removeprefix('prop-')[:12]}{tail}")
        run = Run(step=step, command=command, task=state.tasks.get(task_for(command)))
        if run.task is None or not _lost(run.task):
            break
    return run


def _lost(task: TaskRecord) -> bool:
    """Tell whether a task ended for its node's reasons, not its own or somebody's wish."""
    result = task.result
    return (
        result is not None
        and result.status in {Status.killed, Status.denied}
        and result.evidence.get("source") == "node"
        and (task.cancelled_at is None or _taken_from_its_node(task))
    )


def _taken_from_its_node(task: TaskRecord) -> bool:
    """Tell whether control cancelled a task for its node's sake; anybody may give any reason."""
    return task.cancelled_by == SUPERVISOR and task.cancel_reason == quarantine_reason(task.node)


def request(
    repo: str, candidate: Revision, pipeline: Pipeline, step: Step, command: CommandId
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


def results(all_runs: Sequence[Run], keep: int) -> tuple[StepResult, ...]:
    """Return how each step ended, with the last `keep` characters of its output."""
    return tuple(_result(run, keep) for run in all_runs)


def _result(run: Run, keep: int) -> StepResult:
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
    )


def verdict(all_runs: Sequence[Run], keep: int) -> tuple[Literal["", "passed", "failed"], str]:
    """Return how the tests stand, and why in words; the first failure decides."""
    failed = [run for run in all_runs if run.ended == "failed"]
    if failed:
        result = _result(failed[0], keep)
        return "failed", f"Step {result.name} ended as {result.status}: {result.output}"
    if all(run.ended == "passed" for run in all_runs):
        names = ", ".join(run.step.name for run in all_runs)
        return "passed", f"Tests passed: {names}." if names else "main has no tests to run."
    return "", ""
