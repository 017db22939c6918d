"""Proposals as people and agents see them: propose, show, approve, reject.

For example:

    view = await proposals.propose(principal, "study", SubmitProposal(
        base="main", edits=[...], message="Add midrange"))
    view = await proposals.view(view.id, wait_s=60)
    await proposals.approve(person, view.id, Review(digest=view.digest))
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from angelos.control.context import ControlContext, hash_id
from angelos.control.proposals import repo_config, result_files
from angelos.control.proposals.limits import room_for
from angelos.control.proposals.pipeline import Pipeline
from angelos.control.proposals.risk import POLICY_PATHS, touched
from angelos.control.proposals.showing import Showing
from angelos.control.state.case_history import recorded
from angelos.control.state.hands import same_hands
from angelos.control.state.models import ProposalRecord
from angelos.control.state.pauses import paused
from angelos.control.state.proposals import short_diffs, without_diffs
from angelos.control.views import proposal_view
from angelos.core.api import (
    SETTLED,
    CaseList,
    CaseView,
    PartReview,
    ProposalDiff,
    ProposalList,
    ProposalState,
    ProposalView,
    Reason,
    Review,
    SubmitProposal,
)
from angelos.core.errors import (
    AngelError,
    Busy,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    NotShown,
    Stale,
)
from angelos.core.facts import (
    Kind,
    ProposalApproved,
    ProposalMerged,
    ProposalReceived,
    ProposalRefused,
    ProposalRejected,
    RefusalCause,
    StepResult,
    TaskResult,
)
from angelos.core.ids import ProposalId, Revision, is_id, is_revision, new_proposal_id
from angelos.core.paths import safe_path
from angelos.core.pending import PartChoice, is_all_that_is_open, open_part, part_of
from angelos.core.permissions import Permission, Principal
from angelos.core.policy.access import require
from angelos.core.policy.engine import Decision
from angelos.core.reports import CaseOutcome, CaseReport
from angelos.core.repository import NEW, ProposalOrigin, Proposed
from angelos.core.routes import Period

log = logging.getLogger(__name__)
KEEP_TEXT = 4_000
KEEP_CONFLICTS = 16
_RETRY_AFTER_S = 10


class _Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal that is not taken yet."""

    principal: Principal
    proposal: ProposalId
    repo: str
    base: Revision
    message: str
    trace: str


