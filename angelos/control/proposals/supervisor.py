"""How many people a tested candidate needs: the smallest number for which the policy allows it.

Pure but for Cedar. Nothing here knows what is protected from whom; that is the policy's.
"""

from __future__ import annotations

import msgspec

from angelos.control.policy.engine import Policy, Request
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import POLICY_PATHS, risk, touched
from angelos.control.state.models import SUPERVISOR, ProposalRecord

MOST_PEOPLE = 5


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`needs` people in all (None: no number is enough), by these rules, for this reason."""

    needs: int | None
    rules: tuple[str, ...]
    reason: str
    risk: int


def judge(policy: Policy, record: ProposalRecord, config: RepoConfig) -> Judgement:
    """Ask the policy what it takes to promote a proposal whose tests have run.

    `config` is that of the `main` it was tested by.
    """
    policy_paths = touched(record.paths, POLICY_PATHS)
    guarded = touched(record.paths, config.review.protected)
    judges = touched(record.paths, config.judges)
    points = risk(record.changes)
    tests = len(record.steps)
    failed = sum(step.status != "ok" for step in record.steps)
    why = f"it has no tests (risk {points} of 1000)"
    if tests:
        passed = f"{tests} test{'' if tests == 1 else 's'} passed"
        why = f"its risk is {points} of 1000 ({passed})"
    if policy_paths:
        why = f"it changes the policy itself ({', '.join(policy_paths)})"
    elif guarded:
        why = f"it touches protected paths ({', '.join(guarded)})"
    elif judges:
        why = f"it changes what it is tested with ({', '.join(judges)})"
    refusal = ""
    for needs in range(MOST_PEOPLE + 1):
        answer = policy.ask(
            Request(
                principal=SUPERVISOR,
                role="",
                action="promote",
                resource=("Repo", record.repo),
                context={
                    "tests": tests,
                    "failed": failed,
                    "touches_policy": bool(policy_paths),
                    "touches_protected": bool(guarded or judges),
                    "risk": points,
                    "approvals": needs,
                },
            )
        )
        if answer.allowed:
            return Judgement(
                needs=needs, rules=answer.rules, reason=_reason(needs, why), risk=points
            )
        refusal = answer.why
    return Judgement(needs=None, rules=(), reason=f"{why}; {refusal}", risk=points)


def _reason(needs: int, why: str) -> str:
    if needs == 0:
        return f"Approved by policy: {why}."
    people = "One person has" if needs == 1 else f"{needs} people have"
    return f"{people} to approve it, because {why}."
