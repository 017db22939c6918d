r"""The Merkle tree of RFC 6962, section 2.1, as functions over hashes.

A tree grows at its right edge only. So the roots of its full subtrees from left to right (the
frontier, at most 64 hashes) are enough to append leaves and to compute the root:

        root            size 5 = 4 + 1: two full subtrees, frontier (n, e)
       /    \
      n      e          root = H(n, e)
     / \
    .   .               >>> Frontier().append(leaf_hash(b"a")).root() == leaf_hash(b"a")
   a b c d              True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(body: bytes) -> bytes:
    """Return SHA-256(0x00 || body): the hash of a leaf (section 2.1)."""
    return hashlib.sha256(b"\0" + body).digest()


def node_hash(first: bytes, second: bytes) -> bytes:
    """Return SHA-256(0x01 || first || second): the hash of an inner node (section 2.1)."""
    return hashlib.sha256(b"\1" + first + second).digest()


class Frontier(NamedTuple):
    """A tree of `size` leaves as the roots of its full subtrees, the largest first."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """Return the tree with one more leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """Return the tree with more leaf hashes, in order."""
        size, nodes = self.size, list(self.nodes)
        for leaf in leaves:
            node, full = leaf, size
            while full & 1:  # while a subtree of the same height is to the left
                node = node_hash(nodes.pop(), node)
                full >>= 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """Return the Merkle tree hash, MTH of section 2.1."""
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1]
        for subtree in reversed(self.nodes[:-1]):
            root = node_hash(subtree, root)
        return root

    def packed(self) -> bytes:
        """Return the hashes as one string of bytes."""
        return b"".join(self.nodes)

    @classmethod
    def unpacked(cls, size: int, packed: bytes) -> Frontier:
        """Return the frontier that `packed` holds; raise `ValueError` if it cannot be one."""
        if size < 0 or len(packed) != HASH_BYTES * size.bit_count():
            msg = f"a tree of {size} leaves has {size.bit_count()} full subtrees"
            raise ValueError(msg)
        starts = range(0, len(packed), HASH_BYTES)
        return cls(size, tuple(packed[start : start + HASH_BYTES] for start in starts))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Return whether `proof` shows that leaf `index` of the tree of `size` is `leaf`.

    The algorithm of RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    place, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            node = node_hash(sibling, node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether `proof` shows that the tree of `old_size` is a prefix of that of `size`.

    The algorithm of RFC 9162, section 2.1.4.2.
    """
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not path:
        return False
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old, new = path[0], path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old == old_root and new == root
