"""Tests a candidate: runs the steps of the pipeline as ordinary tasks and records how they ended.

All steps run at the same time; the first that fails ends the others. The steps, and what came of
them, are computed from the state alone (`steps`), so a restart goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.control.context import ControlContext
from angelos.control.proposals import records, repo_config, steps
from angelos.control.proposals.repo_config import RepoConfig, Step
from angelos.control.proposals.steps import StepProgress, StepRun, StepsVerdict
from angelos.control.state.effects import RunSteps
from angelos.control.state.models import SUPERVISOR, ProposalRecord
from angelos.control.tasks.service import TaskService
from angelos.core.errors import InvalidInput
from angelos.core.facts import CancelCause, CandidateOutcome, ProposalTested, TaskCancelled


class CandidateTester:
    """Handles `RunSteps`."""

    def __init__(self, context: ControlContext, tasks: TaskService) -> None:
        self._context = context
        self._projection = context.projection
        self._tasks = tasks

    async def run_steps(self, effect: RunSteps) -> None:
        """Run all steps on a candidate until the verdict is there, and record it."""
        record = records.under_test(self._projection, effect.proposal, effect.candidate)
        if record is None or record.candidate_main is None or record.outcome:
            return
        try:
            config = await repo_config.load(
                self._context.repository, record.repo, record.candidate_main
            )
        except InvalidInput as error:
            await self._record(record, _untestable(record, error), ())
            return
        while records.under_test(self._projection, effect.proposal, effect.candidate) is not None:
            state = self._projection.state
            all_steps = steps.progress(
                state,
                record,
                effect.candidate,
                record.candidate_main,
                config,
                self._context.config.step_attempts,
            )
            verdict = steps.verdict(all_steps, self._context.config.step_output)
            if verdict is not None:
                await self._cancel_others(all_steps, verdict)
                await self._record(record, verdict, all_steps)
                return
            for progress in all_steps:
                for run in progress.runs:
                    if run.task is None:
                        await self._start(record, config, progress.step, run)
            await self._projection.until(lambda now, before=state: now is not before)

    async def _start(
        self, record: ProposalRecord, config: RepoConfig, step: Step, run: StepRun
    ) -> None:
        """Have a run accepted on the least busy node; without a node it has to wait."""
        node = self._tasks.least_busy()
        if node is None:
            return
        body = steps.request(record.repo, config, step, run)
        decision = self._context.decide_system(
            "run",
            ("Node", node.id),
            pipeline=True,
            quarantined=False,
            **self._tasks.policy_context(body, node),
        )
        origin = steps.origin(record, SUPERVISOR, step, run)
        await self._tasks.accept(origin, run.command, body, node.id, decision)

    async def _cancel_others(
        self, all_steps: Sequence[StepProgress], verdict: StepsVerdict
    ) -> None:
        """Cancel the steps that still run; the verdict does not need them."""
        cancelled = TaskCancelled(reason=verdict.summary, cause=CancelCause.other_step_failed)
        facts = [
            self._projection.fact(cancelled, run.task.id)
            for progress in all_steps
            for run in progress.runs
            if run.task is not None and run.task.open
        ]
        if facts:
            await self._projection.append(*facts)

    async def _record(
        self, record: ProposalRecord, verdict: StepsVerdict, all_steps: Sequence[StepProgress]
    ) -> None:
        tested = ProposalTested(
            reason=verdict.reason,
            steps=steps.results(all_steps, self._context.config.step_output),
            findings=verdict.findings,
        )
        await records.append(
            self._projection,
            tested,
            record,
            revision=record.candidate,
            outcome=verdict.outcome,
        )


def _untestable(record: ProposalRecord, error: InvalidInput) -> StepsVerdict:
    """Return the verdict when `main`'s own configuration cannot be read.

    Only people can mend that configuration, so a proposal that changes it passes on to them.
    """
    mends = repo_config.FILE in record.paths
    return StepsVerdict(
        outcome=CandidateOutcome.passed if mends else CandidateOutcome.failed,
        summary=f"No tests ran, because main's {error.detail}",
    )
