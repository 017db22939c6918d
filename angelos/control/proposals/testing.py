"""Tests a candidate: runs the steps of the pipeline as ordinary tasks and records how they ended.

All steps run at the same time; the first that fails ends the others. The steps, and what came of
them, are computed from the state alone (`steps`), so a restart goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.control.context import ControlContext
from angelos.control.proposals import records, repo_config, steps
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.steps import StepRun, StepsVerdict
from angelos.control.state.effects import RunSteps
from angelos.control.state.models import SUPERVISOR, ProposalRecord
from angelos.control.tasks.service import TaskOrigin, TaskService
from angelos.core.errors import InvalidInput
from angelos.core.facts import CancelCause, CandidateOutcome, ProposalTested, TaskCancelled
from angelos.core.ids import Revision


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
            runs = steps.runs(
                state,
                record.id,
                effect.candidate,
                config.pipeline.steps,
                self._context.config.step_attempts,
            )
            verdict = steps.verdict(runs, self._context.config.step_output)
            if verdict is not None:
                await self._cancel_others(runs, verdict)
                await self._record(record, verdict, runs)
                return
            for run in runs:
                if run.task is None:
                    await self._start(record, effect.candidate, config, run)
            await self._projection.until(lambda now, before=state: now is not before)

    async def _start(
        self, record: ProposalRecord, candidate: Revision, config: RepoConfig, run: StepRun
    ) -> None:
        """Have a step accepted on the least busy node; without a node it has to wait."""
        node = self._tasks.least_busy()
        if node is None:
            return
        body = steps.request(record.repo, candidate, config.pipeline, run.step, run.command)
        decision = self._context.decide_system(
            "run",
            ("Node", node.id),
            pipeline=True,
            quarantined=False,
            **self._tasks.policy_context(body, node),
        )
        origin = TaskOrigin(
            by=SUPERVISOR, on_behalf_of=record.author, proposal=record.id, trace=record.trace
        )
        await self._tasks.accept(origin, run.command, body, node.id, decision)

    async def _cancel_others(self, runs: Sequence[StepRun], verdict: StepsVerdict) -> None:
        """Cancel the steps that still run; the verdict does not need them."""
        cancelled = TaskCancelled(reason=verdict.summary, cause=CancelCause.other_step_failed)
        facts = [
            self._projection.fact(cancelled, run.task.id)
            for run in runs
            if run.task is not None and run.task.open
        ]
        if facts:
            await self._projection.append(*facts)

    async def _record(
        self, record: ProposalRecord, verdict: StepsVerdict, runs: Sequence[StepRun]
    ) -> None:
        tested = ProposalTested(
            reason=verdict.reason, steps=steps.results(runs, self._context.config.step_output)
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
