"""What AngelGit keeps: manifests, proposals with their updates, and moves of `dev`.

A manifest is a commit's tree with, for each file, which document it is and in what CRDT state.
It is stored as one content-addressed blob, so that unchanged trees cost nothing.

    >>> file = FileState(path="a", mode=0o644, sha256="ab", size=1, document="d", state="cd")
    >>> decode(encode((file,)), tuple[FileState, ...]) == (file,)
    True
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from angelos.core.errors import InvalidInput, Tampered
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.repository import Edit
from angelos.core.revision import Entry

T = TypeVar("T")

ROOM = PrincipalId("person/room")
"""Author of commits of what people typed; the room does not say who of those present it was."""
SYSTEM = PrincipalId("system/angelgit")
DISK = PrincipalId("person/disk")
"""Whoever changed a working file on disk; the file does not say who it was."""

Op = Literal["edit", "create", "delete", "revive"]
ProposalStatus = Literal["proposed", "merged", "reverted", "promoted"]


class FileState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One file of a manifest; `document` stays the same when the content changes."""

    path: str
    mode: int
    sha256: str
    size: int
    document: str
    state: str
    """SHA-256 of the blob with the document's full CRDT update."""

    def entry(self) -> Entry:
        """Return the file as the public tree has it."""
        return Entry(self.path, self.mode, self.sha256, self.size)


Manifest = tuple[FileState, ...]


class PathChange(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to one path of `dev`."""

    path: str
    document: str
    op: Op
    update: bytes = b""
    mode: int = 0o644
    made_on: str = ""
    """SHA-256 of the state that a proposal's update was made against; "": its base's."""


class PreparedProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal: its exact edits and what they became against the base revision."""

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
    """Path -> SHA-256 of its content as proposed; the content is kept as a blob."""
    diffs: dict[str, str]


class MainAdvance(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, already stored, that `main` moves to together with `dev`."""

    revision: Revision
    expected: Revision


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A change of `dev` that is carried out completely or (after a crash) again.

    It is stored before the first of its effects and removed in the transaction of the last.
    """

    id: str
    repo: str
    cause: Literal["proposal", "revert", "rollback"]
    author: PrincipalId
    message: str
    paths: tuple[PathChange, ...]
    proposal: ProposalId | None = None
    inverses: dict[str, bytes] = {}
    """Document -> update that takes a proposal out (cause "revert")."""
    keep: tuple[PathChange, ...] = ()
    """The proposal's own paths, where one was made anew (cause "proposal")."""
    main: MainAdvance | None = None


_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def check_name(repo: str) -> str:
    """Return a repository's name; raise `InvalidInput` if it cannot be one."""
    if not _NAME.match(repo) or repo.endswith("\n"):
        raise InvalidInput(
            f"{repo[:80]!r} is no name for a repository.",
            hint="Up to 64 letters, digits, dots, dashes and underscores.",
        )
    return repo


def encode(value: Any) -> bytes:
    """Return MessagePack of a struct kept by AngelGit."""
    return msgspec.msgpack.encode(value)


def decode(body: bytes, as_type: type[T]) -> T:
    """Return the struct in bytes that AngelGit stored; raise `Tampered` if it is not one."""
    try:
        return msgspec.msgpack.decode(body, type=as_type)
    except (msgspec.DecodeError, ValueError) as error:
        raise Tampered(f"A stored record cannot be read: {error}") from error


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def proposal_digest(repo: str, base: Revision, author: PrincipalId, edits: Sequence[Edit]) -> str:
    """Return the hash that an approval binds to: repository, base, author and exact edits."""
    try:
        body = msgspec.json.encode([repo, base, author, list(edits)])
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The edits hold text that is not Unicode: {error}") from error
    return hashlib.sha256(b"angelos.proposal.v1\0" + body).hexdigest()


class RevertedEdit(msgspec.Struct, frozen=True):
    """A proposal that was taken out of `dev`, as far as it concerns one document."""

    update: bytes
    inverse: bytes
    before: str
    after: str


class WriteRecord(msgspec.Struct, frozen=True):
    """What we did to a working file."""

    body: bytes | None = None
    """What it held when we had last written it, or taken it in; None: we never did."""
    next: bytes | None = None
    """What we were about to write when we were cut off."""
