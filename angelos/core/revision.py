r"""Revisions: what a commit is, how it is hashed and signed, and how a node verifies one.

    commit = {repo, parents, tree, author, on_behalf_of, message, at}
    tree   = SHA-256 over the sorted entries (path, mode, SHA-256 of the content)
    revision = SHA-256 over the commit

The tree hash depends on content only: two commits with the same files have the same tree hash,
which is how a rollback is proven. CRDT states are kept beside a commit and are not part of it.

    >>> entry = entry_for("a.txt", b"hello\\n")
    >>> tree_hash((entry,))[:8]
    'a5debaf6'
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from angelos.core.errors import InvalidInput, Tampered
from angelos.core.ids import PrincipalId, Revision, is_revision
from angelos.core.paths import safe_path
from angelos.core.signing import SigningKey, VerifyKey

_COMMIT = b"angelos.commit.v1"
_TREE = b"angelos.tree.v1"
MAX_FILES = 20_000
MAX_FILE_BYTES = 16_000_000


class Entry(msgspec.Struct, frozen=True, order=True):
    """One file of a tree. `mode` is 0o644 or 0o755; `sha256` is of the content."""

    path: str
    mode: int
    sha256: str
    size: int


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A point in a repository's history."""

    repo: str
    parents: tuple[Revision, ...]
    tree: str
    author: PrincipalId
    message: str
    at: int
    """Unix milliseconds."""
    on_behalf_of: PrincipalId | None = None


class SignedCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit with the repository's signature of its revision."""

    commit: Commit
    revision: Revision
    signature: bytes


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node needs of one revision. `blobs` maps SHA-256 to content."""

    signed: SignedCommit
    tree: tuple[Entry, ...]
    blobs: dict[str, bytes]


def entry_for(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """Return the tree entry of a file."""
    if mode not in (0o644, 0o755):
        raise InvalidInput(f"The mode of {path} must be 0644 or 0755, not {mode:04o}.")
    return Entry(safe_path(path), mode, hashlib.sha256(content).hexdigest(), len(content))


def tree_hash(entries: Iterable[Entry]) -> str:
    """Return the hash of a tree; entries may come in any order, each path once."""
    rows = sorted((e.path, e.mode, e.sha256) for e in entries)
    if len({path for path, _, _ in rows}) != len(rows):
        raise InvalidInput("A path stands twice in one tree.")
    return hashlib.sha256(_TREE + b"\0" + msgspec.json.encode(rows)).hexdigest()


def commit_revision(commit: Commit) -> Revision:
    """Return the revision of a commit."""
    body = msgspec.json.encode(
        [
            commit.repo, commit.parents, commit.tree, commit.author, commit.on_behalf_of,
            commit.message, commit.at,
        ]
    )  # fmt: skip
    return Revision(hashlib.sha256(_COMMIT + b"\0" + body).hexdigest())


def sign_commit(key: SigningKey, commit: Commit) -> SignedCommit:
    """Return `commit` with its revision, signed."""
    revision = commit_revision(commit)
    signature = key.sign(_COMMIT, revision.encode())
    return SignedCommit(commit=commit, revision=revision, signature=signature)


def verify_commit(key: VerifyKey, signed: SignedCommit) -> Commit:
    """Return the commit if revision and signature are right; raise `Tampered` otherwise."""
    if commit_revision(signed.commit) != signed.revision or not is_revision(signed.revision):
        raise Tampered(f"Revision {signed.revision[:12]} is not the hash of its commit.")
    if not key.verify(_COMMIT, signed.revision.encode(), signed.signature):
        raise Tampered(f"The signature of revision {signed.revision[:12]} is not the repository's.")
    return signed.commit


def verify_bundle(key: VerifyKey, bundle: Bundle, expected: Revision) -> Mapping[str, bytes]:
    """Return path -> content of a bundle in which everything is as signed.

    Checks the revision asked for, the signature, the tree hash, every path, and the hash of
    every file. Raises `Tampered` or `InvalidInput`; nothing of a bad bundle may be used.
    """
    commit = verify_commit(key, bundle.signed)
    if bundle.signed.revision != expected:
        raise Tampered(f"Asked for {expected[:12]}, got {bundle.signed.revision[:12]}.")
    if len(bundle.tree) > MAX_FILES or tree_hash(bundle.tree) != commit.tree:
        raise Tampered(f"The tree of revision {expected[:12]} is not the one it was signed with.")
    files: dict[str, bytes] = {}
    for entry in bundle.tree:
        content = bundle.blobs.get(entry.sha256)
        if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise Tampered(f"The content of {entry.path} in {expected[:12]} is not as signed.")
        files[safe_path(entry.path)] = content
    return files
