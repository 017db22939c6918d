r"""Git objects as bytes: blobs, trees, signed commits. Pure.

>>> git_id("blob", b"hello\n")
'ce013625030ba8dba906f756967f9e9ca394464a'
>>> git_id("tree", tree_body([GitEntry(0o100644, b"a", git_id("blob", b"hello\n"))]))
'2e81171448eb9f2ee3821e3d447aa6b2fe3ddba1'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from angelos.core.ids import PrincipalId, Revision
from angelos.core.revision_v2 import CommitObject
from angelos.core.signing import SigningKey
from angelos.core.ssh_signature import ssh_public_key, ssh_signature

ObjectKind = Literal["blob", "tree", "commit", "tag"]

DIRECTORY = 0o40000
COMMITTER = "angelos@angelos"
"""Address of the committer of our commits, and the principal of its key."""
_GIT_ID = re.compile(r"[0-9a-f]{40}")


class GitObject(NamedTuple):
    """One object with its id."""

    id: str
    kind: ObjectKind
    body: bytes


class GitEntry(NamedTuple):
    """One name in a tree."""

    mode: int
    name: bytes
    id: str


def is_git_id(text: str) -> bool:
    """Return whether `text` has the form of a git object's id."""
    return bool(_GIT_ID.fullmatch(text))


def git_id(kind: ObjectKind, body: bytes) -> str:
    """Return the id of an object."""
    head = f"{kind} {len(body)}\0".encode()
    return hashlib.sha1(head + body, usedforsecurity=False).hexdigest()


def git_object(kind: ObjectKind, body: bytes) -> GitObject:
    """Return an object with its id."""
    return GitObject(git_id(kind, body), kind, body)


def tree_body(entries: Iterable[GitEntry]) -> bytes:
    """Return a tree; git sorts a directory as if its name ended with a slash."""
    ordered = sorted(entries, key=lambda e: e.name + b"/" if e.mode == DIRECTORY else e.name)
    return b"".join(b"%o %s\0%s" % (e.mode, e.name, bytes.fromhex(e.id)) for e in ordered)


def commit_body(
    key: SigningKey,
    commit: CommitObject,
    revision: Revision,
    tree: str,
    parents: Sequence[str],
) -> bytes:
    """Return the git commit of a revision, signed.

    The first of the authors is git's author and the others are named as co-authors; the committer
    is the system, whose key signs.

    Args:
        key: the repository's key.
        commit: the revision's commit.
        revision: its hash.
        tree: id of its tree.
        parents: ids of the parents' git commits.
    """
    seconds = commit.at // 1000
    head = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    head.append(f"author {identity(commit.authors[0])} {seconds} +0000")
    head.append(f"committer AngelOS <{COMMITTER}> {seconds} +0000")
    text = "\n" + _message(commit, revision)
    unsigned = ("\n".join(head) + "\n" + text).encode()
    signature = ssh_signature(key, unsigned).replace(b"\n", b"\n ")
    return "\n".join(head).encode() + b"\ngpgsig " + signature + b"\n" + text.encode()


def identity(principal: PrincipalId) -> str:
    """Return a principal as git's `name <email>`; the address is the whole id."""
    return f"{principal.partition('/')[2]} <{principal}@angelos>"


def allowed_signers(key: SigningKey) -> str:
    """Return the file by which `git verify-commit` accepts the repository's signatures."""
    return f'{COMMITTER} namespaces="git" {ssh_public_key(key.public)}\n'


def _message(commit: CommitObject, revision: Revision) -> str:
    trailers = [f"Co-authored-by: {identity(author)}" for author in commit.authors[1:]]
    trailers += [f"AngelOS-{trailer.key}: {trailer.value}" for trailer in commit.trailers]
    trailers.append(f"AngelOS-Revision: {revision}")
    text = commit.message.strip("\n")
    return "\n\n".join(filter(None, [text, "\n".join(trailers)])) + "\n"
