r"""The tree as tiles of 256 hashes (C2SP tlog-tiles), so that a proof reads a few of them.

Tile n of level l holds the hashes of the full subtrees of 256**l leaves, 256 of them side by side;
the last tile of a level is partial. A tree of 70,000 leaves:

    level 2   [1]                     one hash: 65,536 leaves
    level 1   [256][17]               one for each full tile below
    level 0   [256] x 273, [112]      leaf hashes

A node of height h at position p covers the leaves p * 2**h up to (p + 1) * 2**h, and is computed
from the tile of level h // 8. A proof is a list of subtrees, each a few nodes, so what tiles it
needs is known before one is read:

    >>> spans = inclusion_spans(2, 5)            # leaf 2 of five: its sibling, (0, 1), and 4
    >>> spans
    [Span(first=3, end=4), Span(first=0, end=2), Span(first=4, end=5)]
    >>> sorted(tiles_of(spans))
    [TileId(level=0, number=0)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from angelos.governance.log.merkle import HASH_BYTES, node_hash

WIDTH = 256
_HEIGHT = 8
TILE_BYTES = WIDTH * HASH_BYTES


class TileId(NamedTuple):
    """Which tile."""

    level: int
    number: int


class Span(NamedTuple):
    """The leaves from `first` up to `end`, as a subtree or the right edge of a tree."""

    first: int
    end: int


Edge = Mapping[int, bytes]
"""The partial tile of each level of a tree, by level; empty ones are left out."""


def edge_ids(size: int) -> list[TileId]:
    """Return the partial tiles of a tree of `size` leaves, which `grown` needs."""
    ids = []
    level, width = 0, size
    while width:
        if width % WIDTH:
            ids.append(TileId(level, width // WIDTH))
        level, width = level + 1, width // WIDTH
    return ids


def grown(edge: Edge, size: int, leaves: Sequence[bytes]) -> dict[TileId, bytes]:
    """Return every tile that changes when leaves are appended, with its new content.

    Args:
        edge: The partial tiles of the tree of `size`.
        size: Leaves before.
        leaves: The new leaves' hashes, in order.
    """
    changed: dict[TileId, bytes] = {}
    level, start, fresh = 0, size, b"".join(leaves)
    while fresh:
        index, width = divmod(start, WIDTH)
        stored = edge.get(level, b"") if width else b""
        if len(stored) != width * HASH_BYTES:
            msg = f"the partial tile of level {level} has {len(stored)} bytes, not {width} hashes"
            raise ValueError(msg)
        row = stored + fresh
        tiles = [row[at : at + TILE_BYTES] for at in range(0, len(row), TILE_BYTES)]
        changed |= {TileId(level, index + n): tile for n, tile in enumerate(tiles)}
        full = [tile for tile in tiles if len(tile) == TILE_BYTES]
        level, start, fresh = level + 1, index, b"".join(map(_fold, full))
    return changed


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the subtrees of the audit path of leaf `index`, lowest first (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise IndexError(index)
    spans: list[Span] = []
    first, end = 0, size
    while end - first > 1:
        split = first + _split(end - first)
        if index < split:
            spans.append(Span(split, end))
            end = split
        else:
            spans.append(Span(first, split))
            first = split
    return spans[::-1]


def consistency_spans(old_size: int, size: int) -> list[Span]:
    """Return the subtrees of PROOF(old_size, size) of RFC 6962, section 2.1.2."""
    if not 0 < old_size <= size:
        raise IndexError(old_size)
    spans: list[Span] = []
    first, end, complete = 0, size, True
    while end != old_size:
        split = first + _split(end - first)
        if old_size <= split:
            spans.append(Span(split, end))
            end = split
        else:
            spans.append(Span(first, split))
            first, complete = split, False
    return [*([] if complete else [Span(first, end)]), *spans[::-1]]


def nodes_of(span: Span) -> list[tuple[int, int]]:
    """Return (height, position) of the full subtrees that a span consists of, left to right."""
    nodes = []
    first = span.first
    while first < span.end:
        height = (span.end - first).bit_length() - 1
        if first:
            height = min(height, (first & -first).bit_length() - 1)
        nodes.append((height, first >> height))
        first += 1 << height
    return nodes


def tiles_of(spans: Iterable[Span]) -> set[TileId]:
    """Return the tiles that the hashes of these subtrees are computed from."""
    return {_tile_of(*node) for span in spans for node in nodes_of(span)}


def span_hash(span: Span, tiles: Mapping[TileId, bytes]) -> bytes:
    """Return the hash of a subtree.

    Raises:
        ValueError: A tile is missing or too short.
    """
    hashes = [_node(height, position, tiles) for height, position in nodes_of(span)]
    root = hashes[-1]
    for hash_ in reversed(hashes[:-1]):
        root = node_hash(hash_, root)
    return root


def _tile_of(height: int, position: int) -> TileId:
    level, above = divmod(height, _HEIGHT)
    return TileId(level, (position << above) // WIDTH)


def _node(height: int, position: int, tiles: Mapping[TileId, bytes]) -> bytes:
    """Return the hash of a full subtree from the tile that holds its parts."""
    above = height % _HEIGHT
    start = ((position << above) % WIDTH) * HASH_BYTES
    parts = tiles.get(_tile_of(height, position), b"")[start : start + (HASH_BYTES << above)]
    if len(parts) != HASH_BYTES << above:
        msg = f"the tile of the node of height {height} at {position} is missing or too short"
        raise ValueError(msg)
    return _fold(parts)


@lru_cache(maxsize=512)  # the upper tiles are those of every proof
def _fold(hashes: bytes) -> bytes:
    """Return the root over a power of two of hashes."""
    while len(hashes) > HASH_BYTES:
        hashes = b"".join(
            [
                sha256(b"\1" + hashes[at : at + 2 * HASH_BYTES]).digest()  # `node_hash`, inline
                for at in range(0, len(hashes), 2 * HASH_BYTES)
            ]
        )
    return hashes


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size` (k of section 2.1)."""
    return 1 << ((size - 1).bit_length() - 1)
