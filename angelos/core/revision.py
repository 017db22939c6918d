r"""What a node gets of a revision, and how it verifies that before a byte is written.

    bundle = Bundle(signed=signed, objects=tree.objects, blobs={sha256: content})
    verified = verify_bundle(key, bundle, expected, KnownObjects())

A bundle holds the signed commit, and those directory objects and contents that the node lacks; the
others the node has of a revision that it verified earlier (`core/revision_v2.py` has the format).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from angelos.core.errors import Tampered
from angelos.core.ids import Revision
from angelos.core.paths import safe_link
from angelos.core.revision_v2 import (
    CommitObject,
    EntryMode,
    SignedCommitObject,
    TreeEntry,
    read_tree,
    verify_commit_object,
)
from angelos.core.signing import VerifyKey

MAX_FILES = 20_000
MAX_FILE_BYTES = 16_000_000


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a node lacks of one revision."""

    signed: SignedCommitObject
    objects: dict[str, bytes]
    """Hash -> directory object."""
    blobs: dict[str, bytes]
    """SHA-256 -> content."""
    have: Revision | None = None
    """The revision of which the node said that it has everything."""


class KnownObjects(NamedTuple):
    """What a node has already, and has verified."""

    objects: Mapping[str, bytes] = {}
    contents: Collection[str] = ()
    """Hashes of contents."""


class VerifiedRevision(NamedTuple):
    """A revision in which everything is as signed."""

    commit: CommitObject
    entries: tuple[TreeEntry, ...]
    objects: dict[str, bytes]
    """All directory objects of its tree."""


def verify_bundle(
    key: VerifyKey, bundle: Bundle, expected: Revision, known: KnownObjects
) -> VerifiedRevision:
    """Return a revision if everything of it is as signed.

    Checks the revision asked for, the signature, every directory object on the way to a file,
    every path, every link, and the hash of every content that is not known.

    Args:
        key: the repository's.
        bundle: what the server sent.
        expected: the revision that was asked for.
        known: what is here already.

    Raises:
        Tampered: something is wrong or missing; nothing of a bad bundle may be used.
        InvalidInput: a link leads out of the tree.
    """
    commit = verify_commit_object(key, bundle.signed, expected)
    used: dict[str, bytes] = {}

    def load(digest: str) -> bytes:
        body = bundle.objects.get(digest) or known.objects.get(digest)
        if body is None:
            raise Tampered(f"Directory {digest[:12]} of {expected[:12]} is missing.")
        used[digest] = body
        return body

    entries = read_tree(commit.tree, load)
    for digest, content in bundle.blobs.items():
        if hashlib.sha256(content).hexdigest() != digest:
            raise Tampered(f"The content {digest[:12]} in {expected[:12]} is not as signed.")
    for entry in entries:
        if entry.sha256 not in bundle.blobs and entry.sha256 not in known.contents:
            raise Tampered(f"The content of {entry.path} in {expected[:12]} is missing.")
        if entry.mode is EntryMode.symlink and entry.sha256 in bundle.blobs:
            safe_link(entry.path, bundle.blobs[entry.sha256].decode(errors="replace"))
    return VerifiedRevision(commit, entries, used)
