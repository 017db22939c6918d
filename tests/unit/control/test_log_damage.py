"""While the audit log is damaged nothing is promoted; a person's acceptance lets it go on."""

from __future__ import annotations

from angelos.control.state.decide import decide, fold, outstanding
from angelos.control.state.effects import Promote
from angelos.control.state.models import ControlState, ProposalRecord
from angelos.control.views import banner
from angelos.core.facts import AuditAccepted, AuditDamaged, Fact, Kind
from angelos.core.ids import Offset, PrincipalId, ProposalId, Revision
from angelos.testing import make_fact

ADA = PrincipalId("person/ada")


def said(payload, subject="system/audit"):
    return Fact.of(
        payload, at=1.0, actor=PrincipalId("system/governance"), subject=subject,
        offset=Offset("5-0"),
    )  # fmt: skip


def approved():
    record = ProposalRecord(
        id=ProposalId("prop-1"), repo="study", base=Revision("a"), author=ADA, message="",
        digest="d", changes=(), at=0.0, state="approved", candidate=Revision("c"),
        candidate_main=Revision("a"),
    )  # fmt: skip
    return ControlState(proposals={record.id: record})


def test_nothing_is_promoted_until_it_is_accepted():
    state = approved()
    assert Promote(ProposalId("prop-1")) in outstanding(state)
    state = fold(state, said(AuditDamaged(detail="Entry 4 of the audit log was changed.")))
    assert Promote(ProposalId("prop-1")) not in outstanding(state)
    approval = make_fact(Kind.proposal_approved, "prop-1")
    assert Promote(ProposalId("prop-1")) not in decide(state, approval)
    assert "tampered" in banner(state)
    assert "Entry 4" in banner(state)
    fact = said(
        AuditAccepted(previous="a", reason="r", size=4, left_out=1, evidence="t"), "angelos/audit/b"
    )
    state = fold(state, fact)
    assert Promote(ProposalId("prop-1")) in decide(state, fact)
    assert "tampered" not in banner(state)
