"""Ends quarantines, and shows what is to be known before one is begun or ended.

    view = await quarantines.show(PrincipalId("agent/eve"))     # its changes, each tried to undo
    await quarantines.release(olga, PrincipalId("agent/eve"))   # the first person asks
    await quarantines.release(ann, PrincipalId("agent/eve"))    # the second lets it go on

The release needs two people, or one who works alone (`review.solo`). The certificate is good again
unless its key is to be replaced; for a day everything that the principal proposes waits for a
person.
"""

from __future__ import annotations

from angelos.control.context import ControlContext
from angelos.control.proposals.pipeline import Pipeline
from angelos.control.state.models import ControlState, ProposalRecord
from angelos.control.state.quarantines import on_probation, second
from angelos.core.api import ChangeView, QuarantineView, Released
from angelos.core.errors import AngelError, Conflict, NotFound, Stale
from angelos.core.facts import PrincipalReleaseAsked
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal

PROBATION_S = 24 * 3600.0
_MAX_CHANGES = 200
_MAX_TRIED = 50
"""Undoing is tried for so many of the newest merged changes: each is a merge."""


class Quarantines:
    """What people ask for about nodes and agents that are shut out."""

    def __init__(self, context: ControlContext, pipeline: Pipeline) -> None:
        self._context = context
        self._projection = context.projection
        self._pipeline = pipeline

    async def check(self, principal: PrincipalId) -> None:
        """Return if there is such a principal; raise `NotFound`."""
        if not await self._context.signals.knows(principal):
            kind = principal.partition("/")[0]
            raise NotFound(
                f"There is no {principal[:120]}.", hint=f"`angelos {kind} list` names them."
            )

    async def release(
        self, by: Principal, principal: PrincipalId, *, new_key: bool = False, trace: str = ""
    ) -> Released:
        """Ask for a release, or end the quarantine that somebody else asked to end.

        Args:
            by: Who asks; two who count as one person are one.
            principal: Who is quarantined.
            new_key: Its certificate stays void, and it has to join again.
            trace: Of the request.

        Raises:
            NotFound: There is no such principal.
            Conflict: It is not quarantined.
        """
        await self.check(principal)
        if not await self._context.signals.is_quarantined(principal):
            raise Conflict(f"{principal} is not quarantined.")
        state, now = self._projection.state, self._context.clock.time()
        if not second(state, principal, by.id, now) and not await self._alone(by.id):
            ask = state.release_asks.get(principal)
            if ask is None or ask.by != by.id:
                fact = PrincipalReleaseAsked(new_key=new_key)
                await self._projection.append(
                    self._projection.fact(fact, principal, by.id, trace=trace)
                )
            return Released(released=False, needs=1, probation_until=None)
        until = now + PROBATION_S
        await self._context.signals.release(
            principal, by=by.id, new_key=new_key, probation_until=until
        )
        return Released(released=True, needs=0, probation_until=until)

    async def _alone(self, person: PrincipalId) -> bool:
        """Return whether one person alone reviews every repository that there is."""
        repos = await self._context.repository.repos()
        return bool(repos) and all([await self._pipeline.solo(repo, person) for repo in repos])

    async def show(self, principal: PrincipalId) -> QuarantineView:
        """Return how a principal stands, and its changes, each merged one tried to undo.

        Raises:
            NotFound: There is no such principal.
        """
        await self.check(principal)
        state = self._projection.state
        note, ask = state.quarantine_notes.get(principal), state.release_asks.get(principal)
        merged, waiting = _changes(state, principal)
        return QuarantineView(
            principal=principal,
            quarantined=await self._context.signals.is_quarantined(principal),
            reason=note.reason if note else "",
            since=note.at if note else None,
            release_asked_by=ask.by if ask else None,
            probation_until=state.probation.get(principal)
            if on_probation(state, principal, self._context.clock.time())
            else None,
            tasks_open=sum(t.open and principal in {t.by, t.node} for t in state.tasks.values()),
            merged=tuple([await self._tried(p, n) for n, p in enumerate(merged)]),
            unmerged=tuple(_change(p, "") for p in waiting),
        )

    async def _tried(self, proposal: ProposalRecord, number: int) -> ChangeView:
        """Return a change with what undoing it would meet; nothing is changed."""
        if number >= _MAX_TRIED:
            return _change(proposal, "not tried")
        try:
            await self._context.repository.revert_draft(proposal.id)
        except Stale:
            return _change(proposal, "later work changed the same lines")
        except Conflict:
            return _change(proposal, "undone")
        except AngelError as error:
            return _change(proposal, str(error))
        return _change(proposal, "clean")


def _changes(
    state: ControlState, principal: PrincipalId
) -> tuple[list[ProposalRecord], list[ProposalRecord]]:
    """Return somebody's merged changes and those under way, the newest first."""
    own = [p for p in reversed(state.proposals.values()) if p.author == principal]
    merged = [p for p in own if p.state == "promoted" or p.merged]
    waiting = [p for p in own if p.open and not p.merged]
    return merged[:_MAX_CHANGES], waiting[:_MAX_CHANGES]


def _change(proposal: ProposalRecord, undo: str) -> ChangeView:
    return ChangeView(
        proposal=proposal.id,
        repo=proposal.repo,
        state=proposal.state,
        message=proposal.message[:200],
        paths=proposal.paths[:100],
        undo=undo,
        at=proposal.at,
    )
