"""The records that AngelGit stores: proposals, documents of `dev`, and updates to be logged.

>>> change = FileChange(path="a", before=TreeEntry.of("a", b"x"), after=None)
>>> decode(encode(change), FileChange) == change
True
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from angelos.core.errors import InvalidInput, Tampered
from angelos.core.ids import START, HunkId, Offset, PrincipalId, ProposalId, Revision
from angelos.core.repository import TreeEdit
from angelos.core.revision_v2 import TreeEntry

T = TypeVar("T")

ROOM = PrincipalId("person/room")
"""Author of commits of live edits; a room does not say which of its people typed."""
SYSTEM = PrincipalId("system/angelgit")
DISK = PrincipalId("person/disk")
"""Author of edits of working files; a file does not say who wrote it."""


class ProposalStatus(StrEnum):
    """How far a proposal has come in the repository; the values are stored."""

    proposed = "proposed"
    merged = "merged"
    reverted = "reverted"
    promoted = "promoted"
    withdrawn = "withdrawn"
    """It is closed without having been in `dev`."""


class AdvanceCause(StrEnum):
    """Why a branch advanced; the values are stored, and sent in facts."""

    created = "import"
    live_edits = "live-edits"
    proposal = "proposal"
    revert = "revert"
    rollback = "rollback"
    candidate = "advance"
    branched = "branch"
    moved = "move"
    committed = "commit"
    picked = "cherry-pick"
    pushed = "push"
    deleted = "delete"


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """How a proposal changes one file: its entries in the base and as proposed."""

    path: str
    before: TreeEntry | None
    after: TreeEntry | None
    to: str = ""
    """Where the file moves; `after` is its entry there."""

    @property
    def target(self) -> str:
        """The path of the file after the change."""
        return self.to or self.path


class PreparedProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal: what its edits change in the base revision; the contents are stored."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    edits: str
    """Hash of the exact edits (MessagePack), which are stored as an object."""
    changes: tuple[FileChange, ...]
    reverts: ProposalId | None = None
    picked_from: Revision | None = None
    """The commit that these edits do again."""
    dev_base: bool = False
    """The base is a revision of `dev`."""
    part_of: ProposalId | None = None
    """The proposal of which a person took this part."""
    hunks: tuple[HunkId, ...] = ()
    """The hunks of `whole` that it holds; empty for all."""
    whole: tuple[FileChange, ...] = ()
    """Where `hunks` are some of all: the changes that these are counted in."""


class StoredProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal and how far it has come."""

    record: PreparedProposal
    status: ProposalStatus
    merged: Revision | None
    reverted: Revision | None
    promoted: Revision | None


class DocumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A document of `dev` and its newest snapshot, whose state is read when it is needed."""

    id: str
    repo: str
    path: str
    mode: int
    alive: bool
    upto: Offset = START
    """The last entry of the log that the snapshot contains."""
    sha256: str
    """Of the content to which the snapshot replays."""


class UnloggedUpdate(msgspec.Struct, frozen=True):
    """A committed update that the log may lack."""

    number: int
    document: str
    path: str
    update: bytes


_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def check_name(repo: str) -> str:
    """Return a repository's name; raise `InvalidInput` if it cannot be one."""
    if not _NAME.match(repo) or repo.endswith("\n"):
        raise InvalidInput(
            f"{repo[:80]!r} cannot be the name of a repository.",
            hint="A name has up to 64 letters, digits, dots, dashes and underscores.",
        )
    return repo


def encode(value: object) -> bytes:
    """Return the MessagePack of a struct that AngelGit stores."""
    return msgspec.msgpack.encode(value)


def decode(body: bytes, as_type: type[T]) -> T:
    """Return the struct that AngelGit stored as `body`; raise `Tampered` if it is none."""
    try:
        return msgspec.msgpack.decode(body, type=as_type)
    except (msgspec.DecodeError, ValueError) as error:
        raise Tampered(f"A stored record cannot be read: {error}") from error


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def proposal_digest(
    repo: str, base: Revision, author: PrincipalId, edits: Sequence[TreeEdit]
) -> str:
    """Return the hash that approvals bind to: over repository, base, author and exact edits."""
    try:
        body = msgspec.json.encode([repo, base, author, list(edits)])
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The edits hold text that is not Unicode: {error}") from error
    return hashlib.sha256(b"angelos.proposal.v1\0" + body).hexdigest()


class WriteRecord(msgspec.Struct, frozen=True):
    """What AngelGit wrote into a working file."""

    content: bytes | None = None
    """What the file held after the last write, or after its edit was taken in; None: nothing."""
    intended: bytes | None = None
    """What a write that was cut off was about to put into it."""
