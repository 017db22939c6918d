"""A proposal's way to `main`: the handlers of its effects, in that order.

    make_candidate -> run_steps -> judge -> promote      or reject -> revert
    merge first, of a proposal that was proposed live

Each looks at the present state first, does one thing, and appends a fact about it; the fact makes
the next one necessary (`state/decide.py`). So each may be repeated, and the process may die
anywhere. `run_steps` is in `testing.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from angelos.control.context import ControlContext
from angelos.control.identity.people import PeopleStore
from angelos.control.proposals import records, repo_config
from angelos.control.proposals.inspection import findings_of
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import POLICY_PATHS, touched
from angelos.control.proposals.solo import alone
from angelos.control.proposals.supervisor import Judgement, judge
from angelos.control.state.decide import turn
from angelos.control.state.effects import (
    Judge,
    MakeCandidate,
    Merge,
    Promote,
    Reject,
    Revert,
)
from angelos.control.state.hands import distinct
from angelos.control.state.models import ProposalRecord
from angelos.control.state.proposals import short_diffs
from angelos.core.errors import (
    AngelError,
    Busy,
    Conflict,
    InvalidInput,
    NotFound,
    Refused,
    Stale,
    Unavailable,
)
from angelos.core.facts import (
    CandidateOutcome,
    ProposalApproved,
    ProposalMerged,
    ProposalPromoted,
    ProposalRejected,
    ProposalReverted,
    ProposalTesting,
    ProposalWaiting,
    RevertOutcome,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.permissions import Permission
from angelos.core.principals import Generation

log = logging.getLogger(__name__)

_PERMANENT = (Stale, Conflict, InvalidInput, NotFound, Refused)
"""What a repository raises when a proposal cannot be merged, however often one tries."""


class Pipeline:
    """Handles the effects of proposals, except for their tests."""

    def __init__(self, context: ControlContext, people: PeopleStore) -> None:
        self._context = context
        self._people = people
        self._projection = context.projection
        self._repository = context.repository

    # -- into dev ----------------------------------------------------------------------------

    async def merge(self, effect: Merge) -> None:
        """Merge a proposal that was proposed live into the documents of `dev`."""
        record = records.in_state(self._projection, effect.proposal, "received")
        if record is None:
            return
        async with self._context.locks[record.repo]:
            if records.in_state(self._projection, effect.proposal, "received") is None:
                return
            try:
                dev = await self._repository.merge(record.id)
            except _PERMANENT as error:
                reason = f"It could not be merged into dev: {error.detail}"
                await self._append_rejected(record, reason)
                return
            await records.append(self._projection, ProposalMerged(), record, revision=dev)

    # -- the candidate -----------------------------------------------------------------------

    async def make_candidate(self, effect: MakeCandidate) -> None:
        """Make what `main` would become, if it is this proposal's turn."""
        record = records.in_state(self._projection, effect.proposal, "pending")
        if record is None:
            return
        async with self._context.locks[record.repo]:
            record = records.in_state(self._projection, effect.proposal, "pending")
            if record is not None and turn(self._projection.state, record.repo) == record:
                await self._candidate(record)

    async def _candidate(self, record: ProposalRecord) -> None:
        try:
            candidate = await self._repository.candidate(record.id)
            if repo_config.FILE in (change.path for change in candidate.changes):
                # A configuration that cannot be read must not become main's.
                await repo_config.load(self._repository, record.repo, candidate.revision)
            config = await self._config(record.repo, candidate.main)
            findings = await findings_of(
                self._repository, record.repo, record.author, config, candidate
            )
        except _PERMANENT as error:
            await self._append_rejected(record, f"It does not fit main: {error.detail}")
            return
        testing = ProposalTesting(
            main=candidate.main,
            tree=candidate.tree,
            changes=short_diffs(candidate.changes),
            findings=findings,
        )
        await records.append(self._projection, testing, record, revision=candidate.revision)

    # -- judgement ---------------------------------------------------------------------------

    async def judge(self, effect: Judge) -> None:
        """Approve by policy, ask for people, or reject what failed."""
        record = records.under_test(self._projection, effect.proposal, effect.candidate)
        if record is None or not record.outcome or record.candidate_main is None:
            return
        if record.outcome is CandidateOutcome.failed:
            await self._reject(record.id, record.reason)
            return
        judgement = await self.judgement(record, record.candidate_main)
        approvals = await self._counted(record, solo=judgement.solo)
        if judgement.needs is None:
            await self._reject(record.id, f"The policy lets nobody promote it: {judgement.reason}")
        elif judgement.needs <= len(approvals):
            approved = _approved(record, judgement, approvals)
            await records.append(self._projection, approved, record)
        else:
            waiting = _waiting(record, judgement, judgement.needs, approvals)
            await records.append(self._projection, waiting, record, revision=record.candidate)

    async def judgement(
        self, record: ProposalRecord, main: Revision, person: PrincipalId | None = None
    ) -> Judgement:
        """Return what a tested proposal needs now, by the configuration of this `main`."""
        config = await self._config(record.repo, main)
        solo = await self.solo(record.repo, person)
        return judge(self._context.policy, record, config, solo=solo)

    async def _config(self, repo: str, main: Revision) -> RepoConfig:
        """Return the configuration of a `main`, an empty one if it cannot be read."""
        try:
            return await repo_config.load(self._repository, repo, main)
        except InvalidInput:
            return RepoConfig()

    async def solo(self, repo: str, person: PrincipalId | None = None) -> bool:
        """Return whether one person alone reviews this repository now."""
        main = await self._repository.head(repo, "main")
        try:
            config = await repo_config.load(self._repository, repo, main)
        except InvalidInput:
            return False
        return config.review.solo and alone(config.review, await self._people.list(), person)

    # -- main --------------------------------------------------------------------------------

    async def promote(self, effect: Promote) -> None:
        """Move `main` to the candidate by compare-and-set; remake it if `main` has moved."""
        record = records.in_state(self._projection, effect.proposal, "approved")
        if record is None:
            return
        async with self._context.locks[record.repo]:
            record = records.in_state(self._projection, effect.proposal, "approved")
            if record is None or record.candidate is None:
                return
            state = self._projection.state
            if turn(state, record.repo) != record or state.log_damage:  # it waits for a person
                return
            if not await self._still_approved(record):
                return
            try:
                advanced = await self._advance(record, record.candidate)
            except Stale as error:
                await self._append_rejected(record, f"It does not fit dev: {error.detail}")
                return
            if not advanced:
                await self._candidate(record)
                return
            promoted = ProposalPromoted(repo=record.repo, before=record.candidate_main)
            await records.append(self._projection, promoted, record, revision=record.candidate)

    async def _still_approved(self, record: ProposalRecord) -> bool:
        """Return whether it is approved by whoever counts now; else let it wait for people.

        The database says who counts: facts may be on their way. One that `main` has already is
        not asked about again.
        """
        if record.candidate_main is None or await self.is_main(record):
            return True
        judgement = await self.judgement(record, record.candidate_main)
        approvals = await self._counted(record, solo=judgement.solo)
        if judgement.needs is not None and judgement.needs <= len(approvals):
            return True
        needs = record.needs if judgement.needs is None else judgement.needs
        waiting = _waiting(record, judgement, max(needs, 1), approvals)
        await records.append(self._projection, waiting, record, revision=record.candidate)
        return False

    async def _counted(self, record: ProposalRecord, *, solo: bool) -> tuple[PrincipalId, ...]:
        """Return the approvals that count now: of people who still are who they were then."""
        present: list[PrincipalId] = []
        for person in record.approvals:
            under = Generation(record.approved_under.get(person, 0))
            principal = await self._people.present(person, under)
            if principal is not None and principal.may(Permission.proposals_review):
                present.append(person)
        return distinct(self._projection.state.makers, present, record.author, solo=solo)

    async def _advance(self, record: ProposalRecord, candidate: Revision) -> bool:
        """Move `main` to the candidate; return whether it is there now."""
        main = await self._repository.head(record.repo, "main")
        if main == candidate:  # the process died right after it had moved it
            return True
        if main != record.candidate_main:
            return False
        try:
            await self._repository.advance(record.repo, candidate, main)
        except Conflict:
            return False
        return True

    async def reject(self, effect: Reject) -> None:
        """Reject a proposal in the supervisor's name."""
        await self._reject(effect.proposal, effect.reason)

    async def _reject(self, proposal: ProposalId, reason: str) -> None:
        record = self._projection.state.proposals.get(proposal)
        if record is None:
            return
        async with self._context.locks[record.repo]:
            await self._reject_locked(proposal, reason)

    async def _reject_locked(self, proposal: ProposalId, reason: str) -> None:
        """Reject a proposal unless it has become `main`; the repository's lock is held."""
        record = self._projection.state.proposals.get(proposal)
        if record is None or not record.undecided:
            return
        if await self.is_main(record):
            log.info("%s is main already and is not rejected: %s", record.id, reason)
            return
        await self._append_rejected(record, reason)

    async def is_main(self, record: ProposalRecord) -> bool:
        """Return whether an approved candidate is `main` already, though no fact says so yet."""
        if record.state != "approved":
            return False
        return await self._repository.head(record.repo, "main") == record.candidate

    async def revert(self, effect: Revert) -> None:
        """Close a rejected proposal; if it was accepted into `dev`, take its edits out again."""
        record = records.in_state(self._projection, effect.proposal, "rejected")
        if record is None or record.reverted:
            return
        dev, reason = None, ""
        try:
            dev = await self._take_back(record)
        except (Unavailable, Busy):
            raise
        except AngelError as error:
            if isinstance(error, NotFound):
                log.info("%s is not in the repository: %s", record.id, error)
            elif isinstance(error, Conflict):
                # Others have changed the same lines since; their work would go with it.
                reason = f"Its edits stay in dev, where others went on with them: {error}"
                log.warning("%s: %s", record.id, reason)
            else:
                raise
        await records.append(
            self._projection,
            ProposalReverted(was_in_dev=dev is not None or bool(reason), reason=reason),
            record,
            revision=dev,
            outcome=RevertOutcome.stay if reason else RevertOutcome.ok,
        )

    async def _take_back(self, record: ProposalRecord) -> Revision | None:
        """Close a proposal that waits beside `dev`, or take it out; return the commit of that.

        The repository knows which: a kill may have been between an acceptance and its fact.
        """
        if not record.merged:
            try:
                await self._repository.withdraw(record.id)
            except Conflict:
                log.info("%s was accepted into dev", record.id)
            else:
                return None
        return await self._repository.revert(record.id)

    async def _append_rejected(self, record: ProposalRecord, reason: str) -> None:
        await records.append(self._projection, ProposalRejected(reason=reason), record)


def _waiting(
    record: ProposalRecord, judgement: Judgement, needs: int, approvals: Sequence[PrincipalId]
) -> ProposalWaiting:
    return ProposalWaiting(
        needs=needs,
        reason=judgement.reason,
        risk=judgement.risk,
        rule=",".join(judgement.rules),
        solo=judgement.solo,
        approvals=tuple(approvals),
        policy_paths=touched(record.paths, POLICY_PATHS),
    )


def _approved(
    record: ProposalRecord, judgement: Judgement, approvals: Sequence[PrincipalId]
) -> ProposalApproved:
    reason = judgement.reason
    if approvals:
        reason = f"Approved by {', '.join(approvals)}; the new candidate passed its tests."
    return ProposalApproved(
        digest=record.digest,
        actor_kind="policy",
        reason=reason,
        risk=judgement.risk,
        rule=",".join(judgement.rules),
        solo=judgement.solo,
        policy_paths=touched(record.paths, POLICY_PATHS),
    )
