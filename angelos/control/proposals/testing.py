"""Tests a candidate: runs the steps of the pipeline as ordinary tasks and records how they ended.

All steps run at the same time; the first that fails ends the others. The steps, and what came of
them, are computed from the state alone (`steps`), so a restart goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from angelos.control.context import ControlContext
from angelos.control.proposals import records, repo_config, steps
from angelos.control.proposals.pipeline import Pipeline, split_facts
from angelos.control.proposals.repo_config import RepoConfig, Step
from angelos.control.proposals.steps import StepProgress, StepRun, StepsVerdict
from angelos.control.state.effects import RunSteps
from angelos.control.state.models import SUPERVISOR, ProposalRecord
from angelos.control.state.proposals import together
from angelos.control.tasks.service import TaskService
from angelos.core.errors import InvalidInput
from angelos.core.facts import CancelCause, CandidateOutcome, ProposalTested, TaskCancelled
from angelos.core.ids import Revision

_LEAST_OUTPUT = 200
"""Characters of a step's output that each proposal of a large batch keeps."""


class _CandidateRun(NamedTuple):
    """What is tested: the proposals of a candidate as one, by the configuration of `main`."""

    record: ProposalRecord
    config: RepoConfig
    candidate: Revision

    @property
    def arguments(self) -> tuple[ProposalRecord, Revision, Revision, RepoConfig]:
        """What `steps` asks for."""
        assert self.record.candidate_main is not None  # noqa: S101 - it is under test
        return self.record, self.candidate, self.record.candidate_main, self.config


class CandidateTester:
    """Handles `RunSteps`."""

    def __init__(self, context: ControlContext, tasks: TaskService, pipeline: Pipeline) -> None:
        self._context = context
        self._projection = context.projection
        self._tasks = tasks
        self._pipeline = pipeline

    async def run_steps(self, effect: RunSteps) -> None:
        """Run all steps on a candidate until the verdict is there, and record it."""
        record = records.under_test(self._projection, effect.proposal, effect.candidate)
        if record is None or record.candidate_main is None or record.outcome:
            return
        members = self._members(record)
        try:
            config = await repo_config.load(
                self._context.repository, record.repo, record.candidate_main
            )
        except InvalidInput as error:
            await self._record(members, _untestable(record, error), ())
            return
        run = _CandidateRun(steps.combined(members), config, effect.candidate)
        if record.fresh:
            await self._refresh(run, members)
            return  # what was written into the candidate makes its tests necessary
        while records.under_test(self._projection, effect.proposal, effect.candidate) is not None:
            state = self._projection.state
            all_steps = steps.progress(state, *run.arguments, self._context.config.step_attempts)
            verdict = steps.verdict(all_steps, self._context.config.step_output)
            if verdict is not None:
                await self._cancel_others(all_steps, verdict)
                await self._record(members, verdict, all_steps)
                return
            for progress in all_steps:
                for step_run in progress.runs:
                    if step_run.task is None:
                        await self._start(run.record, config, progress.step, step_run)
            await self._projection.until(lambda now, before=state: now is not before)

    def _members(self, record: ProposalRecord) -> list[ProposalRecord]:
        records_now = self._projection.state.proposals.values()
        return [other for other in records_now if together(other, record)]

    async def _refresh(self, run: _CandidateRun, members: Sequence[ProposalRecord]) -> None:
        """Re-run notebooks in clean kernels, and have their outputs written into the candidate."""
        first = members[0]
        while records.under_test(self._projection, first.id, run.candidate) is not None:
            state = self._projection.state
            runs = steps.refreshes(state, *run.arguments, self._context.config.step_attempts)
            outputs = steps.clean_outputs(runs)
            if outputs is not None:
                await self._pipeline.refresh(members, outputs)
                return
            for step, step_run in runs:
                if step_run.task is None:
                    await self._start(run.record, run.config, step, step_run)
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
        self,
        members: Sequence[ProposalRecord],
        verdict: StepsVerdict,
        all_steps: Sequence[StepProgress],
    ) -> None:
        """Append what came of a candidate: a fact for each of its proposals, all or none."""
        failed = verdict.outcome is CandidateOutcome.failed or verdict.findings
        if len(members) > 1 and failed:
            reason = f"{len(members)} proposals were tested together. {verdict.summary}"
            await self._projection.append(*split_facts(self._projection, members, reason))
            return
        keep = max(_LEAST_OUTPUT, self._context.config.step_output // len(members))
        tested = ProposalTested(
            reason=verdict.reason,
            steps=steps.results(all_steps, keep),
            findings=verdict.findings,
        )
        facts = [
            records.fact(
                self._projection, tested, record, revision=record.candidate, outcome=verdict.outcome
            )
            for record in members
        ]
        await self._projection.append(*facts)


def _untestable(record: ProposalRecord, error: InvalidInput) -> StepsVerdict:
    """Return the verdict when `main`'s own configuration cannot be read.

    Only people can mend that configuration, so a proposal that changes it passes on to them.
    """
    mends = repo_config.FILE in record.paths
    return StepsVerdict(
        outcome=CandidateOutcome.passed if mends else CandidateOutcome.failed,
        summary=f"No tests ran, because main's {error.detail}",
    )
