"""A repository's words as data: edits, changes, proposals, candidates, branches."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from angelos.core.branches import BranchName
from angelos.core.ids import DocumentId, PrincipalId, ProposalId, Revision
from angelos.core.messages import Input
from angelos.core.revision_v2 import EntryMode

MAX_READ_BYTES = 16_000_000
"""Of one file in one answer; larger blobs are streamed."""


class DocumentAddress(msgspec.Struct, frozen=True):
    """Where a live document is: its id stays the same when it is renamed, its path does not.

    Another document may be created at the path of one that was deleted.
    """

    repo: str
    path: str
    document: DocumentId


class UnifiedDiff(Input, frozen=True, kw_only=True, tag="diff", tag_field="kind"):
    """An edit as a unified diff of one file against the base revision."""

    path: str
    diff: str


class NewText(Input, frozen=True, kw_only=True, tag="text", tag_field="kind"):
    """An edit as the whole new text of a file (a notebook's is its JSON); creates it if absent."""

    path: str
    text: str


class DeleteFile(Input, frozen=True, kw_only=True, tag="delete", tag_field="kind"):
    """Remove a file."""

    path: str


Edit = UnifiedDiff | NewText | DeleteFile
"""The edits that today's API and AngelGit take."""


class PutBlob(Input, frozen=True, kw_only=True, tag="blob", tag_field="kind"):
    """Put binary content, stored before by `Blobs.put_blob`, at a path."""

    path: str
    sha256: str
    size: int
    executable: bool = False


class PutLink(Input, frozen=True, kw_only=True, tag="link", tag_field="kind"):
    """Put a symbolic link at a path; `core.paths.safe_link` says which targets are taken."""

    path: str
    target: str


class MoveFile(Input, frozen=True, kw_only=True, tag="move", tag_field="kind"):
    """Move a file, link or blob; a document stays the same document."""

    path: str
    to: str
    """A path at which nothing is."""


class SetMode(Input, frozen=True, kw_only=True, tag="mode", tag_field="kind"):
    """Make a file executable, or not."""

    path: str
    executable: bool


class InsertCell(Input, frozen=True, kw_only=True, tag="cell-insert", tag_field="kind"):
    """Put a new cell into a notebook."""

    path: str
    cell: str
    """Its id, new in this notebook."""
    after: str = ""
    """Id of the cell before it; empty: it becomes the first."""
    cell_type: Literal["code", "markdown", "raw"] = "code"
    source: str


class ReplaceCell(Input, frozen=True, kw_only=True, tag="cell-replace", tag_field="kind"):
    """Give a cell another source; its outputs and metadata stay."""

    path: str
    cell: str
    before: str
    """SHA-256 of the source that the author saw; it must be the base's."""
    source: str


class DeleteCell(Input, frozen=True, kw_only=True, tag="cell-delete", tag_field="kind"):
    """Take a cell out of a notebook."""

    path: str
    cell: str
    before: str
    """SHA-256 of the source that the author saw; it must be the base's."""


class MoveCell(Input, frozen=True, kw_only=True, tag="cell-move", tag_field="kind"):
    """Move a cell within its notebook; it stays the same cell."""

    path: str
    cell: str
    after: str = ""
    """Id of the cell before it; empty: it becomes the first."""


CellEdit = InsertCell | ReplaceCell | DeleteCell | MoveCell
TreeEdit = Edit | PutBlob | PutLink | MoveFile | SetMode | CellEdit
"""Every kind of edit. A proposal has one edit a path, or any number of `CellEdit`s, in order."""


class EntryKind(StrEnum):
    """How the repository keeps a file."""

    text = "text"
    notebook = "notebook"
    blob = "blob"
    """Content that is not text, or too long to be a live document."""
    link = "link"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or link of a revision."""

    path: str
    kind: EntryKind
    mode: EntryMode
    sha256: str
    size: int
    document: DocumentId | None = None
    """The live document of a text or notebook."""


class BlobRef(msgspec.Struct, frozen=True, kw_only=True):
    """Binary content that is stored."""

    sha256: str
    size: int


class BranchHead(msgspec.Struct, frozen=True, kw_only=True):
    """A branch and where it is."""

    name: BranchName
    revision: Revision
    owner: PrincipalId | None = None
    """Who made it; None for `main`, `dev` and the branches of proposals."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How one path differs between two revisions; a missing side is None."""

    path: str
    before: str | None
    """SHA-256 of the content before."""
    after: str | None
    diff: str = ""
    """Unified diff, bounded; for people to read."""
    cut: bool = False
    """There is more to the difference than `diff` shows."""


class ProposalOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposal takes back or does again."""

    reverts: ProposalId | None = None
    picked_from: Revision | None = None
    """A commit of another branch, which blame asks for the writer of its lines."""


NEW = ProposalOrigin()
"""Of a proposal that does neither."""


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal as the repository holds it."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    """SHA-256 over base, author and the exact edits; approvals bind to it."""
    changes: tuple[Change, ...]


class RevertDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be proposed to take a proposal's edits back around later work."""

    repo: str
    base: Revision
    """The head of `main`, or of `dev` where the edits are only there."""
    edits: tuple[TreeEdit, ...]
    message: str


class PickDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be proposed to do again on `main` what a commit of another branch changed."""

    repo: str
    base: Revision
    """The head of `main`."""
    edits: tuple[TreeEdit, ...]
    message: str


class CandidateMember(msgspec.Struct, frozen=True, kw_only=True):
    """One proposal in a candidate."""

    proposal: ProposalId
    commit: Revision
    """Of exactly its own edits, on top of the members before it."""
    changes: tuple[Change, ...]
    """Its own, against the members before it."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What main would become: signed commits on no branch, the first one's parent is `main`."""

    revision: Revision
    """The last commit."""
    main: Revision
    tree: str
    changes: tuple[Change, ...]
    """Of all together, against `main`."""
    members: tuple[CandidateMember, ...] = ()
    """In the order in which they were asked for."""
    left_out: tuple[ProposalId, ...] = ()
    """Those that do not fit the members before them, or are no longer open."""


CleanOutputs = Mapping[str, Mapping[str, str]]
"""Path of a notebook -> cell (its id, or `#` and its place from 1) -> JSON of its outputs."""

Branch = Literal["dev", "main"]
