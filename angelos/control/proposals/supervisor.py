"""How many people a tested candidate needs: the smallest number for which the policy allows it.

Pure, except that it evaluates the policy, which alone knows who may change what.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import POLICY_PATHS, protected_factor, total, touched
from angelos.control.state.models import SUPERVISOR, ProposalRecord
from angelos.core.findings import GateFinding, RiskFactor
from angelos.core.policy.engine import Policy, Request

MOST_PEOPLE = 5
_LISTED = 3
_WORTH_A_WORD = 100
"""A risk from which on its largest factor is named."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """How many people a candidate needs in all (None: no number is enough), and cause."""

    needs: int | None
    rules: tuple[str, ...]
    reason: str
    risk: int
    factors: tuple[RiskFactor, ...]
    solo: bool
    """Whether one person alone decides (`review.solo`)."""


def judge(
    policy: Policy,
    record: ProposalRecord,
    config: RepoConfig,
    *,
    solo: bool = False,
    probation: bool = False,
    standing: Sequence[RiskFactor] = (),
) -> Judgement:
    """Return how many people it takes to promote a proposal whose tests have run.

    Args:
        policy: The policy in force.
        record: The proposal.
        config: The configuration of the `main` by which it was tested.
        solo: Whether one person alone reviews.
        probation: Whether its author was released from quarantine lately; then a person looks.
        standing: What is risky about its author.
    """
    protected = touched(record.paths, (*config.review.protected, *config.judges))
    factors = (*record.factors, *protected_factor(protected), *standing)
    points, tests = total(factors), witnessed(record)
    cause = _protected_by(record, config) or _risk_of(points, tests, factors)
    context = _context(record, config) | {"risk": points, "solo": solo}
    if probation:
        cause = "its author is on probation after a quarantine"
        context["held"] = True
    refusal = ""
    for needs in range(MOST_PEOPLE + 1):
        answer = policy.ask(
            Request(
                principal=SUPERVISOR,
                role="",
                action="promote",
                resource=("Repo", record.repo),
                context=context | {"approvals": needs},
            )
        )
        if answer.allowed:
            reason = _reason(needs, cause)
            rules = answer.rules
            return Judgement(
                needs=needs, rules=rules, reason=reason, risk=points, factors=factors, solo=solo
            )
        refusal = answer.reason
    return Judgement(
        needs=None, rules=(), reason=f"{cause}; {refusal}", risk=points, factors=factors, solo=solo
    )


def _context(record: ProposalRecord, config: RepoConfig) -> dict[str, bool | int | str]:
    """Return the context of a proposal in which the policy decides."""
    protected = (*config.review.protected, *config.judges)
    return {
        "tests": witnessed(record),
        "failed": sum(step.status != "ok" and step.required for step in record.steps),
        "touches_policy": bool(touched(record.paths, POLICY_PATHS)),
        "touches_protected": bool(record.findings or touched(record.paths, protected)),
        "held": _held(record, config),
    }


def _held(record: ProposalRecord, config: RepoConfig) -> bool:
    return config.review.hold_agents and record.by_program


def _protected_by(record: ProposalRecord, config: RepoConfig) -> str:
    """Return why a person has to review it whatever its risk; empty if there is no reason."""
    if paths := touched(record.paths, POLICY_PATHS):
        return f"it changes the policy itself ({', '.join(paths)})"
    if paths := touched(record.paths, config.review.protected):
        return f"it touches protected paths ({', '.join(paths)})"
    if paths := touched(record.paths, config.judges):
        return f"it changes what it is tested with ({', '.join(paths)})"
    if record.findings:
        return f"it has to be looked at ({_listed(record.findings)})"
    return "a program proposed it, and review.hold_agents is set" if _held(record, config) else ""


def _listed(findings: Sequence[GateFinding]) -> str:
    """Return the first findings in a phrase."""
    more = len(findings) - _LISTED
    tail = f", and {more} more" if more > 0 else ""
    return "; ".join(str(finding) for finding in findings[:_LISTED]) + tail


def witnessed(record: ProposalRecord) -> int:
    """Return how many steps ended by the word of somebody other than the judged code."""
    return sum(step.witnessed and step.required for step in record.steps)


def _risk_of(points: int, tests: int, factors: Sequence[RiskFactor]) -> str:
    if not tests:
        return f"it has no tests but its own word (risk {points} of 1000)"
    passed = f"{tests} test{'' if tests == 1 else 's'} passed"
    most = max(factors, key=lambda factor: factor.points, default=None)
    why = "" if most is None or points <= _WORTH_A_WORD else f": {most}"
    return f"its risk is {points} of 1000 ({passed}){why}"


def _reason(needs: int, cause: str) -> str:
    if needs == 0:
        return f"Approved by policy: {cause}."
    people = "One person has" if needs == 1 else f"{needs} people have"
    return f"{people} to approve it, because {cause}."
