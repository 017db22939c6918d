"""Generations and the door for proposals in memory.

For example:

    generations = MemoryGenerations()
    intake = MemoryIntake(MemoryRepository(), generations)
    standing = await generations.begin(PrincipalId("agent/ada"))
    receipt = await intake.submit(submission)
"""

from __future__ import annotations

from collections.abc import Callable

from angelos.adapters.host.clock import SystemClock
from angelos.core.branches import BranchName
from angelos.core.errors import (
    AngelError,
    Busy,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision, is_principal, is_revision
from angelos.core.intake import (
    IntakeNext,
    IntakeReceipt,
    Submission,
    check_submission,
)
from angelos.core.pending import Pending, PendingState, ProposalDraft, draft_digest, part_of
from angelos.core.ports import Clock, Generations
from angelos.core.principals import (
    ActingSession,
    EndCause,
    Generation,
    Standing,
    check_current,
    ended,
)
from angelos.testing.repository import MemoryRepository

_BUSY_S = 60.0


class MemoryGenerations:
    """`core.ports.Generations` in a dictionary."""

    def __init__(self) -> None:
        self._standings: dict[PrincipalId, Standing] = {}

    async def begin(self, principal: PrincipalId) -> Standing:
        """Let a new principal act, or one whose quarantine has ended."""
        if not is_principal(principal):
            raise InvalidInput(f"{principal[:80]!r} is no principal's id.")
        old = self._standings.get(principal)
        if old is not None and old.cause is EndCause.removed:
            raise Conflict(f"{principal} was removed; its id is never used again.")
        generation = old.generation if old is not None else Generation(1)
        cause = old.cause if old is not None else None
        standing = Standing(principal=principal, generation=generation, cause=cause)
        self._standings[principal] = standing
        return standing

    async def standing(self, principal: PrincipalId) -> Standing:
        """Return how a principal stands."""
        if principal not in self._standings:
            raise NotFound(f"Nobody has had the id {principal}.")
        return self._standings[principal]

    async def end(
        self, principal: PrincipalId, generation: Generation, cause: EndCause
    ) -> Standing:
        """End a generation and return the standing of the next."""
        standing = ended(await self.standing(principal), generation, cause)
        self._standings[principal] = standing
        return standing


def _anybody(_: Submission) -> bool:
    return True


def _nobody(_: Submission) -> bool:
    return False


class MemoryIntake:
    """`core.ports.ProposalIntake` over a repository in memory; policy is what the test says."""

    def __init__(
        self,
        repository: MemoryRepository,
        generations: Generations,
        *,
        may_propose: Callable[[Submission], bool] = _anybody,
        may_enter: Callable[[Submission], bool] = _nobody,
        clock: Clock | None = None,
        max_open: int = 100,
    ) -> None:
        """Take who may propose what, who may enter it `live`, and the limit for each author."""
        self.repository = repository
        self.generations = generations
        self.refusals: list[tuple[ProposalId, str]] = []
        """Id and code of each refusal, as a fact would keep them."""
        self._may_propose = may_propose
        self._may_enter = may_enter
        self._clock = clock or SystemClock()
        self._max_open = max_open

    async def submit(self, submission: Submission) -> IntakeReceipt:
        """Decide whether the author may propose this, and keep it."""
        try:
            return await self._submit(submission)
        except AngelError as error:
            self.refusals.append((submission.id, error.code))
            raise

    async def _submit(self, submission: Submission) -> IntakeReceipt:
        author = submission.session.principal
        await self._check_session(submission.session)
        named = check_submission(submission)
        existing = await self._existing(submission.id)
        again = existing is not None and _is_same(submission, existing)
        if existing is not None:
            if existing.author != author or existing.repo != submission.repo:
                raise Conflict(f"{submission.id} is another proposal.")
            cut_off = submission.live and existing.state is PendingState.open
            if again and not cut_off:
                return _receipt(existing, duplicate=True)
        if not self._may_propose(submission):
            raise Forbidden(f"{author} may not propose this.")
        if submission.live and not self._may_enter(submission):
            raise Forbidden(f"{author} may not enter this at once.", hint="Propose it for review.")
        if existing is None:
            await self._check_room(submission.repo, author)
        base = await self._base(submission.repo, named)
        if again and existing is not None:
            base = existing.base
        pending = await self.repository.propose(_draft(submission, base))
        if submission.live:
            await self.repository.accept(part_of(pending), author)
            pending = await self.repository.pending(pending.id)
        return _receipt(pending)

    async def find(self, proposal: ProposalId, session: ActingSession) -> IntakeReceipt:
        """Return the receipt of a proposal as it is now."""
        await self._check_session(session)
        pending = await self.repository.pending(proposal)
        if pending.author != session.principal and not session.principal.startswith("person/"):
            raise NotFound(f"There is no proposal {proposal}.")
        return _receipt(pending, duplicate=True)

    async def _check_session(self, session: ActingSession) -> None:
        try:
            standing = await self.generations.standing(session.principal)
        except NotFound as error:
            raise Unauthenticated(f"{session.principal} is nobody.") from error
        check_current(session, standing, self._clock.time())

    async def _existing(self, proposal: ProposalId) -> Pending | None:
        try:
            return await self.repository.pending(proposal)
        except NotFound:
            return None

    async def _base(self, repo: str, named: Revision | BranchName) -> Revision:
        if is_revision(named):
            return Revision(named)
        return (await self.repository.branch(repo, BranchName(named))).revision

    async def _check_room(self, repo: str, author: PrincipalId) -> None:
        rows = await self.repository.list_pending(repo, limit=1_000)
        if sum(row.author == author for row in rows) >= self._max_open:
            raise Busy(
                f"{author} has {self._max_open} open proposals.",
                hint="Try again when some are decided.",
                retry_after_s=_BUSY_S,
            )


def _draft(submission: Submission, base: Revision) -> ProposalDraft:
    return ProposalDraft(
        id=submission.id,
        repo=submission.repo,
        base=base,
        edits=submission.edits,
        author=submission.session.principal,
        message=submission.message,
        task=submission.task,
        replaces=submission.replaces,
    )


def _is_same(submission: Submission, pending: Pending) -> bool:
    """Return whether this was handed in before; a branch was resolved to its base then."""
    same_base = not is_revision(submission.base) or submission.base == pending.base
    return same_base and draft_digest(_draft(submission, pending.base)) == pending.digest


def _receipt(pending: Pending, *, duplicate: bool = False) -> IntakeReceipt:
    decided = pending.state in {PendingState.promoted, PendingState.withdrawn}
    waits = pending.state in {PendingState.open, PendingState.stale}
    following = IntakeNext.review if waits else IntakeNext.testing
    following = IntakeNext.settled if decided else following
    return IntakeReceipt(
        id=pending.id,
        repo=pending.repo,
        digest=pending.digest,
        base=pending.base,
        author=pending.author,
        state=pending.state,
        next=following,
        live=pending.state in {PendingState.accepted, PendingState.promoted},
        duplicate=duplicate,
    )
