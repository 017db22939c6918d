"""What is to be done: each effect names its item, so that carrying it out twice is once.

Handlers look at the present state first and do nothing when it no longer asks for the effect.

>>> Merge(ProposalId("prop-1")) == Merge(ProposalId("prop-1"))
True
"""

from __future__ import annotations

import msgspec

from angelos.core.ids import PrincipalId, ProposalId, Revision, TaskId


class _Effect(msgspec.Struct, frozen=True):
    """Hashable, compared by value."""


class PutTask(_Effect, frozen=True):
    """Put an accepted task's command into its node's queue."""

    task: TaskId


class StopTask(_Effect, frozen=True):
    """Take a cancelled task's command out of the queue, and tell the node to kill it."""

    task: TaskId


class EndTask(_Effect, frozen=True):
    """Say in the node's stead that a task is over; the node has had its time."""

    task: TaskId


class AbandonTask(_Effect, frozen=True):
    """Cancel a task that nobody wants any more."""

    task: TaskId
    reason: str


class Merge(_Effect, frozen=True):
    """Merge a received proposal into `dev`."""

    proposal: ProposalId


class MakeCandidate(_Effect, frozen=True):
    """Make a proposal's candidate from the present `main`; its repository's turn is its own."""

    proposal: ProposalId


class RunSteps(_Effect, frozen=True):
    """Run the pipeline's steps on a candidate and say how they ended."""

    proposal: ProposalId
    candidate: Revision


class Judge(_Effect, frozen=True):
    """Approve a tested candidate by policy, ask people, or reject it."""

    proposal: ProposalId
    candidate: Revision


class Promote(_Effect, frozen=True):
    """Move `main` to an approved candidate, or have it re-made if `main` has moved."""

    proposal: ProposalId


class Reject(_Effect, frozen=True):
    """Reject a proposal in the supervisor's name."""

    proposal: ProposalId
    reason: str


class Revert(_Effect, frozen=True):
    """Take a rejected proposal's edits out of `dev`."""

    proposal: ProposalId


class AskCheckout(_Effect, frozen=True):
    """Decide on, and say, that a node is to check `main` out."""

    node: PrincipalId
    repo: str
    revision: Revision
    canary: bool
    attempt: int


class PutCheckout(_Effect, frozen=True):
    """Put a checkout that was asked for into the node's queue."""

    node: PrincipalId
    repo: str
    revision: Revision


class RollBack(_Effect, frozen=True):
    """Take `main` back from a revision that is not healthy."""

    repo: str
    bad: Revision
    to: Revision


class Revoke(_Effect, frozen=True):
    """Void a quarantined principal's grants on a node."""

    principal: PrincipalId
    node: PrincipalId


Effect = (
    PutTask | StopTask | EndTask | AbandonTask | Merge | MakeCandidate | RunSteps | Judge | Promote
    | Reject | Revert | AskCheckout | PutCheckout | RollBack | Revoke
)  # fmt: skip
