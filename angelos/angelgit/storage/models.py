"""The records that AngelGit stores: manifests, proposals with their updates, and transactions.

A manifest is a commit's tree that also says, for each file, which document it is and which CRDT
state it has. It is stored as one content-addressed blob, so an unchanged tree takes no space.

    >>> file = FileState(path="a", mode=0o644, sha256="ab", size=1, document="d", state="cd")
    >>> decode(encode((file,)), tuple[FileState, ...]) == (file,)
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
from angelos.core.ids import START, Offset, PrincipalId, ProposalId, Revision
from angelos.core.repository import Edit
from angelos.core.revision import Entry

T = TypeVar("T")

ROOM = PrincipalId("person/room")
"""Author of commits of live edits; a room does not say which of its people typed."""
SYSTEM = PrincipalId("system/angelgit")
DISK = PrincipalId("person/disk")
"""Author of edits of working files; a file does not say who wrote it."""


class PathOp(StrEnum):
    """What a change does to a path; the values are stored."""

    edit = "edit"
    create = "create"
    delete = "delete"
    revive = "revive"


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


class FileState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One file of a manifest; `document` stays the same when the content changes."""

    path: str
    mode: int
    sha256: str
    size: int
    document: str
    state: str
    """SHA-256 of the blob with the document's full CRDT state."""

    def entry(self) -> Entry:
        """Return the file as an entry of the public tree."""
        return Entry(self.path, self.mode, self.sha256, self.size)


Manifest = tuple[FileState, ...]


class DocumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A document of `dev` with its newest snapshot."""

    id: str
    repo: str
    path: str
    mode: int
    alive: bool
    state: str
    """SHA-256 of the blob with the snapshot's state, which contains the log up to `upto`."""
    upto: Offset = START
    sha256: str


class PathChange(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one path of `dev`."""

    path: str
    document: str
    op: PathOp
    update: bytes = b""
    mode: int = 0o644
    update_base: str = ""
    """SHA-256 of the state that `update` was made against; "": the base revision's."""


class PreparedProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal's exact edits, and the changes that they are against the base revision."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    edits: tuple[Edit, ...]
    paths: tuple[PathChange, ...]
    before: dict[str, str]
    """Path -> SHA-256 of its content in the base revision."""
    after: dict[str, str]
    """Path -> SHA-256 of its proposed content; the content is stored as a blob."""
    diffs: dict[str, str]


class StoredProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal and how far it has come."""

    record: PreparedProposal
    status: ProposalStatus
    merged: Revision | None
    reverted: Revision | None


class MainAdvance(msgspec.Struct, frozen=True, kw_only=True):
    """A stored commit that `main` advances to, together with a transaction on `dev`."""

    revision: Revision
    expected: Revision


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A change of `dev` that is carried out completely, after a crash too.

    It is stored before its first effect and removed in the database transaction of its last.
    """

    id: str
    repo: str
    cause: AdvanceCause
    author: PrincipalId
    message: str
    paths: tuple[PathChange, ...]
    proposal: ProposalId | None = None
    inverses: dict[str, bytes] = {}
    """Of a revert: document -> the update that takes the proposal out."""
    rebased: tuple[PathChange, ...] = ()
    """Of a proposal: its changes as rebased onto `main`, if one differs from the prepared one."""
    main: MainAdvance | None = None


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


def proposal_digest(repo: str, base: Revision, author: PrincipalId, edits: Sequence[Edit]) -> str:
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
