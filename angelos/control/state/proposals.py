"""How facts change the state of proposals.

    pending -> testing -> (waiting ->) approved -> promoted (-> rolled-back)
        any of the first four -> rejected -> closed;  or refused at once

A proposal waits beside dev until it is promoted, or a person accepts it before; `received` is one
that was proposed live, until it is in dev.

A proposal that waits for people blocks no other: the turn goes to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from angelos.control.state.generations import over
from angelos.control.state.hands import distinct
from angelos.control.state.models import KEEP_PROPOSALS, ControlState, ProposalRecord, replace
from angelos.core.facts import (
    CandidateOutcome,
    Fact,
    Kind,
    ProposalApproved,
    ProposalMerged,
    ProposalNarrowed,
    ProposalReceived,
    ProposalRefused,
    ProposalRejected,
    ProposalReverted,
    ProposalTested,
    ProposalTesting,
    ProposalWaiting,
)
from angelos.core.findings import GateFinding
from angelos.core.ids import PrincipalId, ProposalId
from angelos.core.repository import Change

KEEP_DIFFS = 200_000
KEEP_DIFF = 2_000
"""Characters of a file's diff that remain of a settled proposal, and that lists show."""

_PENDING = "It waits beside dev for its tests."

_UNTESTED: dict[str, Any] = {
    "state": "pending",
    "candidate": None,
    "candidate_main": None,
    "commit": None,
    "batch": 1,
    "fresh": {},
    "outcome": None,
    "steps": (),
}
"""What becomes of a proposal whose tests ended without a word on it."""
_LEAVING = frozenset({Kind.proposal_rejected, Kind.proposal_narrowed})
"""Whoever is in a batch that is tested leaves it by these."""

Step = Callable[[ProposalRecord, Fact, ControlState], dict[str, Any] | None]
"""Returns the fields that change; None when the fact does not fit the state."""


def received(state: ControlState, fact: Fact) -> ControlState:
    """Record a new proposal, received or refused."""
    proposal, author = ProposalId(fact.subject), fact.actor
    if proposal in state.proposals:
        return state
    if fact.kind == Kind.proposal_refused:
        data = fact.read(ProposalRefused)
        digest, changes, proposal_state, reason = "", (), "refused", data.reason
        generation, part_of, kernel = 0, None, False
    else:
        data = fact.read(ProposalReceived)
        digest, changes, reason = data.digest, data.changes, _PENDING
        proposal_state = "received" if data.live else "pending"
        generation, part_of, kernel = data.generation, data.part_of, data.kernel
        author = data.author if part_of else author  # the actor is who took the part
    record = ProposalRecord(
        id=proposal,
        repo=data.repo,
        base=data.base,
        author=author,
        message=data.message,
        digest=digest,
        changes=changes,
        at=fact.at,
        state=proposal_state,
        generation=generation,
        kernel=kernel,
        reason=reason,
        trace=fact.trace,
        part_of=part_of,
    )
    return replace(state, proposals=_kept({**state.proposals, proposal: record}))


def moved(state: ControlState, fact: Fact) -> ControlState:
    """Record a proposal's next state; a fact that does not fit its state changes nothing."""
    record = state.proposals.get(ProposalId(fact.subject))
    step = _STEPS.get(fact.kind)
    if record is None or step is None:
        return state
    changes = step(record, fact, state)
    if changes is None:
        return state
    changed = msgspec.structs.replace(record, **changes)
    if not changed.open:
        changed = without_diffs(changed)
    proposals = {**state.proposals, record.id: changed}
    if fact.kind == Kind.proposal_testing:
        state = _turned(state, record.repo, apart=fact.read(ProposalTesting).apart)
    elif fact.kind in _LEAVING and record.state == "testing" and record.batch > 1:
        # What is tested holds its edits; the others go on without it.
        proposals |= {
            other.id: msgspec.structs.replace(other, **_UNTESTED, reason=_PENDING)
            for other in state.proposals.values()
            if other.id != record.id and together(other, record)
        }
    return replace(state, proposals=proposals if changed.open else _kept(proposals))


