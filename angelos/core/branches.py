"""Names of branches: open-ended, and only such as git accepts for `refs/heads/<name>`.

`main` is what was judged, `dev` the live documents that people type into, `proposals/<id>` one
proposal; everything else belongs to the person or agent who made it.

    >>> proposal_branch(ProposalId("prop-018bcfe568007000800000000000000a"))
    'proposals/prop-018bcfe568007000800000000000000a'
    >>> branch_name("ada/faster-median")
    'ada/faster-median'
    >>> is_branch_name("ada/faster..median")
    False
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import NewType

from angelos.core.errors import InvalidInput
from angelos.core.ids import ProposalId, is_id

BranchName = NewType("BranchName", str)
"""A name that passed `branch_name`."""

MAIN = BranchName("main")
DEV = BranchName("dev")
PROPOSALS = "proposals"
"""First segment of the branches that hold one proposal each; nobody else may make one."""
RESERVED = frozenset({MAIN, DEV})
"""Branches that only `advance` and acceptance move, and that are never deleted."""

MAX_BRANCH_BYTES = 200
MAX_BRANCH_SEGMENTS = 8
_FORBIDDEN = ("..", "@{", "//")
_CHARACTERS = frozenset(" ~^:?*[\\")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def branch_name(text: str) -> BranchName:
    """Return `text` as the name of a branch.

    The rules are those of `git check-ref-format --branch` (git 2.39), and four more: at most 200
    bytes and 8 segments, Unicode NFC without control and format characters, and nothing that
    could be taken for a hash (40 or 64 hex digits).

    Args:
        text: What somebody typed, or what a git client pushed below `refs/heads/`.

    Returns:
        The same text, typed.

    Raises:
        InvalidInput: The text is not a name of a branch; the message says which rule it breaks.
    """
    if why := _problem(text):
        raise InvalidInput(
            f"{text[:80]!r} is no name of a branch: {why}.",
            hint="Use a name such as ada/faster-median.",
        )
    return BranchName(text)


def is_branch_name(text: str) -> bool:
    """Return whether `branch_name` takes `text`."""
    return not _problem(text)


def proposal_branch(proposal: ProposalId) -> BranchName:
    """Return the branch that holds one proposal.

    Raises:
        InvalidInput: `proposal` has not the form of a proposal's id.
    """
    if not (is_id(proposal) and proposal.startswith("prop-")):
        raise InvalidInput(f"{proposal[:80]!r} is no proposal id.")
    return BranchName(f"{PROPOSALS}/{proposal}")


def proposal_of(branch: BranchName) -> ProposalId | None:
    """Return the proposal that a branch holds, None for every other branch."""
    first, _, rest = branch.partition("/")
    held = first == PROPOSALS and is_id(rest) and rest.startswith("prop-")
    return ProposalId(rest) if held else None


def branch_clash(names: Collection[str], name: BranchName) -> str | None:
    """Return a name that cannot stand beside `name`, None if it is free.

    Git keeps a branch in a file of its name, so `ada` and `ada/faster` exclude each other.
    """
    above = {"/".join(name.split("/")[:end]) for end in range(1, name.count("/") + 1)}
    clashing = (taken for taken in names if taken in above or taken.startswith(f"{name}/"))
    return min(clashing, default=None)


def _problem(text: str) -> str:
    """Return the rule that `text` breaks; empty when it breaks none."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it holds a lone surrogate"
    if not text or size > MAX_BRANCH_BYTES or text.count("/") >= MAX_BRANCH_SEGMENTS:
        return f"it has 1 to {MAX_BRANCH_BYTES} bytes in at most {MAX_BRANCH_SEGMENTS} segments"
    if pair := next((pair for pair in _FORBIDDEN if pair in text), ""):
        return f"it holds {pair!r}"
    return _character_problem(text) or _segment_problem(text)


def _character_problem(text: str) -> str:
    hidden = any(unicodedata.category(c) in {"Cc", "Cf"} for c in text)
    if hidden or _CHARACTERS & set(text):
        return "it holds a blank, one of ~ ^ : ? * [ \\, or a character that is not seen"
    if unicodedata.normalize("NFC", text) != text:
        return "it is not in Unicode normal form C"
    return ""


def _segment_problem(text: str) -> str:
    if text in {"@", "HEAD"} or text.startswith("-") or _HASH.fullmatch(text):
        return "it means something else to git"
    for segment in text.split("/"):
        if not segment or segment.startswith(".") or segment.endswith((".", ".lock")):
            return "a segment is empty, begins with a dot, or ends with a dot or .lock"
    return ""
