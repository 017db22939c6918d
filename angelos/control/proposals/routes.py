"""Routes of proposals."""

from __future__ import annotations

from typing import cast

from angelos.control.proposals.service import ProposalService
from angelos.control.service import Control
from angelos.core.api import (
    CaseList,
    PartReview,
    ProposalDiff,
    ProposalList,
    ProposalState,
    ProposalView,
    Reason,
    Review,
    SubmitProposal,
)
from angelos.core.history import PickRevision
from angelos.core.ids import ProposalId
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, choice, limit, period, wait_seconds


def routes(control: Control) -> list[Route]:
    """Return the routes of proposals and their review."""
    proposals = control.proposals
    return [
        *_proposing(proposals),
        *_results(proposals),
        *_whole(proposals),
        *_reverting(proposals),
        *_reviewing(proposals),
    ]


def _results(proposals: ProposalService) -> list[Route]:
    async def cases(call: Call[Nothing]) -> CaseList:
        return proposals.cases(ProposalId(call.params["proposal"]))

    async def history(call: Call[Nothing]) -> CaseList:
        return proposals.history(call.params["repo"])

    async def junit(call: Call[Nothing]) -> bytes:
        return proposals.junit(ProposalId(call.params["proposal"]))

    async def sarif(call: Call[Nothing]) -> bytes:
        return proposals.sarif(ProposalId(call.params["proposal"]))

    read = Permission.proposals_read
    return [
        Route(
            "GET",
            "/proposals/{proposal}/tests",
            read,
            cases,
            response=CaseList,
            summary="Each test of a proposal, with its history",
        ),
        Route(
            "GET",
            "/repos/{repo}/tests",
            read,
            history,
            response=CaseList,
            summary="Each test of a repository, with how it ended lately",
        ),
        Route(
            "GET",
            "/proposals/{proposal}/junit",
            read,
            junit,
            response=bytes,
            media_type="application/xml",
            summary="The tests of a proposal as JUnit XML",
        ),
        Route(
            "GET",
            "/proposals/{proposal}/sarif",
            read,
            sarif,
            response=bytes,
            media_type="application/sarif+json",
            summary="What is to be looked at in a proposal, as SARIF 2.1.0",
        ),
    ]


def _whole(proposals: ProposalService) -> list[Route]:
    async def diff(call: Call[Nothing]) -> ProposalDiff:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.diff(call.principal, proposal, call.query.get("after", ""))

    return [
        Route(
            "GET",
            "/proposals/{proposal}/diff",
            Permission.proposals_read,
            diff,
            response=ProposalDiff,
            query=("after",),
            summary="The whole change as it would become main, in pages; approving a long one "
            "needs what the last page gives",
        ),
    ]


def _reverting(proposals: ProposalService) -> list[Route]:
    async def revert(call: Call[Reason]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.revert(call.principal, proposal, call.body, call.trace)

    async def pick(call: Call[PickRevision]) -> ProposalView:
        repo = call.params["repo"]
        return await proposals.cherry_pick(call.principal, repo, call.body.revision, call.trace)

    return [
        Route(
            "POST",
            "/proposals/{proposal}/revert",
            Permission.proposals_create,
            revert,
            request=Reason,
            response=ProposalView,
            status=202,
            summary="Propose to take a proposal's edits back, around later work",
        ),
        Route(
            "POST",
            "/repos/{repo}/cherry-pick",
            Permission.proposals_create,
            pick,
            request=PickRevision,
            response=ProposalView,
            status=202,
            summary="Propose to do again on main what a commit of another branch changed",
        ),
    ]


def _proposing(proposals: ProposalService) -> list[Route]:
    async def propose(call: Call[SubmitProposal]) -> ProposalView:
        return await proposals.propose(call.principal, call.params["repo"], call.body, call.trace)

    async def list_proposals(call: Call[Nothing]) -> ProposalList:
        state = cast("ProposalState | None", choice(call.query, "state", ProposalState))
        repo = call.query.get("repo", "")
        author, after = call.query.get("author", ""), call.query.get("after", "")
        within = period(call)
        return proposals.list(state, repo, limit(call), author=author, after=after, period=within)

    async def show(call: Call[Nothing]) -> ProposalView:
        return await proposals.view(ProposalId(call.params["proposal"]), wait_seconds(call))

    return [
        Route(
            "POST",
            "/repos/{repo}/proposals",
            Permission.proposals_create,
            propose,
            request=SubmitProposal,
            response=ProposalView,
            status=202,
            summary="Propose edits against a base revision",
        ),
        Route(
            "GET",
            "/proposals",
            Permission.proposals_read,
            list_proposals,
            response=ProposalList,
            query=("state", "repo", "author", "since", "until", "after", "limit"),
            summary="Proposals, newest first, by state, repository, author and time",
        ),
        Route(
            "GET",
            "/proposals/{proposal}",
            Permission.proposals_read,
            show,
            response=ProposalView,
            query=("wait",),
            summary="A proposal; wait=seconds waits until it is settled",
        ),
    ]


def _reviewing(proposals: ProposalService) -> list[Route]:
    async def approve(call: Call[Review]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.approve(call.principal, proposal, call.body, call.trace)

    async def accept(call: Call[PartReview]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.accept(call.principal, proposal, call.body, call.trace)

    async def reject(call: Call[PartReview]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.reject(call.principal, proposal, call.body, call.trace)

    return [
        Route(
            "POST",
            "/proposals/{proposal}/approve",
            Permission.proposals_review,
            approve,
            request=Review,
            response=ProposalView,
            summary="Approve what the digest names",
        ),
        Route(
            "POST",
            "/proposals/{proposal}/accept",
            Permission.documents_edit,
            accept,
            request=PartReview,
            response=ProposalView,
            summary="Let a proposal, or a part of it, enter the live documents; its tests go on",
        ),
        Route(
            "POST",
            "/proposals/{proposal}/reject",
            Permission.proposals_review,
            reject,
            request=PartReview,
            response=ProposalView,
            summary="Reject a proposal, or a part of it",
        ),
    ]
