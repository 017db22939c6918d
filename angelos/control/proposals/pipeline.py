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

import msgspec

from angelos.control.context import ControlContext, hash_id
from angelos.control.gate.coverage import CoverageReader
from angelos.control.identity.people import PeopleStore
from angelos.control.projection import Projection
from angelos.control.proposals import records, repo_config
from angelos.control.proposals.inspection import CandidateReader, Inspection
from angelos.control.proposals.provenance import envelope, statement
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import POLICY_PATHS, record_factor, touched
from angelos.control.proposals.solo import alone
from angelos.control.proposals.steps import passing
from angelos.control.proposals.supervisor import Judgement, judge
from angelos.control.state.decide import ends
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
from angelos.control.state.proposals import KEEP_DIFFS, short_diffs, together
from angelos.control.state.quarantines import on_probation
from angelos.control.state.queue import is_apart, split, turn
from angelos.core.errors import (
    AngelError,
    Busy,
    Conflict,
    InvalidInput,
    NotFound,
    Refused,
    Stale,
    Tampered,
    Unavailable,
)
from angelos.core.facts import (
    CandidateOutcome,
    Fact,
    Kind,
    ProposalApproved,
    ProposalMerged,
    ProposalPromoted,
    ProposalRejected,
    ProposalReverted,
    ProposalTested,
    ProposalTesting,
    ProposalWaiting,
    RevertOutcome,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.permissions import Permission
from angelos.core.principals import Generation
from angelos.core.repository import Candidate, CleanOutputs

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
        self._coverage = CoverageReader()
        self._asking: set[ProposalId] = set()
        """Proposals for which people are asked however their tests end: each is tested alone."""

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
        """Make what `main` would become with the next batch, if it is this proposal's turn."""
        record = records.in_state(self._projection, effect.proposal, "pending")
        if record is None:
            return
        async with self._context.locks[record.repo]:
            batch = self._turn(record.repo)
            if batch and batch[0].id == record.id and batch[0].state == "pending":
                await self._candidate(batch)

    def _turn(self, repo: str) -> tuple[ProposalRecord, ...]:
        state = self._projection.state
        return turn(state, repo, lambda record: ends(state, record))

    async def _candidate(self, batch: Sequence[ProposalRecord]) -> None:
        """Make and announce the candidate of a batch, or of as much of it as goes together."""
        batch = self._unasked(batch)
        while True:
            first = batch[0]
            try:
                candidate = await self._repository.candidate(*(record.id for record in batch))
                if repo_config.FILE in (change.path for change in candidate.changes):
                    # A configuration that cannot be read must not become main's.
                    await repo_config.load(self._repository, first.repo, candidate.revision)
                members = [record for record in batch if record.id not in candidate.left_out]
                config = await self._config(first.repo, candidate.main)
                looks = await self._inspected(members, candidate, config)
            except _PERMANENT as error:
                if len(batch) > 1 and not isinstance(error, Stale | Conflict):
                    batch = batch[:1]
                    continue
                await self._append_rejected(first, f"It does not fit main: {error.detail}")
                return
            if len(members) == 1 or not await self._ask_apart(members, looks, config):
                break
            batch = self._unasked(members)
        await self._announce(members, candidate, looks)

    def _unasked(self, batch: Sequence[ProposalRecord]) -> Sequence[ProposalRecord]:
        """Return the proposals of a batch for which no person is asked, or the first alone."""
        if batch[0].id in self._asking:
            return batch[:1]
        return [record for record in batch if record.id not in self._asking]

    async def _inspected(
        self, members: Sequence[ProposalRecord], candidate: Candidate, config: RepoConfig
    ) -> list[Inspection]:
        repo, scorer = members[0].repo, self._context.scorer
        reader = CandidateReader(self._repository, repo, config, self._coverage, scorer)
        await reader.begin(candidate)
        return [
            await reader.inspect(member, program=record.by_program)
            for record, member in zip(members, candidate.members, strict=True)
        ]

    async def _ask_apart(
        self, members: Sequence[ProposalRecord], looks: Sequence[Inspection], config: RepoConfig
    ) -> bool:
        """Remember the members that wait for people however their tests end; return if any do.

        What main becomes with the others must not hold their edits.
        """
        solo = await self.solo(members[0].repo)
        for record, look in zip(members, looks, strict=True):
            passed = msgspec.structs.replace(
                record, findings=look.findings, factors=look.factors, steps=passing(config)
            )
            judgement = self._judge(passed, config, solo=solo)
            counted = await self._counted(record, solo=solo)
            if judgement.needs is None or judgement.needs > len(counted):
                self._asking.add(record.id)
        return any(record.id in self._asking for record in members)

    async def _announce(
        self,
        members: Sequence[ProposalRecord],
        candidate: Candidate,
        looks: Sequence[Inspection],
    ) -> None:
        """Append that a candidate is tested: a fact for each member, all or none."""
        apart = is_apart(self._projection.state, members)
        facts: list[Fact] = []
        for record, member, look in zip(members, candidate.members, looks, strict=True):
            testing = ProposalTesting(
                main=candidate.main,
                tree=candidate.tree,
                commit=member.commit,
                batch=len(members),
                apart=apart,
                changes=short_diffs(member.changes, KEEP_DIFFS // len(members)),
                findings=look.findings,
                factors=look.factors,
                fresh=look.fresh,
            )
            facts.append(
                records.fact(self._projection, testing, record, revision=candidate.revision)
            )
        await self._projection.append(*facts)

    async def refresh(self, members: Sequence[ProposalRecord], outputs: CleanOutputs) -> None:
        """Write the outputs of a clean re-run into a candidate, which is then what is tested.

        Without outputs the candidate stays as it is, and its tests say what is wrong with it.
        """
        first = members[0]
        async with self._context.locks[first.repo]:
            batch = self._turn(first.repo)
            if not batch or batch[0].candidate != first.candidate or not first.candidate_main:
                return
            candidate, state = None, self._projection.state
            if outputs:
                candidate = await self._repository.candidate(
                    *(record.id for record in batch), outputs=outputs
                )
            if candidate is not None and candidate.main != first.candidate_main:
                return  # main was rolled back meanwhile: Promote makes another one
            await self._projection.append(
                *(
                    records.fact(
                        self._projection,
                        _refreshed(record, candidate, apart=first.repo in state.apart),
                        record,
                        revision=candidate.revision if candidate else record.candidate,
                    )
                    for record in batch
                )
            )

    # -- judgement ---------------------------------------------------------------------------

    async def judge(self, effect: Judge) -> None:
        """Approve by policy, ask for people, or reject what failed."""
        record = records.under_test(self._projection, effect.proposal, effect.candidate)
        if record is None or not record.outcome or record.candidate_main is None:
            return
        if record.outcome is CandidateOutcome.failed:
            await self._reject(record.id, record.reason)
            return
        batch = [r for r in self._turn(record.repo) if r.outcome and together(r, record)]
        facts: list[Fact] = []
        for member in batch:
            judgement = await self.judgement(member, record.candidate_main)
            approvals = await self._counted(member, solo=judgement.solo)
            if judgement.needs is not None and judgement.needs <= len(approvals):
                approved = _approved(member, judgement, approvals)
                facts.append(records.fact(self._projection, approved, member))
            elif member.batch > 1:
                self._asking.add(member.id)
                reason = "One that was tested with it has to wait for people; it is tested again."
                facts = split_facts(self._projection, batch, reason, halves=False)
                break
            elif judgement.needs is None:
                reason = f"The policy lets nobody promote it: {judgement.reason}"
                await self._reject(member.id, reason)
                return
            else:
                waiting = _waiting(member, judgement, judgement.needs, approvals)
                facts.append(
                    records.fact(self._projection, waiting, member, revision=member.candidate)
                )
        await self._projection.append(*facts)

    async def judgement(
        self, record: ProposalRecord, main: Revision, person: PrincipalId | None = None
    ) -> Judgement:
        """Return what a tested proposal needs now, by the configuration of this `main`."""
        config = await self._config(record.repo, main)
        solo = await self.solo(record.repo, person)
        return self._judge(record, config, solo=solo)

    def _judge(self, record: ProposalRecord, config: RepoConfig, *, solo: bool) -> Judgement:
        earlier = self._projection.state.proposals.values()
        standing = record_factor(record.author, earlier)
        return judge(
            self._context.policy,
            record,
            config,
            solo=solo,
            probation=on_probation(
                self._projection.state, record.author, self._context.clock.time()
            ),
            standing=standing,
        )

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
            batch = self._turn(record.repo)
            if not batch or batch[0].id != effect.proposal or batch[0].state != "approved":
                return
            if self._projection.state.log_damage:  # it waits for a person
                return
            await self._promote(batch)

    async def _promote(self, batch: Sequence[ProposalRecord]) -> None:
        first = batch[0]
        candidate, main = first.candidate, first.candidate_main
        if candidate is None or main is None:
            return
        if await self._repository.head(first.repo, "main") == candidate:
            await self._append_promoted(first)  # the process died right after it had moved it
            return
        approved = [record for record in batch if await self._still_approved(record)]
        if len(approved) < first.batch:  # main must not get the edits of those that are not
            if approved and first.batch > 1:
                await self._candidate(approved)
            return
        try:
            advanced = await self._advance(first, candidate, main)
        except Stale as error:
            if first.batch == 1:
                await self._append_rejected(first, f"It does not fit dev: {error.detail}")
            else:
                reason = f"Together they do not fit dev: {error.detail}"
                await self._projection.append(*split_facts(self._projection, batch, reason))
            return
        except Tampered as error:
            for record in batch:
                await self._append_rejected(record, f"It is not what was tested: {error.detail}")
            return
        if advanced:
            await self._append_promoted(first)
        else:
            await self._candidate(batch)

    async def _append_promoted(self, first: ProposalRecord) -> None:
        """Append that `main` has a candidate: a fact for each of its proposals, all or none."""
        members = [
            record
            for record in self._projection.state.proposals.values()
            if record.candidate == first.candidate and record.undecided
        ]
        facts = [
            records.fact(
                self._projection,
                ProposalPromoted(
                    repo=record.repo,
                    before=record.candidate_main,
                    commit=record.commit,
                    provenance=self._provenance(record),
                ),
                record,
                key=hash_id(Kind.proposal_promoted, record.id, str(record.candidate)),
                revision=record.candidate,
            )
            for record in members
        ]
        await self._projection.append(*facts)

    def _provenance(self, record: ProposalRecord) -> str:
        """Return the signed statement of where what `main` becomes comes from."""
        assert record.candidate is not None  # noqa: S101 - main has it
        made = statement(self._projection.state, record, record.candidate)
        return envelope(self._context.key, made)

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

    async def _advance(
        self, record: ProposalRecord, candidate: Revision, expected: Revision
    ) -> bool:
        """Move `main` to the candidate; return whether it is there now.

        Raises:
            Tampered: A second process says that it is not what was tested.
        """
        main = await self._repository.head(record.repo, "main")
        if main != expected:
            return False
        await self._context.landing.check(record.repo, candidate, expected, record.tree)
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
        factors=judgement.factors,
    )


def _refreshed(
    record: ProposalRecord, candidate: Candidate | None, *, apart: bool
) -> ProposalTesting:
    """Return the fact that the outputs of a clean re-run are in the candidate."""
    assert record.candidate_main is not None  # noqa: S101 - it is under test
    members = candidate.members if candidate else ()
    own = next((member for member in members if member.proposal == record.id), None)
    return ProposalTesting(
        main=record.candidate_main,
        tree=candidate.tree if candidate else record.tree,
        commit=own.commit if own else record.commit,
        batch=record.batch,
        apart=apart,
        changes=short_diffs(own.changes, KEEP_DIFFS // record.batch) if own else (),
        findings=record.findings,
        factors=record.factors,
    )


def split_facts(
    projection: Projection,
    batch: Sequence[ProposalRecord],
    reason: str,
    *,
    halves: bool = True,
) -> list[Fact]:
    """Return the facts that a batch is tested again: in two smaller ones, or as it fits."""
    groups = split(batch) if halves else {}
    return [
        records.fact(
            projection,
            ProposalTested(reason=reason, group=groups.get(record.id, "")),
            record,
            revision=record.candidate,
            outcome=CandidateOutcome.divided,
        )
        for record in batch
    ]


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
        factors=judgement.factors,
    )
