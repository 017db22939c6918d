"""A repository's history as data: commits, differences, blame, branches, each in pages.

A page's `next` is handed in as `after` for the page behind it; empty: there is none. A commit is
named by its revision (64 hex digits), or by the id of its git commit (40) where only git has it:
what was imported with its history.

    >>> page = HistoryPage(commits=())
    >>> page.next
    ''
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from angelos.core.ids import PrincipalId, Revision
from angelos.core.messages import Input, Message
from angelos.core.pending import MAX_EDITS, PendingHunk
from angelos.core.repository import BranchHead, TreeEdit
from angelos.core.revision_v2 import Trailer

Line = Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"^[^\x00]*$")]


class CommitSummary(Message, frozen=True, kw_only=True):
    """A commit without its files."""

    id: str
    git: str = ""
    """Id of its git commit, where that has been made or imported."""
    parents: tuple[str, ...]
    authors: tuple[str, ...]
    """Principals, the first wrote it; of an imported git commit `name <email>`."""
    message: str
    at: int
    """Unix milliseconds."""
    trailers: tuple[Trailer, ...] = ()
    """Proposal, task, and for whom: `core.revision_v2.TrailerKey`."""

    def trailer(self, key: str) -> str:
        """Return the value of the first trailer with this key, empty if there is none."""
        return next((t.value for t in self.trailers if t.key == key), "")


class HistoryPage(Message, frozen=True, kw_only=True):
    """First-parent history, or all of it, newest first."""

    commits: tuple[CommitSummary, ...]
    revisions: tuple[str, ...] = ()
    """The ids of the commits."""
    next: str = ""


class FileDiff(Message, frozen=True, kw_only=True):
    """How one file differs between two revisions; a missing side is None."""

    path: str
    to: str = ""
    """Its new path, where it has moved."""
    before: str | None
    """SHA-256 of the content before."""
    after: str | None
    modes: tuple[str, str] = ("", "")
    """Before and after, where they differ."""
    diff: str = ""
    """For people: a unified diff, of a notebook one for each cell. Bounded."""
    cells: tuple[PendingHunk, ...] = ()
    """Of a notebook: sources by line, outputs by digest, metadata."""
    cut: bool = False
    """There is more to the difference than is shown."""


class DiffPage(Message, frozen=True, kw_only=True):
    """How two revisions differ, in the order of paths."""

    before: str
    after: str
    changes: tuple[FileDiff, ...]
    next: str = ""


class BlamedLines(Message, frozen=True, kw_only=True):
    """Neighbouring lines that one commit wrote."""

    commit: str
    cell: str = ""
    """Of a notebook: id of the cell in which lines are counted."""
    start: int
    """The first of them, from 1."""
    path: str
    """What the file was called in that commit."""
    first: int
    """Where the first of them was in that commit."""
    lines: tuple[str, ...]


class BlameView(Message, frozen=True, kw_only=True):
    """Who wrote each line of a file, with the commits that are named."""

    revision: str
    path: str
    groups: tuple[BlamedLines, ...]
    commits: tuple[CommitSummary, ...]
    next: str = ""
    """Number of the group behind this page."""


class BranchPage(Message, frozen=True, kw_only=True):
    """Branches in the order of their names."""

    branches: tuple[BranchHead, ...]
    next: str = ""


class CreateBranch(Input, frozen=True, kw_only=True):
    """A new branch of one's own."""

    name: str
    at: str = "main"


class MoveBranch(Input, frozen=True, kw_only=True):
    """Another head for one's own branch, forward or not."""

    name: str
    to: str
    expected: Revision
    """Where it is now."""


class CommitEdits(Input, frozen=True, kw_only=True):
    """A commit of edits on one's own branch."""

    branch: str
    expected: Revision
    """The head that the edits were made against."""
    edits: Annotated[tuple[TreeEdit, ...], msgspec.Meta(min_length=1, max_length=MAX_EDITS)]
    message: Line


class PickRevision(Input, frozen=True, kw_only=True):
    """Propose for `main` what one commit changed."""

    revision: str
    """A branch, a revision, or its unique beginning."""


class CherryPick(Input, frozen=True, kw_only=True):
    """What one commit changed, again on a branch of one's own."""

    revision: str
    branch: str


class GitImported(Message, frozen=True, kw_only=True):
    """A repository that came from git with its history."""

    name: str
    dev: Revision
    main: Revision
    head: str
    """Id of the git commit with which it begins."""
    references: int
    """How many tags, and branches other than its head, were kept."""
    renamed: tuple[tuple[str, str], ...] = ()
    """References whose name means something of its own here: old and new name."""


class CommitMade(Message, frozen=True, kw_only=True):
    """A new head of a branch."""

    repo: str
    branch: str
    revision: Revision
    author: PrincipalId


class DamageKind(StrEnum):
    """What of a repository is not what it should be."""

    commit = "commit"
    tree = "tree"
    content = "content"
    blob = "blob"
    document = "document"


class Damage(Message, frozen=True, kw_only=True):
    """Something stored that is missing, or that is not what its hash names."""

    kind: DamageKind
    hash: str
    """Under which it is stored; of a document its id."""
    revision: str = ""
    """One that has it; of a live document none."""
    path: str = ""
    """Where it is in that revision."""
    detail: str


class CollectRepo(Input, frozen=True, kw_only=True):
    """Which garbage of a repository to delete, or to count."""

    keep_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 14
    """What is younger stays."""
    dry_run: bool = True


class CollectionReport(Message, frozen=True, kw_only=True):
    """What nothing reached: deleted, or only counted."""

    repo: str
    dry_run: bool
    commits: int
    objects: int
    """Contents and directories; of all repositories, which share them."""
    object_bytes: int
    blobs: int
    blob_bytes: int
    updates: int
    """Of live documents, which their snapshots contain."""
    streams: int
    """Of the log, without any update."""


class VerifyPage(Message, frozen=True, kw_only=True):
    """What was read back of a repository, and what of it is damaged."""

    commits: int = 0
    contents: int = 0
    documents: int = 0
    damage: tuple[Damage, ...] = ()
    next: str = ""
