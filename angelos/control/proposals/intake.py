"""The door for ways that are not the control API, such as a push: `core.ports.ProposalIntake`.

    receipt = await PrincipalIntake(control.proposals, principal).submit(submission)

A version that replaces another is a proposal of its own: the earlier one is closed, and with it
what was approved of it.
"""

from __future__ import annotations

from angelos.control.proposals.service import ProposalService
from angelos.core.api import ProposalState, ProposalView, SubmitProposal
from angelos.core.errors import Forbidden, NotFound
from angelos.core.ids import ProposalId, new_proposal_id
from angelos.core.intake import IntakeNext, IntakeReceipt, Submission, check_submission
from angelos.core.pending import PendingState
from angelos.core.permissions import Permission, Principal
from angelos.core.policy.access import require
from angelos.core.principals import ActingSession

_STATES: dict[ProposalState, PendingState] = {
    "promoted": PendingState.promoted,
    "rejected": PendingState.withdrawn,
    "refused": PendingState.withdrawn,
    "rolled-back": PendingState.withdrawn,
}


class PrincipalIntake:
    """Takes in what one principal submits, whom the server has established."""

    def __init__(self, proposals: ProposalService, principal: Principal) -> None:
        self._proposals = proposals
        self._principal = principal

    async def submit(self, submission: Submission) -> IntakeReceipt:
        """Propose, and close the version that this one replaces; see the port."""
        self._check(submission.session)
        require(self._principal, Permission.proposals_create)
        check_submission(submission)
        proposals, earlier = self._proposals, submission.id
        identifier = new_proposal_id() if submission.replaces else earlier
        body = SubmitProposal(
            base=submission.base,
            edits=submission.edits,
            message=submission.message,
            proposal=identifier,
        )
        view = await proposals.propose(self._principal, submission.repo, body, submission.trace)
        if submission.replaces and proposals.may_replace(self._principal, earlier):
            await proposals.supersede(self._principal, earlier, view.id, submission.trace)
        return _receipt(view)

    async def find(self, proposal: ProposalId, session: ActingSession) -> IntakeReceipt:
        """Return the receipt of a proposal as it is now; see the port."""
        self._check(session)
        view = await self._proposals.view(proposal)
        if view.author != self._principal.id:
            try:
                require(self._principal, Permission.proposals_read)
            except Forbidden as error:
                raise NotFound(f"There is no proposal {proposal}.") from error
        return _receipt(view)

    def _check(self, session: ActingSession) -> None:
        if session.principal != self._principal.id:
            raise Forbidden("A session submits for its own principal.")


def _receipt(view: ProposalView) -> IntakeReceipt:
    state = _STATES.get(view.state, PendingState.accepted if view.in_dev else PendingState.open)
    step = IntakeNext.testing
    if view.state in _STATES:
        step = IntakeNext.settled
    elif view.needs:
        step = IntakeNext.approval
    return IntakeReceipt(
        id=view.id,
        repo=view.repo,
        digest=view.digest,
        base=view.base,
        author=view.author,
        state=state,
        next=step,
    )
