"""How each test of a repository ended lately: folded from what runners reported.

>>> recorded(ControlState(), "study")
{}
"""

from __future__ import annotations

from collections.abc import Mapping

from angelos.control.state.models import CaseRun, ControlState, replace
from angelos.core.facts import Fact, TaskResult
from angelos.core.ids import ProposalId, TaskId

KEEP_RUNS = 10
MAX_CASES = 5_000
"""Of a repository; of more, those that ran longest ago are forgotten."""


def recorded(state: ControlState, repo: str) -> Mapping[str, tuple[CaseRun, ...]]:
    """Return the last runs of each test of a repository, the newest first."""
    return state.case_runs.get(repo, {})


def counted(state: ControlState, fact: Fact) -> ControlState:
    """Record how the cases of a step ended; called before the end of its task is folded."""
    task = state.tasks.get(TaskId(fact.subject))
    if task is None or not task.open or not task.proposal or fact.actor != task.node:
        return state
    report = fact.read(TaskResult).report
    proposal = state.proposals.get(ProposalId(task.proposal))
    if report is None or not report.complete or proposal is None:
        return state
    runs = dict(state.case_runs.get(proposal.repo, {}))
    for case in report.cases:
        if not case.sentinel and case.outcome is not None:
            run = CaseRun(
                at=fact.at, outcome=case.outcome, seconds=case.seconds, proposal=proposal.id
            )
            before = runs.pop(case.case, ())
            runs[case.case] = (run, *before)[:KEEP_RUNS]
    while len(runs) > MAX_CASES:
        del runs[next(iter(runs))]
    return replace(state, case_runs={**state.case_runs, proposal.repo: runs})
