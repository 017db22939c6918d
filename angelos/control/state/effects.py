"""What is to be done. Each effect names its item, so carrying it out twice changes nothing.

Handlers look at the present state first and do nothing when it no longer needs the effect.

>>> Merge(ProposalId("prop-1")) == Merge(ProposalId("prop-1"))
True
"""

from __future__ import annotations

import msgspec

from angelos.core.facts import CancelCause
from angelos.core.ids import FactId, PrincipalId, ProposalId, Revision, TaskId


class _Effect(msgspec.Struct, frozen=True):
    """Hashable, compared by value."""


class PutTask(_Effect, frozen=True):
    """Queue an accepted task's command."""

    task: TaskId


class StopTask(_Effect, frozen=True):
    """Remove a cancelled task's command from the queue, and have its node kill it."""

    task: TaskId


class EndTask(_Effect, frozen=True):
    """Report the end of a task whose node did not report it in time."""

    task: TaskId


class AbandonTask(_Effect, frozen=True):
    """Cancel a task that is of no use any more."""

    task: TaskId
    cause: CancelCause
    reason: str


class Merge(_Effect, frozen=True):
    """Merge a received proposal into `dev`."""

    proposal: ProposalId


class MakeCandidate(_Effect, frozen=True):
    """Make a proposal's candidate from the present `main`, when it is its turn."""

    proposal: ProposalId


class RunSteps(_Effect, frozen=True):
    """Run the pipeline's steps on a candidate and record how they ended."""

    proposal: ProposalId
    candidate: Revision


class Judge(_Effect, frozen=True):
    """Approve a tested candidate by policy, ask people, or reject it."""

    proposal: ProposalId
    candidate: Revision


class Promote(_Effect, frozen=True):
    """Move `main` to an approved candidate, or remake the candidate if `main` has moved."""

    proposal: ProposalId


class Reject(_Effect, frozen=True):
    """Reject a proposal in the supervisor's name."""

    proposal: ProposalId
    reason: str


class Revert(_Effect, frozen=True):
    """Take a rejected proposal's edits out of `dev`."""

    proposal: ProposalId


class AskCheckout(_Effect, frozen=True):
    """Decide that a node is to check `main` out, and append the fact."""

    node: PrincipalId
    repo: str
    revision: Revision
    canary: bool
    attempt: int


class PutCheckout(_Effect, frozen=True):
    """Queue the command of a requested checkout."""

    node: PrincipalId
    repo: str
    revision: Revision


class RollBack(_Effect, frozen=True):
    """Roll `main` back from a revision that is not healthy."""

    repo: str
    bad: Revision
    to: Revision


class Revoke(_Effect, frozen=True):
    """Void a quarantined principal's grants on a node."""

    principal: PrincipalId
    node: PrincipalId


class SetPause(_Effect, frozen=True):
    """Have a node stop what runs for a principal, or let it go on."""

    principal: PrincipalId
    node: PrincipalId
    paused: bool
    fact: FactId


class PauseAgent(_Effect, frozen=True):
    """Pause an agent that has used up its budget, and ask a person."""

    agent: PrincipalId
    reason: str


class SkipCanary(_Effect, frozen=True):
    """Go on with a rollout without a canary that is silent."""

    repo: str
    revision: Revision
    node: PrincipalId
    reason: str


Effect = (
    SkipCanary
    | PutTask
    | StopTask
    | EndTask
    | AbandonTask
    | Merge
    | MakeCandidate
    | RunSteps
    | Judge
    | Promote
    | Reject
    | Revert
    | AskCheckout
    | PutCheckout
    | RollBack
    | Revoke
    | SetPause
    | PauseAgent
)
