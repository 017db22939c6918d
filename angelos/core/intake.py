"""Handing in a proposal: the one door for rooms, git pushes, MCP, the command line and HTTP.

AngelGit's routes and the rooms may not import control, so they hand a `Submission` to a
`ProposalIntake` that wiring gives them. Whoever submits keeps the id: after a lost answer the same
submission is handed in again and gives the same receipt.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from angelos.core.branches import BranchName, branch_name
from angelos.core.errors import AngelError, InvalidInput
from angelos.core.ids import PrincipalId, ProposalId, Revision, TaskId, is_id, is_revision
from angelos.core.pending import MAX_EDITS, PendingState
from angelos.core.principals import ActingSession
from angelos.core.repository import TreeEdit

MAX_SUBMISSION_BYTES = 16_000_000
"""Of the texts of its edits; blobs are stored before and count by their hash."""


class IntakeSource(StrEnum):
    """The way that a submission came."""

    api = "api"
    """HTTP, and with it the client, the command line and the dashboard."""
    room = "room"
    """A person in an open document."""
    git = "git"
    """A push to `refs/for/<branch>`."""
    mcp = "mcp"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal as it is handed in."""

    id: ProposalId
    """Made by whoever submits; used again to ask again, or with `replaces` for a new version."""
    repo: str
    base: str
    """A whole revision, or the name of a branch for its head at that moment."""
    edits: Annotated[tuple[TreeEdit, ...], msgspec.Meta(min_length=1, max_length=MAX_EDITS)]
    message: Annotated[str, msgspec.Meta(max_length=2_000)]
    session: ActingSession
    """Who submits, as the server established it; its principal is the author."""
    source: IntakeSource
    target: BranchName = BranchName("main")
    replaces: str = ""
    """Digest of the version of this proposal that this one replaces."""
    task: TaskId | None = None
    live: bool = False
    """Enter the live documents at once, where the author has that right; else it is refused."""
    trace: str = ""


class IntakeNext(StrEnum):
    """What happens next, for whoever submitted to be told."""

    review = "review"
    """It waits as an overlay; accepting brings it into `dev`, its tests run meanwhile."""
    testing = "testing"
    """Its tests run or are about to; nobody needs to do anything."""
    approval = "approval"
    """A person has to approve it for `main`."""
    settled = "settled"
    """It was decided before; this was asked again."""


class IntakeReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal was taken in durably."""

    id: ProposalId
    repo: str
    digest: str
    """What approvals bind to."""
    base: Revision
    """The revision that the base stood for."""
    author: PrincipalId
    state: PendingState
    next: IntakeNext
    live: bool = False
    """It is in the live documents."""
    duplicate: bool = False
    """It had been taken in before; nothing happened now."""


class IntakeRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal as data, for ways that cannot carry an exception (a push's report, MCP)."""

    code: str
    """Of `core.errors`."""
    detail: str
    hint: str = ""


def refusal_of(error: AngelError) -> IntakeRefusal:
    """Return an error of `submit` as data, each text on one line and cut to 1,000 characters."""
    detail, hint = (" ".join(text.split())[:1_000] for text in (error.detail, error.hint))
    return IntakeRefusal(code=error.code, detail=detail, hint=hint)


def check_submission(submission: Submission) -> Revision | BranchName:
    """Return what a submission's base names; refuse what no repository needs to look at.

    Raises:
        InvalidInput: Id, base, target or number of edits is wrong, or the texts are too long.
    """
    if not (is_id(submission.id) and submission.id.startswith("prop-")):
        raise InvalidInput(
            f"{submission.id[:80]!r} is no proposal id.", hint="Use prop- and 32 hex digits."
        )
    if not 0 < len(submission.edits) <= MAX_EDITS:
        raise InvalidInput(f"A proposal has 1 to {MAX_EDITS} edits.")
    texts = [
        text
        for edit in submission.edits
        for name in ("text", "diff", "source")
        if isinstance(text := getattr(edit, name, None), str)
    ]
    if sum(map(len, texts)) > MAX_SUBMISSION_BYTES:
        raise InvalidInput(
            f"The edits have over {MAX_SUBMISSION_BYTES} characters.",
            hint="Put large content as blobs.",
        )
    branch_name(submission.target)
    if is_revision(submission.base):
        return Revision(submission.base)
    return branch_name(submission.base)
