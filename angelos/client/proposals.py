"""Proposals: edits on their way to `main`, tested and then approved by policy or by people.

For example:

    edit = NewText(path="study/mean.py", text=...)
    proposal = await angelos.proposals.create("study", [edit], base=revision, message="Add a mean")
    view = await proposal.settled()              # tests have run; promoted, refused or waiting
    if view.state == "waiting":
        await proposal.approve(view.digest)      # exactly the edits that were read
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from angelos.client.events import PATIENCE_S
from angelos.client.transport import Transport, segments
from angelos.core import api
from angelos.core.errors import Unavailable
from angelos.core.ids import ProposalId, new_proposal_id
from angelos.core.pending import PartChoice, Pending
from angelos.core.repository import Edit

_LONGEST_WAIT_S = 60.0
"""The server answers after this time at the latest."""
_PAUSE_S = 1.0
"""Between two attempts to reach a lost server."""


class Proposal:
    """A handle on one proposal; `angelos.proposals[id]` and `create` give one.

    Attributes:
        id: The proposal's id, such as `prop-0193...`.
    """

    def __init__(self, transport: Transport, proposal: str) -> None:
        self.id = ProposalId(proposal)
        self._transport = transport

    def __repr__(self) -> str:
        return f"Proposal({self.id!r})"

    async def view(self, wait: float = 0) -> api.ProposalView:
        """Return the proposal as it is now.

        Args:
            wait: Seconds to wait first until it is settled; the server bounds them (60).

        Returns:
            Its state and the reason for it, its changes, test results and approvals.

        Raises:
            NotFound: There is no such proposal.
            Unavailable: The server cannot be reached.
        """
        return await self._transport.call(
            "GET",
            "/proposals" + segments(self.id),
            api.ProposalView,
            query={"wait": wait or None},
            patience_s=wait,
        )

    async def settled(self) -> api.ProposalView:
        """Wait until the proposal is decided, or waits for people to approve it.

        A restart of the server is survived. Use `asyncio.timeout` to wait no longer than that.

        Returns:
            The proposal in one of the states of `angelos.core.api.SETTLED`.

        Raises:
            NotFound: There is no such proposal.
            Unavailable: The server cannot be reached for a minute.
        """
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        while True:
            try:
                view = await self.view(wait=_LONGEST_WAIT_S)
            except Unavailable:
                lost_at = loop.time() if lost_at is None else lost_at
                if loop.time() - lost_at > PATIENCE_S:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            if view.state in api.SETTLED:
                return view
            lost_at = None

    async def diff(self) -> AsyncIterator[api.ProposalDiff]:
        """Yield the whole change, as it would become `main`, a page at a time.

        The last page has `shown`, which `approve` needs where the view is `long`.

        Raises:
            Conflict: It has no candidate: it is not tested yet.
            NotFound: There is no such proposal.
        """
        after = ""
        while True:
            page = await self._transport.call(
                "GET",
                "/proposals" + segments(self.id, "diff"),
                api.ProposalDiff,
                query={"after": after or None},
            )
            yield page
            if not page.next:
                return
            after = page.next

    async def tests(self) -> api.CaseList:
        """Return each test of the proposal, how it ended, and how it ended before.

        Raises:
            NotFound: There is no such proposal.
        """
        return await self._transport.call(
            "GET", "/proposals" + segments(self.id, "tests"), api.CaseList
        )

    async def junit(self) -> bytes:
        """Return the proposal's tests as JUnit XML.

        Raises:
            NotFound: There is no such proposal.
        """
        return await self._transport.fetch("GET", "/proposals" + segments(self.id, "junit"))

    async def sarif(self) -> bytes:
        """Return what is to be looked at in the proposal as SARIF 2.1.0.

        Raises:
            NotFound: There is no such proposal.
        """
        return await self._transport.fetch("GET", "/proposals" + segments(self.id, "sarif"))

    async def approve(self, digest: str, comment: str = "", *, shown: str = "") -> api.ProposalView:
        """Approve exactly the edits that `digest` names.

        Args:
            digest: The `digest` of the view that was read.
            comment: A comment on it; kept in the audit log.
            shown: What the last page of `diff` gave; needed where the view is `long`.

        Returns:
            The proposal after it.

        Raises:
            Conflict: The proposal has another digest, or is decided already.
            Forbidden: The caller may not approve it; nobody approves their own.
            NotShown: It is `long`, and `shown` is not what the last page of `diff` gave.
            NotFound: There is no such proposal.
        """
        return await self._review("approve", digest, comment, shown=shown)

    async def pending(self) -> Pending:
        """Return the proposal in hunks, tried against the live text of this moment.

        Raises:
            NotFound: There is no such proposal.
        """
        return await self._transport.call(
            "GET", "/proposals" + segments(self.id, "pending"), Pending
        )

    async def accept(
        self, digest: str, comment: str = "", *, part: PartChoice | None = None
    ) -> api.ProposalView:
        """Let the proposal enter the live documents of `dev`; `main` still needs its tests.

        It is the caller's approval where they may approve it.

        Args:
            digest: The `digest` of the view that was read.
            comment: Why; kept in the audit log if this is an approval too.
            part: Only these cells, hunks or files: they become a proposal of their own, with the
                same author, and the rest stays open.

        Returns:
            The proposal after it, or the one that the part has become.

        Raises:
            Conflict: The proposal has another digest, or is decided already.
            Forbidden: The caller may not edit live documents.
            InvalidInput: Some of the part is not in the proposal.
            NotFound: There is no such proposal.
            Stale: The same lines have changed in `dev` since; `extra["changed"]` says how.
        """
        return await self._review("accept", digest, comment, part)

    async def revert(self, reason: str = "") -> api.ProposalView:
        """Propose to take this proposal's edits back, around everybody's later work.

        Args:
            reason: Why; part of the message.

        Returns:
            The new proposal, which is tested and judged like any other.

        Raises:
            Conflict: Nothing of it is in `dev` or `main`, or it is taken back already.
            Forbidden: The caller may not propose this.
            NotFound: There is no such proposal.
            Stale: Later work changed the same lines.
        """
        path = "/proposals" + segments(self.id, "revert")
        body = api.Reason(reason=reason)
        return await self._transport.call("POST", path, api.ProposalView, body=body)

    async def reject(
        self, digest: str, comment: str = "", *, part: PartChoice | None = None
    ) -> api.ProposalView:
        """Reject the proposal; if it was accepted its edits are taken out of `dev` again.

        Args:
            digest: The `digest` of the view that was read.
            comment: Why; kept in the audit log.
            part: Only these cells, hunks or files of a proposal that waits; the rest goes on,
                under another digest.

        Returns:
            The proposal after it.

        Raises:
            Conflict: The proposal has another digest, or is decided already.
            Forbidden: The caller may not review.
            InvalidInput: Some of the part is not in the proposal.
            NotFound: There is no such proposal.
        """
        return await self._review("reject", digest, comment, part)

    async def _review(
        self,
        verdict: str,
        digest: str,
        comment: str,
        part: PartChoice | None = None,
        shown: str = "",
    ) -> api.ProposalView:
        path = "/proposals" + segments(self.id, verdict)
        body = api.Review(digest=digest, comment=comment, shown=shown)
        if part is not None:
            body = api.PartReview(digest=digest, comment=comment, part=part)
        return await self._transport.call("POST", path, api.ProposalView, body=body)


class ProposalCollection:
    """All proposals of a system: `angelos.proposals`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getitem__(self, proposal: str) -> Proposal:
        """Return a handle on a proposal, without a request.

        Args:
            proposal: The proposal's id.
        """
        return Proposal(self._transport, proposal)

    async def list(
        self, state: str = "", repo: str = "", limit: int = 50
    ) -> tuple[api.ProposalView, ...]:
        """Return proposals, newest first.

        Args:
            state: Only those in this state, such as `waiting` (`api.ProposalState`).
            repo: Only those of this repository.
            limit: At most so many.

        Raises:
            InvalidInput: There is no such state, or the limit is out of bounds.
            Forbidden: The caller may not read proposals.
        """
        return (await self.page(state, repo, limit)).proposals

    async def page(
        self, state: str = "", repo: str = "", limit: int = 50, *, author: str = "", after: str = ""
    ) -> api.ProposalList:
        """Return a page of proposals, newest first, and how many there are in all.

        Args:
            state: Only those in this state, such as `waiting` (`api.ProposalState`).
            repo: Only those of this repository.
            limit: At most so many.
            author: Only those of this principal, such as `agent/ada`.
            after: `next` of the page before.

        Raises:
            InvalidInput: There is no such state, or the limit is out of bounds.
            NotFound: There is no such proposal as `after`.
            Forbidden: The caller may not read proposals.
        """
        query: dict[str, object] = {"state": state, "repo": repo, "limit": limit}
        query |= {"author": author, "after": after}
        given = {name: value for name, value in query.items() if value}
        return await self._transport.call("GET", "/proposals", api.ProposalList, query=given)

    async def create(
        self,
        repo: str,
        edits: Sequence[Edit],
        *,
        base: str,
        message: str,
        proposal: ProposalId | None = None,
        live: bool = False,
    ) -> Proposal:
        """Propose edits to a repository.

        Args:
            repo: The repository's name.
            edits: New texts, unified diffs and deletions, at most one for each file.
            base: The revision that the edits were made from; `main` and `dev` stand for their
                present heads.
            message: What the change is for.
            proposal: The id to give it. The same id again with the same edits is the same
                proposal; by default a new one.
            live: Enter the live documents at once; only for people, who could type it as well.

        Returns:
            A handle; the proposal's tests run meanwhile.

        Raises:
            Stale: The same lines have changed since `base`; `extra["conflicts"]` has the texts.
            InvalidInput: An edit does not fit its base.
            Forbidden: Policy does not permit it.
            NotFound: There is no such repository or base.
        """
        body = api.SubmitProposal(
            base=base,
            edits=tuple(edits),
            message=message,
            proposal=proposal or new_proposal_id(),  # so that a repeated request is one proposal
            live=live,
        )
        path = "/repos" + segments(repo, "proposals")
        view = await self._transport.call("POST", path, api.ProposalView, body=body)
        return self[view.id]
