"""A repository's words as data: edits, changes, proposals, candidates, branches."""

from __future__ import annotations

from typing import Literal

import msgspec

from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.messages import Input


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


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What main would become: a signed commit on no branch, whose parent is `main`."""

    revision: Revision
    main: Revision
    tree: str
    changes: tuple[Change, ...]


Branch = Literal["dev", "main"]
