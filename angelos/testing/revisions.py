r"""Signed revisions, as a node fetches them.

bundle = signed_bundle(key, {"a.py": b"x = 1\n"})
bundle.signed.revision
"""

from __future__ import annotations

from collections.abc import Mapping

from angelos.core.ids import PrincipalId
from angelos.core.revision import Bundle
from angelos.core.revision_v2 import (
    CommitObject,
    EntryMode,
    TreeEntry,
    build_tree,
    sign_commit_object,
)
from angelos.core.signing import SigningKey


def signed_bundle(
    key: SigningKey,
    files: Mapping[str, bytes],
    repo: str = "study",
    message: str = "",
    modes: Mapping[str, EntryMode] | None = None,
) -> Bundle:
    """Return a revision of these files with everything in it.

    Args:
        key: signs it.
        files: path -> content, or a link's target.
        repo: the repository's name.
        message: the commit's.
        modes: path -> mode, of those that are no ordinary files.
    """
    modes = modes or {}
    entries = [TreeEntry.of(p, body, modes.get(p, EntryMode.file)) for p, body in files.items()]
    tree = build_tree(entries)
    commit = CommitObject(
        repo=repo, parents=(), tree=tree.root, authors=(PrincipalId("person/p"),),
        message=message, at=1,
    )  # fmt: skip
    blobs = {entry.sha256: files[entry.path] for entry in entries}
    return Bundle(signed=sign_commit_object(key, commit), objects=tree.objects, blobs=blobs)
