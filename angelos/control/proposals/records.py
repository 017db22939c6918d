"""What the handlers of proposals share: find a record by its state, append a fact about it."""

from __future__ import annotations

from typing import Unpack

from angelos.control.projection import Projection
from angelos.control.state.models import ProposalRecord
from angelos.core.api import ProposalState
from angelos.core.facts import Fact, FactHeader, FactPayload
from angelos.core.ids import ProposalId, Revision


def in_state(
    projection: Projection, proposal: ProposalId, state: ProposalState
) -> ProposalRecord | None:
    """Return a proposal if it is in this state now."""
    record = projection.state.proposals.get(proposal)
    return record if record is not None and record.state == state else None


def under_test(
    projection: Projection, proposal: ProposalId, candidate: Revision
) -> ProposalRecord | None:
    """Return a proposal if this candidate of it is under test now."""
    record = in_state(projection, proposal, "testing")
    return record if record is not None and record.candidate == candidate else None


def fact(
    projection: Projection,
    payload: FactPayload,
    record: ProposalRecord,
    key: str = "",
    **header: Unpack[FactHeader],
) -> Fact:
    """Return a fact about a proposal, in its trace and on behalf of its author."""
    header.setdefault("trace", record.trace)
    header.setdefault("on_behalf_of", record.author)
    return projection.fact(payload, record.id, key=key, **header)


async def append(
    projection: Projection,
    payload: FactPayload,
    record: ProposalRecord,
    **header: Unpack[FactHeader],
) -> None:
    """Append a fact about a proposal."""
    await projection.append(fact(projection, payload, record, **header))
