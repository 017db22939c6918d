"""What the end of a generation ends: tasks, proposals and approvals that were made under it.

>>> over(ControlState(), PrincipalId("person/ada"), 0)
False
"""

from __future__ import annotations

import msgspec

from angelos.control.state.models import ControlState, ProposalRecord, replace
from angelos.core.facts import Fact, PrincipalEnded
from angelos.core.ids import PrincipalId


def over(state: ControlState, principal: PrincipalId, generation: int) -> bool:
    """Return whether what was made under a generation no longer counts."""
    return generation < state.generations.get(principal, 0)


def ended(state: ControlState, fact: Fact) -> ControlState:
    """Record that a generation is over, and drop the approvals that were given under it."""
    principal, generation = PrincipalId(fact.subject), fact.read(PrincipalEnded).generation
    if generation <= state.generations.get(principal, 0):
        return state
    state = replace(state, generations={**state.generations, principal: generation})
    changed = {
        record.id: _without(record, principal)
        for record in state.proposals.values()
        if principal in record.approvals
        and record.undecided
        and over(state, principal, record.approved_under.get(principal, 0))
    }
    return replace(state, proposals={**state.proposals, **changed}) if changed else state


def _without(record: ProposalRecord, person: PrincipalId) -> ProposalRecord:
    """Return a proposal without a person's approval; one that it had made ready is judged anew."""
    approvals = tuple(approver for approver in record.approvals if approver != person)
    short = record.state == "approved" and len(approvals) < record.needs
    return msgspec.structs.replace(
        record,
        approvals=approvals,
        state="testing" if short else record.state,
        reason=f"The approval of {person} no longer counts." if short else record.reason,
    )
