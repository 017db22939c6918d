"""What the signer signs: one log, each tree a continuation of the last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from angelos.governance.log.checkpoint import Checkpoint
from angelos.governance.log.merkle import verify_consistency


class SignRefusal(StrEnum):
    """Why a tree is not signed."""

    origin = "origin"
    """It is of another log."""
    shrunk = "shrunk"
    """It is smaller than the last one."""
    inconsistent = "inconsistent"
    """The last one is not a prefix of it."""


class SignRequest(msgspec.Struct, frozen=True):
    """Sign this tree."""

    origin: str
    size: int
    root: bytes
    proof: tuple[bytes, ...] = ()
    """Consistency with the last tree that was signed (RFC 6962, section 2.1.2)."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The tree."""
        return Checkpoint(self.origin, self.size, self.root)


def refusal(
    origin: str, last: Checkpoint | None, tree: Checkpoint, proof: Sequence[bytes]
) -> SignRefusal | None:
    """Return why a tree is not signed, or None.

    Args:
        origin: The log that is signed for.
        last: The last tree that was signed, if any.
        tree: The one to sign.
        proof: Its consistency with the last one.
    """
    if tree.origin != origin or tree.size < 0:
        return SignRefusal.origin
    if last is None or last.size == 0:
        return None
    if tree.size < last.size:
        return SignRefusal.shrunk
    if not verify_consistency(last.size, last.root, tree.size, tree.root, proof):
        return SignRefusal.inconsistent
    return None