def together(one: ProposalRecord, other: ProposalRecord) -> bool:
    """Return whether two proposals are in one candidate and equally far with it."""
    return (one.repo, one.state, one.candidate) == (other.repo, other.state, other.candidate)


def _turned(state: ControlState, repo: str, *, apart: bool) -> ControlState:
    """Record whether the last tests of a repository were of proposals apart from the rest."""
    if apart == (repo in state.apart):
        return state
    return replace(state, apart=state.apart | {repo} if apart else state.apart - {repo})


def _merged(record: ProposalRecord, fact: Fact, state: ControlState) -> dict[str, Any] | None:
    if not record.undecided:
        return None
    changes: dict[str, Any] = {"merged": True, **_approved_by_accepting(record, fact, state)}
    if record.state == "received":
        changes |= {"state": "pending", "reason": "It is in dev and waits for its tests."}
    return changes


def _approved_by_accepting(
    record: ProposalRecord, fact: Fact, state: ControlState
) -> dict[str, Any]:
    """Return what changes where whoever accepted a proposal approved its digest by that."""
    data = fact.read(ProposalMerged)
    person = fact.actor.startswith("person/") and not over(state, fact.actor, data.generation)
    if data.digest != record.digest or not person or fact.actor in record.approvals:
        return {}
    approvals = (*record.approvals, fact.actor)
    return {
        "approvals": distinct(state.makers, approvals, record.author, solo=data.solo),
        "approved_under": {**record.approved_under, fact.actor: data.generation},
        "accepted_by": (*record.accepted_by, fact.actor),
    }


