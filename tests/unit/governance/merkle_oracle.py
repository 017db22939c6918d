"""Proofs as RFC 6962 writes them down, over all leaves: what the tiles are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from angelos.governance.log.merkle import Frontier


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of leaf `index`, PATH of section 2.1.1; the lowest hash first."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    first, second = leaves[:split], leaves[split:]
    if index < split:
        return [*inclusion_proof(first, index), _root(second)]
    return [*inclusion_proof(second, index - split), _root(first)]


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return PROOF(old_size, leaves) of section 2.1.2: the old tree is a prefix of this one."""
    if not 0 < old_size <= len(leaves):
        raise IndexError(old_size)
    return _subproof(leaves, old_size, complete=True)


def _subproof(leaves: Sequence[bytes], old_size: int, *, complete: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if complete else [_root(leaves)]
    split = _split(len(leaves))
    first, second = leaves[:split], leaves[split:]
    if old_size <= split:
        return [*_subproof(first, old_size, complete=complete), _root(second)]
    return [*_subproof(second, old_size - split, complete=False), _root(first)]


def _root(leaves: Sequence[bytes]) -> bytes:
    return Frontier().extend(leaves).root()


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size` (k of section 2.1)."""
    return 1 << ((size - 1).bit_length() - 1)