class ProposalService:
    """Takes proposals, and what people decide on them."""

    def __init__(self, context: ControlContext, pipeline: Pipeline) -> None:
        self._context = context
        self._projection = context.projection
        self._pipeline = pipeline
        self._showing = Showing(context)

    # -- propose -----------------------------------------------------------------------------

    async def propose(
        self,
        principal: Principal,
        repo: str,
        body: SubmitProposal,
        trace: str = "",
        origin: ProposalOrigin = NEW,
    ) -> ProposalView:
        """Take edits, which then wait beside `dev`, and return the proposal.

        If it is proposed live it is returned once it is in `dev`, or could not get there.

        Raises:
            Forbidden: The policy does not allow it; a fact `proposal.refused` is appended.
            Stale: The same lines have changed since the base; as above, and the error holds
                both texts.
            InvalidInput: The edits have the wrong form; as above.
            NotFound: There is no such repository or base.
            Busy: The repository has too many open proposals.
            Conflict: The id belongs to another proposal.
        """
        submission = await self._submission(principal, repo, body, trace)
        proposal = submission.proposal
        record = self._projection.state.proposals.get(proposal)
        if record is not None and (record.author, record.repo) != (principal.id, repo):
            raise Conflict(f"{proposal} is somebody else's proposal, or another repository's.")
        if record is None:
            self._has_room(submission)
            if body.live:
                await self._may_enter_live(submission)
            await self._allowed(submission, tuple(safe_path(edit.path) for edit in body.edits))
        proposed = await self._proposed(submission, body, origin)
        if record is None:
            # Only now is it known which paths the edits touch; an edit may name another path.
            await self._allowed(submission, tuple(change.path for change in proposed.changes))
            received = _received(
                proposed, principal.generation, live=body.live, kernel=principal.kernel
            )
            key = hash_id(Kind.proposal_received, proposal)
            await self._projection.append(
                self._projection.fact(received, proposal, principal.id, key=key, trace=trace)
            )
        await self._projection.until(
            lambda state: (
                proposal not in state.proposals or state.proposals[proposal].state != "received"
            ),
            subject=proposal,
            timeout_s=self._context.config.merge_wait_s,
        )
        return proposal_view(self._record(proposal))

    def may_replace(self, principal: Principal, proposal: ProposalId) -> bool:
        """Return whether a proposal is somebody's own and not decided."""
        record = self._projection.state.proposals.get(proposal)
        return record is not None and record.author == principal.id and record.undecided

    async def supersede(
        self, principal: Principal, proposal: ProposalId, newer: ProposalId, trace: str = ""
    ) -> None:
        """Close a proposal of one's own that a newer one replaces; what is decided stays."""
        record = self._record(proposal)
        if record.author != principal.id:
            raise Forbidden(f"{proposal} is somebody else's.")
        async with self._context.locks[record.repo]:
            record = self._record(proposal)
            if not record.undecided or await self._pipeline.is_main(record):
                return
            reason = f"Replaced by {newer}"
            await self._projection.append(
                self._projection.fact(
                    ProposalRejected(digest=record.digest, reason=reason),
                    proposal,
                    principal.id,
                    trace=trace,
                )
            )

    async def revert(
        self, principal: Principal, proposal: ProposalId, body: Reason, trace: str = ""
    ) -> ProposalView:
        """Propose to take one proposal's edits back, around everybody's later work.

        The answer is a proposal like any other: tested, judged, and taken back by the same call.

        Raises:
            Conflict: Nothing of it is in `dev` or `main`, or it is taken back already.
            Forbidden: The policy does not allow it.
            NotFound: There is no such proposal.
            Stale: Later work changed the same lines.
        """
        self._record(proposal)
        draft = await self._context.repository.revert_draft(proposal)
        message = f"{draft.message}\n\n{body.reason}".rstrip()
        edits = SubmitProposal(base=draft.base, edits=draft.edits, message=message)
        return await self.propose(
            principal, draft.repo, edits, trace, ProposalOrigin(reverts=proposal)
        )

    async def cherry_pick(
        self, principal: Principal, repo: str, revision: str, trace: str = ""
    ) -> ProposalView:
        """Propose to do again on `main` what a commit of any branch changed.

        Raises:
            Conflict: `main` has all of it.
            Forbidden: The policy does not allow it.
            NotFound: There is no such repository or revision.
            Stale: The same lines have changed on `main`.
        """
        picked = await self._context.repository.resolve(repo, revision)
        draft = await self._context.repository.pick_draft(repo, picked)
        edits = SubmitProposal(base=draft.base, edits=draft.edits, message=draft.message)
        return await self.propose(principal, repo, edits, trace, ProposalOrigin(picked_from=picked))

    async def _submission(
        self, principal: Principal, repo: str, body: SubmitProposal, trace: str
    ) -> _Submission:
        return _Submission(
            principal=principal,
            proposal=self._id(body.proposal),
            repo=repo,
            base=await self._base(repo, body.base),
            message=body.message,
            trace=trace,
        )

    async def _proposed(
        self, submission: _Submission, body: SubmitProposal, origin: ProposalOrigin
    ) -> Proposed:
        try:
            return await self._context.repository.propose(
                submission.proposal,
                submission.repo,
                submission.base,
                body.edits,
                submission.principal.id,
                submission.message,
                origin,
            )
        except Stale as error:
            refused = ProposalRefused(conflicts=_bounded(error.extra.get("conflicts", [])))
            await self._refuse(submission, RefusalCause.stale, error, refused)
            raise
        except InvalidInput as error:
            await self._refuse(submission, RefusalCause.invalid, error)
            raise

    async def _allowed(self, submission: _Submission, paths: tuple[str, ...]) -> Decision:
        policy_paths = touched(paths, POLICY_PATHS)
        protected = touched(paths, await self._protected(submission.repo))
        try:
            return await self._context.decide(
                submission.principal,
                "propose",
                ("Repo", submission.repo),
                paused=paused(self._projection.state, submission.principal.id) is not None,
                touches_policy=bool(policy_paths),
                touches_protected=bool(protected),
                paths=len(paths),
            )
        except Forbidden as error:
            rules = tuple(error.extra.get("rules", ()))
            refused = ProposalRefused(policy_paths=policy_paths, rules=rules)
            await self._refuse(submission, RefusalCause.policy, error, refused)
            raise

    def _has_room(self, submission: _Submission) -> None:
        config, now = self._context.config, self._context.clock.time()
        state, author = self._projection.state, submission.principal.id
        if reason := room_for(state, author, submission.repo, now, config.author_limits):
            raise Busy(
                f"{reason}; this one was not taken.",
                hint="Try again when some are decided. Others are not affected.",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def _may_enter_live(self, submission: _Submission) -> None:
        """Refuse a live proposal of somebody who may not type into live documents."""
        if submission.principal.may(Permission.documents_edit):
            return
        error = Forbidden(
            f"{submission.principal.id} may not edit live documents.",
            hint="Propose it without `live`: it waits until a person accepts it.",
        )
        await self._refuse(submission, RefusalCause.policy, error)
        raise error

    async def _refuse(
        self,
        submission: _Submission,
        cause: RefusalCause,
        error: AngelError,
        refused: ProposalRefused | None = None,
    ) -> None:
        refused = msgspec.structs.replace(
            refused or ProposalRefused(),
            repo=submission.repo,
            base=submission.base,
            message=submission.message,
            reason=error.detail,
        )
        await self._projection.append(
            self._projection.fact(
                refused,
                submission.proposal,
                submission.principal.id,
                outcome=cause,
                trace=submission.trace,
            )
        )

    async def _protected(self, repo: str) -> tuple[str, ...]:
        main = await self._context.repository.head(repo, "main")
        try:
            config = await repo_config.load(self._context.repository, repo, main)
        except InvalidInput:
            return ("**",)  # what is protected cannot be read, so everything is
        return (*config.review.protected, *config.judges)

    async def _base(self, repo: str, base: str) -> Revision:
        if base in ("main", "dev"):
            return await self._context.repository.head(repo, base)
        await self._context.repository.head(repo, "main")
        if not is_revision(base):
            raise InvalidInput(
                f"{base[:80]!r} is no revision.",
                hint="Give main, dev, or all 64 digits of a revision.",
            )
        return Revision(base)

    def _id(self, requested: ProposalId | None) -> ProposalId:
        if requested is None:
            return new_proposal_id(int(self._context.clock.time() * 1000))
        if not is_id(requested) or not requested.startswith("prop-"):
            raise InvalidInput(
                f"{requested[:80]!r} is no proposal id.", hint="Use prop- and 32 hex digits."
            )
        return requested

    # -- show --------------------------------------------------------------------------------

    async def view(self, proposal: ProposalId, wait_s: float = 0.0) -> ProposalView:
        """Return a proposal; with `wait_s`, wait that long for it to be settled or to wait."""
        self._record(proposal)
        if wait_s > 0:
            await self._projection.until(
                lambda state: (
                    proposal not in state.proposals or state.proposals[proposal].state in SETTLED
                ),
                subject=proposal,
                timeout_s=min(wait_s, self._context.config.max_wait_s),
            )
        return proposal_view(self._record(proposal))

    async def diff(
        self, principal: Principal, proposal: ProposalId, after: str = ""
    ) -> ProposalDiff:
        """Return a page of the whole change that somebody is to approve.

        Raises:
            Conflict: It has no candidate.
            InvalidInput: `after` is not what the page before gave.
            NotFound: There is no such proposal.
        """
        return await self._showing.page(principal, self._record(proposal), after)

    def list(
        self,
        state: ProposalState | None = None,
        repo: str = "",
        limit: int = 50,
        *,
        author: str = "",
        after: str = "",
        period: Period | None = None,
    ) -> ProposalList:
        """Return a page of proposals, newest first, with the beginnings of their diffs.

        Args:
            state: Only those in this state.
            repo: Only those of this repository.
            limit: The most that the page holds.
            author: Only those of this principal.
            after: The last one of the page before.
            period: Only those that were received in it.

        Raises:
            NotFound: There is no such proposal as `after`.
        """
        records = self._projection.state.proposals
        if after and after not in records:
            raise NotFound(f"There is no proposal {after[:80]!r} to go on from.")
        within = period or Period()
        chosen = [
            record
            for record in reversed(records.values())
            if _is_of(record, state, repo, author) and record.at in within
        ]
        older = chosen
        if after:
            order = {proposal: place for place, proposal in enumerate(records)}
            older = [record for record in chosen if order[record.id] < order[ProposalId(after)]]
        page = tuple(proposal_view(without_diffs(record)) for record in older[:limit])
        return ProposalList(
            proposals=page,
            total=len(chosen),
            next=page[-1].id if len(older) > limit else "",
        )

    def cases(self, proposal: ProposalId) -> CaseList:
        """Return how each test of a proposal ended, with its history; raise `NotFound`."""
        record = self._record(proposal)
        history = recorded(self._projection.state, record.repo)
        suites, missing = self._suites(record)
        views = [
            CaseView(
                case=case.case,
                step=step,
                outcome=case.outcome,
                seconds=case.seconds,
                detail=case.detail,
                history=tuple(run.outcome for run in history.get(case.case, ())),
            )
            for step, cases in suites
            for case in cases
        ]
        return CaseList(cases=tuple(views), missing=missing)

    def history(self, repo: str) -> CaseList:
        """Return the tests of a repository with how they ended lately."""
        views = [
            CaseView(case=case, history=tuple(run.outcome for run in runs))
            for case, runs in recorded(self._projection.state, repo).items()
        ]
        return CaseList(cases=tuple(views))

    def junit(self, proposal: ProposalId) -> bytes:
        """Return a proposal's tests as JUnit XML; raise `NotFound`."""
        return result_files.junit(self._suites(self._record(proposal))[0])

    def sarif(self, proposal: ProposalId) -> bytes:
        """Return what is to be looked at in a proposal as SARIF; raise `NotFound`."""
        record = self._record(proposal)
        suites, _ = self._suites(record)
        cases = [(step, case) for step, rows in suites for case in rows]
        return result_files.sarif(record.findings, cases)

    def _suites(
        self, record: ProposalRecord
    ) -> tuple[list[tuple[str, tuple[CaseReport, ...]]], tuple[str, ...]]:
        """Return the single results of each step, and the steps of which there are none here."""
        suites: list[tuple[str, tuple[CaseReport, ...]]] = []
        missing: list[str] = []
        for step in record.steps:
            task = self._projection.state.tasks.get(step.task)
            if task is None or task.result is None:
                missing.append(step.name)
            else:
                suites.append((step.name, single_results(step, task.result)))
        return suites, tuple(missing)

    # -- review -----------------------------------------------------------------------------

    async def approve(
        self, principal: Principal, proposal: ProposalId, body: Review, trace: str = ""
    ) -> ProposalView:
        """Count one person's approval of exactly the edits that the digest names.

        Raises:
            Conflict: The digest is not the proposal's, or it does not wait for approval.
            NotShown: It is longer than what lists show, and `body.shown` is not what the last page
                of `diff` gave this person.
            Forbidden: For agents, for the author and whoever counts as one with them unless they
                work alone (`review.solo`), and for people who have approved it already.
        """
        record, solo = await self._reviewed(principal, "approve", proposal, body)
        if record.state != "waiting" or record.candidate_main is None:
            raise Conflict(
                f"{proposal} does not wait for approval, it is {record.state}: {record.reason}",
                hint="Nothing was counted.",
            )
        self._showing.check(principal, record, body.shown)
        # People who joined or left since the tests may have changed how many it takes.
        judgement = await self._pipeline.judgement(record, record.candidate_main, principal.id)
        approved = ProposalApproved(
            digest=record.digest,
            comment=body.comment,
            actor_kind="person",
            solo=solo,
            generation=principal.generation,
            needs=record.needs if judgement.needs is None else judgement.needs,
        )
        fact = self._projection.fact(
            approved,
            proposal,
            principal.id,
            # An approval that is repeated is one fact; a new candidate needs a new approval.
            key=hash_id(Kind.proposal_approved, proposal, principal.id, str(record.candidate)),
            revision=record.candidate,
            trace=trace,
        )
        await self._projection.append(fact)
        return proposal_view(self._record(proposal))

    async def accept(
        self, principal: Principal, proposal: ProposalId, body: PartReview, trace: str = ""
    ) -> ProposalView:
        """Let a proposal enter the live documents of `dev`; `main` still needs its tests.

        Where the person may approve it too it is their approval. A part of it becomes a proposal
        of its own, whose author is the same; the rest stays open.

        Returns:
            The proposal, or the one that the part has become.

        Raises:
            Conflict: The digest is not the proposal's, or it is decided already.
            InvalidInput: Some of the part is not in the proposal.
            Stale: The same lines have changed in `dev` since; nothing entered.
        """
        record = self._record(proposal)
        _check_digest(record, body)
        async with self._context.locks[record.repo]:
            record = self._record(proposal)
            if not record.undecided:
                raise Conflict(
                    f"{proposal} can no longer be accepted, it is {record.state}: {record.reason}"
                )
            if body.part is not None:
                record = await self._taken(principal, record, body.part, trace)
            proposal = record.id
            review = Review(digest=record.digest, comment=body.comment, shown=body.shown)
            await self._enter(principal, record, review, trace)
        if self._record(proposal).state == "waiting":
            try:
                require(principal, Permission.proposals_review)  # a kernel's token has it not
                return await self.approve(principal, proposal, body, trace)
            except (Forbidden, Conflict, NotShown) as error:
                log.info(
                    "%s accepted %s and does not approve it: %s", principal.id, proposal, error
                )
        return proposal_view(self._record(proposal))

    async def _taken(
        self, principal: Principal, record: ProposalRecord, choice: PartChoice, trace: str
    ) -> ProposalRecord:
        """Return a part of a proposal as a proposal of its own; all that is open is the whole."""
        pending = await self._context.repository.pending(record.id)
        part = open_part(pending, choice)
        if is_all_that_is_open(pending, part):
            return record
        own_id = new_proposal_id(int(self._context.clock.time() * 1000))
        proposed = await self._context.repository.take_part(part, own_id)
        received = _received(proposed, record.generation, kernel=record.kernel)
        received = msgspec.structs.replace(received, part_of=record.id, hunks=part.hunks)
        key = hash_id(Kind.proposal_received, proposed.id)
        await self._projection.append(
            self._projection.fact(
                received,
                proposed.id,
                principal.id,
                key=key,
                on_behalf_of=record.author,
                trace=trace,
            )
        )
        return self._record(proposed.id)

    async def _enter(
        self, principal: Principal, record: ProposalRecord, body: Review, trace: str
    ) -> None:
        """Merge a proposal into `dev` in a person's name; the repository's lock is held."""
        merged = await self._merged_by(principal, record, body)
        try:
            dev = await self._context.repository.merge(record.id)
        except Stale as error:
            if record.part_of is not None:  # a part waits for nobody beside who took it
                reason = f"It could not be merged into dev: {error.detail}"
                await self._projection.append(
                    self._projection.fact(
                        ProposalRejected(digest=record.digest, reason=reason),
                        record.id,
                        principal.id,
                        trace=trace,
                    )
                )
            raise
        await self._projection.append(
            self._projection.fact(
                merged,
                record.id,
                principal.id,
                key=hash_id(Kind.proposal_merged, record.id),
                revision=dev,
                trace=trace,
            )
        )

    async def _merged_by(
        self, principal: Principal, record: ProposalRecord, body: Review
    ) -> ProposalMerged:
        """Return the fact of an acceptance, which is an approval where the person may approve."""
        if record.state == "waiting":
            return ProposalMerged()  # they approve what its tests said as well
        try:
            require(principal, Permission.proposals_review)  # a kernel's token has it not
            self._showing.check(principal, record, body.shown)
            _, solo = await self._reviewed(principal, "approve", record.id, body)
        except (Forbidden, NotShown) as error:
            log.info("%s accepts %s and does not approve it: %s", principal.id, record.id, error)
            return ProposalMerged()
        generation = principal.generation
        return ProposalMerged(digest=record.digest, generation=generation, solo=solo)

    async def reject(
        self, principal: Principal, proposal: ProposalId, body: PartReview, trace: str = ""
    ) -> ProposalView:
        """Reject a proposal that is not part of `main` yet; if it was accepted it leaves `dev`.

        Of a proposal that waits a part may be rejected: the rest goes on, under another digest.

        Raises:
            Conflict: The digest is not the proposal's, or it is decided already.
            Forbidden: The policy does not allow it.
            InvalidInput: Some of the part is not in the proposal.
        """
        record, _ = await self._reviewed(principal, "reject", proposal, body)
        if body.part is not None and await self._narrowed(principal, record, body.part, body):
            return proposal_view(self._record(proposal))
        async with self._context.locks[record.repo]:
            record = self._record(proposal)
            if not record.undecided or await self._pipeline.is_main(record):
                raise Conflict(
                    f"{proposal} can no longer be rejected, it is {record.state}: {record.reason}",
                    hint="What is part of main is undone by `angelos repo rollback`.",
                )
            reason = f"Rejected by {principal.id}" + (body.comment and f": {body.comment}")
            await self._projection.append(
                self._projection.fact(
                    ProposalRejected(digest=record.digest, reason=reason),
                    proposal,
                    principal.id,
                    trace=trace,
                )
            )
        return proposal_view(self._record(proposal))

    async def _narrowed(
        self, principal: Principal, record: ProposalRecord, choice: PartChoice, body: Review
    ) -> bool:
        """Withdraw a part of a proposal; return False if that is all of it."""
        async with self._context.locks[record.repo]:
            record = self._record(record.id)
            if not record.undecided or await self._pipeline.is_main(record):
                raise Conflict(
                    f"No part of {record.id} can be rejected any more, it is {record.state}."
                )
            pending = await self._context.repository.pending(record.id)
            part = part_of(pending, choice)
            if len(part.hunks) == len(pending.hunks):
                return False
            rest = await self._context.repository.withdraw_part(part, principal.id, body.comment)
            await self._projection.until(
                lambda state: state.proposals[record.id].digest == rest.digest,
                subject=record.id,
                timeout_s=self._context.config.merge_wait_s,
            )
        return True

    async def _reviewed(
        self, principal: Principal, action: str, proposal: ProposalId, body: Review
    ) -> tuple[ProposalRecord, bool]:
        """Return the proposal, and whether one person alone reviews it; raise what forbids it."""
        record = self._record(proposal)
        solo = await self._pipeline.solo(record.repo, principal.id)
        makers = self._projection.state.makers
        await self._context.decide(
            principal,
            action,
            ("Repo", record.repo),
            own=same_hands(makers, record.author, principal.id),
            solo=solo,
            again=any(same_hands(makers, principal.id, other) for other in record.approvals),
        )
        _check_digest(record, body)
        return record, solo

    def _record(self, proposal: ProposalId) -> ProposalRecord:
        record = self._projection.state.proposals.get(proposal)
        if record is None:
            raise NotFound(
                f"There is no proposal {proposal}, or it was settled too long ago.",
                hint="`angelos proposal list` lists them; older ones are in the audit log.",
            )
        return record


def single_results(step: StepResult, result: TaskResult) -> tuple[CaseReport, ...]:
    """Return the single results of a step: its runner's, or what its program printed of them."""
    if result.report is not None:
        return tuple(case for case in result.report.cases if not case.sentinel)
    for read in (result_files.read_sarif, result_files.read_junit):
        try:
            return read(result.stdout)
        except InvalidInput:
            continue
    good = result.status == "ok"
    outcome = CaseOutcome.passed if good else CaseOutcome.failed
    return (CaseReport(case=step.name, outcome=outcome, seconds=result.duration_s),)


def _check_digest(record: ProposalRecord, body: Review) -> None:
    if body.digest != record.digest:
        raise Conflict(
            f"What was reviewed is not what {record.id} holds; nothing was counted.",
            hint="Look at the proposal again and give the digest that it shows.",
            digest=record.digest,
        )


def _received(
    proposed: Proposed, generation: int, *, live: bool = False, kernel: bool
) -> ProposalReceived:
    return ProposalReceived(
        repo=proposed.repo,
        base=proposed.base,
        digest=proposed.digest,
        message=proposed.message,
        author=proposed.author,
        paths=tuple(change.path for change in proposed.changes),
        changes=short_diffs(proposed.changes),
        generation=generation,
        live=live,
        kernel=kernel,
    )


def _bounded(conflicts: Any) -> tuple[Any, ...]:
    """Return the first conflicts with each text cut, as plain data."""
    plain = msgspec.to_builtins(conflicts)
    rows = plain[:KEEP_CONFLICTS] if isinstance(plain, list | tuple) else [plain]
    return tuple(
        {
            str(key): value[:KEEP_TEXT] if isinstance(value, str) else value
            for key, value in row.items()
        }
        if isinstance(row, dict)
        else str(row)[:KEEP_TEXT]
        for row in rows
    )


def _is_of(record: ProposalRecord, state: ProposalState | None, repo: str, author: str) -> bool:
    return (
        state in {None, record.state}
        and repo in {"", record.repo}
        and author in {"", record.author}
    )