def _narrowed(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    if not record.undecided or record.state == "received":
        return None
    data = fact.read(ProposalNarrowed)
    return {
        "digest": data.digest,
        "changes": data.changes,
        **_UNTESTED,
        "group": "",
        "reason": f"{fact.actor} rejected a part of it. {data.reason}".strip(),
        "findings": (),
        "needs": 0,
        "approvals": (),
        "approved_under": {},
        "accepted_by": (),
    }


def _testing(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    if not record.undecided or record.state == "received" or fact.revision is None:
        return None
    # Judged is what main would get: a base on dev may bring other edits along.
    data = fact.read(ProposalTesting)
    return {
        "changes": data.changes or record.changes,
        "state": "testing",
        "candidate": fact.revision,
        "candidate_main": data.main,
        "tree": data.tree,
        "commit": data.commit or fact.revision,
        "batch": data.batch,
        "group": "",
        "fresh": data.fresh,
        "factors": data.factors,
        "outcome": None,
        "steps": (),
        "tested_at": fact.at,
        "findings": data.findings,
        "needs": 0,
        "reason": "Its tests run on the candidate for main.",
    }


def _tested(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    if record.state != "testing" or fact.revision != record.candidate:
        return None
    if fact.outcome not in set(CandidateOutcome):
        return None
    data = fact.read(ProposalTested)
    if fact.outcome == CandidateOutcome.divided:
        return {**_UNTESTED, "group": data.group, "reason": data.reason}
    return {
        "outcome": CandidateOutcome(fact.outcome),
        "steps": data.steps,
        "findings": (*record.findings, *data.findings),
        "reason": data.reason,
        "approvals": _after_tests(record, data.findings),
    }


def _after_tests(
    record: ProposalRecord, findings: tuple[GateFinding, ...]
) -> tuple[PrincipalId, ...]:
    """Return the approvals that count after the tests.

    Whoever accepted the text has not seen what its tests found out.
    """
    if not findings:
        return record.approvals
    return tuple(person for person in record.approvals if person not in record.accepted_by)


def _waiting(record: ProposalRecord, fact: Fact, state: ControlState) -> dict[str, Any] | None:
    if record.state not in ("testing", "approved") or fact.revision != record.candidate:
        return None
    data = fact.read(ProposalWaiting)
    approvals = record.approvals if data.approvals is None else data.approvals
    return {
        "state": "waiting",
        "needs": data.needs,
        "rule": data.rule,
        "solo": data.solo,
        "approvals": distinct(state.makers, approvals, record.author, solo=data.solo),
        "reason": data.reason,
    }


def _approved(record: ProposalRecord, fact: Fact, state: ControlState) -> dict[str, Any] | None:
    data = fact.read(ProposalApproved)
    if data.digest != record.digest:
        return None
    if fact.actor.startswith("system/"):
        if record.state != "testing" or record.outcome is not CandidateOutcome.passed:
            return None
        return {"state": "approved", "reason": data.reason, "rule": data.rule, "solo": data.solo}
    person = fact.actor.startswith("person/") and not over(state, fact.actor, data.generation)
    if record.state != "waiting" or not person or fact.actor in record.approvals:
        return None
    approvals = distinct(
        state.makers, (*record.approvals, fact.actor), record.author, solo=data.solo
    )
    needs = record.needs if data.needs is None else data.needs
    under = {**record.approved_under, fact.actor: data.generation}
    if len(approvals) < needs:
        return {"approvals": approvals, "approved_under": under, "needs": needs}
    works_alone = " who works alone (review.solo)" if data.solo else ""
    return {
        "approvals": approvals,
        "approved_under": under,
        "needs": needs,
        "state": "approved",
        "reason": f"Approved by {', '.join(approvals)}{works_alone}.",
    }


def _rejected(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    if not record.undecided:
        return None
    return {"state": "rejected", "reason": fact.read(ProposalRejected).reason}


def _reverted(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    if record.state != "rejected":
        return None
    reason = fact.read(ProposalReverted).reason
    return {"reverted": True, "reason": f"{record.reason} {reason}".strip()}


def _promoted(record: ProposalRecord, fact: Fact, __: ControlState) -> dict[str, Any] | None:
    # main has moved, whatever state the proposal was in a moment before.
    if record.state in ("refused", "rolled-back") or fact.revision is None:
        return None
    return {"state": "promoted", "revision": fact.revision, "reason": "It is part of main."}


def without_diffs(record: ProposalRecord) -> ProposalRecord:
    """Return a proposal with its diffs cut; the journal and AngelGit have all of them."""
    changes = tuple(_shortened(change, KEEP_DIFF) for change in record.changes)
    return msgspec.structs.replace(record, changes=changes)


def is_long(changes: Sequence[Change]) -> bool:
    """Return whether lists show less than the whole of these changes."""
    return any(change.cut or len(change.diff) > KEEP_DIFF for change in changes)


def short_diffs(changes: Sequence[Change], keep: int = KEEP_DIFFS) -> tuple[Change, ...]:
    """Return changes with at most `keep` characters of diffs in all, as a fact holds them."""
    short: list[Change] = []
    for change in changes:
        short.append(_shortened(change, keep))
        keep -= len(short[-1].diff)
    return tuple(short)


def _shortened(change: Change, keep: int) -> Change:
    """Return a change with at most `keep` characters of its diff, marked if it was cut."""
    cut = change.cut or len(change.diff) > keep
    return msgspec.structs.replace(change, diff=change.diff[:keep], cut=cut)


_STEPS: dict[str, Step] = {
    Kind.proposal_merged: _merged,
    Kind.proposal_narrowed: _narrowed,
    Kind.proposal_testing: _testing,
    Kind.proposal_tested: _tested,
    Kind.proposal_waiting: _waiting,
    Kind.proposal_approved: _approved,
    Kind.proposal_rejected: _rejected,
    Kind.proposal_reverted: _reverted,
    Kind.proposal_promoted: _promoted,
}


def _kept(proposals: dict[ProposalId, ProposalRecord]) -> dict[ProposalId, ProposalRecord]:
    """Return all open proposals and the newest of the others, as many as the bound allows."""
    done = [proposal for proposal, record in proposals.items() if not record.open]
    dropped = set(done[: max(0, len(done) - KEEP_PROPOSALS)])
    return {key: record for key, record in proposals.items() if key not in dropped}
