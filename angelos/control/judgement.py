"""How many people a tested candidate needs: the smallest number for which the policy allows it.

Pure but for Cedar. Nothing here knows what is protected from whom; that is the policy's.
"""

from __future__ import annotations

import msgspec

from angelos.control.models import SUPERVISOR, ProposalRecord
from angelos.control.policy import Policy, Request
from angelos.control.risk import POLICY_PATHS, risk, touched

MOST_PEOPLE = 5


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`needs` people in all (None: no number is enough), by these rules, for this reason."""

    needs: int | None
    rules: tuple[str, ...]
    reason: str
    risk: int


def judge(policy: Policy, record: ProposalRecord, protected: tuple[str, ...]) -> Judgement:
    """Ask the policy what it takes to promote a proposal whose tests have run."""
    policy_paths = touched(record.paths, POLICY_PATHS)
    guarded = touched(record.paths, protected)
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
                    "touches_protected": bool(guarded),
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
    people = "one person has" if needs == 1 else f"{needs} people have"
    return f"{people} to approve it, because {why}.".capitalize()
