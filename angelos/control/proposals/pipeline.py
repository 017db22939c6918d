"""A proposal's way from the door to `main`: the handlers of its effects, in that order.

    merge -> make_candidate -> run_steps -> judge -> promote      or reject -> revert

Each looks at the present state first, does one thing, and says it in a fact; the fact brings
about the next one (`state.py`). So each may be repeated, and the process may die anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Unpack

from angelos.control.context import Parts
from angelos.control.identity.people import People
from angelos.control.proposals import repo_config, steps
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
    RunSteps,
)
from angelos.control.state.models import SUPERVISOR, ProposalRecord, State
from angelos.control.state.proposals import counted, short_diffs
from angelos.control.tasks.service import Origin, Tasks
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
    FactPayload,
    Header,
    ProposalApproved,
    ProposalMerged,
    ProposalPromoted,
    ProposalRejected,
    ProposalReverted,
    ProposalTested,
    ProposalTesting,
    ProposalWaiting,
    TaskCancelled,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision

log = logging.getLogger(__name__)

_UNFIT = (Stale, Conflict, InvalidInput, NotFound, Refused)
"""What a repository says when a proposal cannot be merged, however often one tries."""


class Pipeline:
    """Carries proposals on."""

    def __init__(self, parts: Parts, tasks: Tasks, people: People) -> None:
        """Share the plane's parts; steps are ordinary tasks."""
        self._parts = parts
        self._people = people
        self._ledger = parts.ledger
        self._repository = parts.repository
        self._tasks = tasks

    async def config(self, repo: str, main: Revision) -> RepoConfig:
        """Return the configuration of a `main`; raise `InvalidInput` when it cannot be read."""
        try:
            return repo_config.parse(await self._repository.read(repo, main, repo_config.FILE))
        except NotFound:
            return RepoConfig()

    # -- into dev ----------------------------------------------------------------------------

    async def merge(self, effect: Merge) -> None:
        """Merge a received proposal into the live documents of `dev`."""
        record = self._in(effect.proposal, "received")
        if record is None:
            return
        async with self._parts.locks[record.repo]:
            if self._in(effect.proposal, "received") is None:
                return
            try:
                dev = await self._repository.merge(record.id)
            except _UNFIT as error:
                await self._say_rejected(record, f"It could not be merged into dev: {error.detail}")
                return
            await self._say(ProposalMerged(), record, revision=dev)

    # -- tests -------------------------------------------------------------------------------

    async def make_candidate(self, effect: MakeCandidate) -> None:
        """Make what `main` would become, if it is this proposal's turn."""
        record = self._in(effect.proposal, "merged")
        if record is None:
            return
        async with self._parts.locks[record.repo]:
            record = self._in(effect.proposal, "merged")
            if record is not None and turn(self._ledger.state, record.repo) == record:
                await self._candidate(record)

    async def _candidate(self, record: ProposalRecord) -> None:
        try:
            candidate = await self._repository.candidate(record.id)
            if repo_config.FILE in (change.path for change in candidate.changes):
                await self.config(record.repo, candidate.revision)
        except _UNFIT as error:
            await self._say_rejected(record, f"It does not fit main: {error.detail}")
            return
        testing = ProposalTesting(
            main=candidate.main, tree=candidate.tree, changes=short_diffs(candidate.changes)
        )
        await self._say(testing, record, revision=candidate.revision)

    async def run_steps(self, effect: RunSteps) -> None:
        """Run all steps at once; the first that fails ends the others."""
        record = self._under_test(effect.proposal, effect.candidate)
        if record is None or record.candidate_main is None or record.outcome:
            return
        try:
            config = await self.config(record.repo, record.candidate_main)
        except InvalidInput as error:
            # Only people can mend main's own configuration, and they have to be able to.
            mends = repo_config.FILE in record.paths
            reason = f"No tests ran, because main's {error.detail}"
            await self._say_tested(record, "passed" if mends else "failed", reason, [])
            return
        keep, attempts = self._parts.config.step_output, self._parts.config.step_attempts
        while self._under_test(effect.proposal, effect.candidate) is not None:
            seen = self._ledger.state
            runs = steps.runs(seen, record.id, effect.candidate, config.pipeline.steps, attempts)
            outcome, reason = steps.verdict(runs, keep)
            if outcome:
                await self._stop_others(runs, reason)
                await self._say_tested(record, outcome, reason, runs)
                return
            for run in runs:
                if run.task is None:
                    await self._start(record, effect.candidate, config, run)
            await self._ledger.until(lambda now, seen=seen: now is not seen)

    async def _start(
        self, record: ProposalRecord, candidate: Revision, config: RepoConfig, run: steps.Run
    ) -> None:
        """Have a step accepted on the least busy node; without a node it has to wait."""
        node = self._tasks.least_busy()
        if node is None:
            return
        body = steps.request(record.repo, candidate, config.pipeline, run.step, run.command)
        decision = self._parts.decide_system(
            "run",
            ("Node", node.id),
            pipeline=True,
            quarantined=False,
            **self._tasks.context(body, node),
        )
        origin = Origin(
            by=SUPERVISOR, on_behalf_of=record.author, proposal=record.id, trace=record.trace
        )
        await self._tasks.accept(origin, run.command, body, node.id, decision)

    async def _stop_others(self, runs: list[steps.Run], reason: str) -> None:
        facts = [
            self._ledger.fact(TaskCancelled(reason=reason.partition(":")[0]), run.task.id)
            for run in runs
            if run.task is not None and run.task.open
        ]
        if facts:
            await self._ledger.say(*facts)

    async def _say_tested(
        self, record: ProposalRecord, outcome: str, reason: str, runs: list[steps.Run]
    ) -> None:
        done = steps.results(runs, self._parts.config.step_output)
        tested = ProposalTested(reason=reason, steps=done)
        await self._say(tested, record, revision=record.candidate, outcome=outcome)

    # -- judgement ---------------------------------------------------------------------------

    async def judge(self, effect: Judge) -> None:
        """Approve by policy, ask for people, or reject what failed."""
        record = self._under_test(effect.proposal, effect.candidate)
        if record is None or not record.outcome or record.candidate_main is None:
            return
        if record.outcome == "failed":
            await self._reject(record.id, record.reason)
            return
        judgement = await self.judgement(record, record.candidate_main)
        approvals = counted(record.approvals, record.author, solo=judgement.solo)
        if judgement.needs is None:
            await self._reject(record.id, f"The policy lets nobody promote it: {judgement.reason}")
        elif judgement.needs <= len(approvals):
            reason = _approved_because(approvals, judgement)
            approved = ProposalApproved(
                digest=record.digest,
                actor_kind="policy",
                reason=reason,
                risk=judgement.risk,
                rule=",".join(judgement.rules),
                solo=judgement.solo,
                policy_paths=touched(record.paths, POLICY_PATHS),
            )
            await self._say(approved, record)
        else:
            waiting = ProposalWaiting(
                needs=judgement.needs,
                reason=judgement.reason,
                risk=judgement.risk,
                rule=",".join(judgement.rules),
                solo=judgement.solo,
                policy_paths=touched(record.paths, POLICY_PATHS),
            )
            await self._say(waiting, record, revision=record.candidate)

    async def judgement(self, record: ProposalRecord, main: Revision) -> Judgement:
        """Return what a tested proposal needs as of now, by the configuration of this `main`."""
        try:
            config = await self.config(record.repo, main)
        except InvalidInput:
            config = RepoConfig()
        solo = await self.solo(record.repo)
        return judge(self._parts.policy, record, config, solo=solo)

    async def solo(self, repo: str) -> bool:
        """Return whether one person alone reviews this repository as of now."""
        try:
            config = await self.config(repo, await self._repository.head(repo, "main"))
        except InvalidInput:
            return False
        return config.review.solo and alone(config.review, await self._people.list())

    # -- main --------------------------------------------------------------------------------

    async def promote(self, effect: Promote) -> None:
        """Move `main` to the candidate by compare-and-set; re-make it if `main` has moved."""
        record = self._in(effect.proposal, "approved")
        if record is None:
            return
        async with self._parts.locks[record.repo]:
            record = self._in(effect.proposal, "approved")
            if record is None or record.candidate is None:
                return
            if turn(self._ledger.state, record.repo) != record:
                return
            main = await self._repository.head(record.repo, "main")
            if main not in (record.candidate, record.candidate_main):
                await self._candidate(record)
                return
            if main != record.candidate:
                try:
                    await self._repository.advance(record.repo, record.candidate, main)
                except Conflict:
                    await self._candidate(record)
                    return
            promoted = ProposalPromoted(repo=record.repo, before=record.candidate_main)
            await self._say(promoted, record, revision=record.candidate)

    async def reject(self, effect: Reject) -> None:
        """Reject in the supervisor's name."""
        await self._reject(effect.proposal, effect.reason)

    async def _reject(self, proposal: ProposalId, reason: str) -> None:
        record = self._ledger.state.proposals.get(proposal)
        if record is None:
            return
        async with self._parts.locks[record.repo]:
            await self.reject_locked(proposal, reason)

    async def reject_locked(self, proposal: ProposalId, reason: str) -> None:
        """Reject unless it became `main` without our having said so; the lock is held."""
        record = self._ledger.state.proposals.get(proposal)
        if record is None or not record.undecided:
            return
        if await self.is_main(record):
            log.info("%s is main already and is not rejected: %s", record.id, reason)
            return
        await self._say_rejected(record, reason)

    async def is_main(self, record: ProposalRecord) -> bool:
        """Tell whether an approved candidate has become `main` before a crash."""
        if record.state != "approved":
            return False
        return await self._repository.head(record.repo, "main") == record.candidate

    async def revert(self, effect: Revert) -> None:
        """Take a rejected proposal's edits out of `dev` again."""
        record = self._in(effect.proposal, "rejected")
        if record is None or record.reverted:
            return
        dev, kept = None, ""
        try:
            dev = await self._repository.revert(record.id)
        except (Unavailable, Busy):
            raise
        except AngelError as error:
            if not record.merged:
                # It was rejected before, or because, it could not be merged.
                log.info("%s was not in dev: %s", record.id, error)
            elif isinstance(error, Conflict):
                # Others have changed the same lines since: theirs would go with them.
                kept = f"Its edits stay in dev, where others went on with them: {error}"
                log.warning("%s: %s", record.id, kept)
            else:
                raise
        reverted = ProposalReverted(was_in_dev=dev is not None or bool(kept), reason=kept)
        await self._say(reverted, record, revision=dev, outcome="kept" if kept else "ok")

    # -- helpers -----------------------------------------------------------------------------

    def _in(self, proposal: ProposalId, state: str) -> ProposalRecord | None:
        record = self._ledger.state.proposals.get(proposal)
        return record if record is not None and record.state == state else None

    def _under_test(self, proposal: ProposalId, candidate: Revision) -> ProposalRecord | None:
        record = self._in(proposal, "testing")
        return record if record is not None and record.candidate == candidate else None

    async def _say_rejected(self, record: ProposalRecord, reason: str) -> None:
        await self._say(ProposalRejected(reason=reason), record)

    async def _say(
        self, payload: FactPayload, record: ProposalRecord, **header: Unpack[Header]
    ) -> None:
        header.setdefault("trace", record.trace)
        header.setdefault("on_behalf_of", record.author)
        await self._ledger.say(self._ledger.fact(payload, record.id, **header))


def _approved_because(approvals: Sequence[PrincipalId], judgement: Judgement) -> str:
    if not approvals:
        return judgement.reason
    return f"Approved by {', '.join(approvals)}; the new candidate passed its tests."


def under_way(state: State, repo: str) -> int:
    """Return how many proposals of a repository are not decided yet."""
    return sum(p.repo == repo and p.undecided for p in state.proposals.values())
