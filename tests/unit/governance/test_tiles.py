"""Tiles give the same proofs as the leaves, and each proof reads a handful of them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.governance.log.merkle import Frontier, verify_consistency, verify_inclusion
from angelos.governance.log.tiles import (
    TILE_BYTES,
    TileId,
    consistency_spans,
    edge_ids,
    grown,
    inclusion_spans,
    span_hash,
    tiles_of,
)
from tests.unit.governance.merkle_oracle import consistency_proof, inclusion_proof

LEAVES = [hashlib.sha256(b"%d" % n).digest() for n in range(70_000)]
SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 1_000, 65_535, 65_536, 65_537, 70_000]


def tiles_for(batches):
    tiles: dict[TileId, bytes] = {}
    size = 0
    for batch in batches:
        edge = {tile.level: tiles[tile] for tile in edge_ids(size)}
        tiles |= grown(edge, size, batch)
        size += len(batch)
    return tiles


@pytest.fixture(scope="module")
def tiles():
    return tiles_for([LEAVES])


def cut(tiles, size):
    """What the tiles of a smaller tree are: those of the larger one, cut off at its edge."""
    smaller = {}
    for (level, index), tile in tiles.items():
        count = min(256, max(0, size // 256**level - 256 * index))
        if count:
            smaller[TileId(level, index)] = tile[: 32 * count]
    return smaller


def test_the_example_of_the_specification(tiles):
    widths = {}
    for (level, _), tile in tiles.items():
        widths.setdefault(level, []).append(len(tile) // 32)
    assert widths == {0: [256] * 273 + [112], 1: [256, 17], 2: [1]}
    assert edge_ids(70_000) == [TileId(0, 273), TileId(1, 1), TileId(2, 0)]


@given(st.lists(st.integers(0, 300), max_size=6))
@settings(deadline=None)
def test_growing_in_batches_is_growing_at_once(counts):
    start, batches = 0, []
    for count in counts:
        batches.append(LEAVES[start : start + count])
        start += count
    assert tiles_for(batches) == tiles_for([LEAVES[:start]])


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_at_the_edges(tiles, size):
    tree = cut(tiles, size)
    root = Frontier().extend(LEAVES[:size]).root()
    for index in {0, 1, size // 2, 254, 255, 256, 257, size - 2, size - 1}:
        if not 0 <= index < size:
            continue
        spans = inclusion_spans(index, size)
        proof = [span_hash(span, tree) for span in spans]
        assert verify_inclusion(LEAVES[index], index, size, proof, root)
        assert len(tiles_of(spans)) <= 6
        if size <= 1_000:
            assert proof == inclusion_proof(LEAVES[:size], index)


@given(st.integers(1, 1_200), st.data())
@settings(deadline=None)
def test_proofs_are_those_of_the_definition(size, data):
    tree = tiles_for([LEAVES[:size]])
    index = data.draw(st.integers(0, size - 1))
    proof = [span_hash(span, tree) for span in inclusion_spans(index, size)]
    assert proof == inclusion_proof(LEAVES[:size], index)
    old = data.draw(st.integers(1, size))
    proof = [span_hash(span, tree) for span in consistency_spans(old, size)]
    assert proof == consistency_proof(LEAVES[:size], old)


@pytest.mark.parametrize("old", SIZES)
def test_consistency_with_the_whole(tiles, old):
    spans = consistency_spans(old, 70_000)
    proof = [span_hash(span, tiles) for span in spans]
    old_root = Frontier().extend(LEAVES[:old]).root()
    root = Frontier().extend(LEAVES).root()
    assert verify_consistency(old, old_root, 70_000, root, proof)


def test_a_missing_or_short_tile_is_an_error_and_never_a_hash(tiles):
    spans = inclusion_spans(3, 700)
    for bad in ({}, {TileId(0, 0): tiles[TileId(0, 0)][:-32]}):
        with pytest.raises(ValueError, match="missing or too short"):
            [span_hash(span, bad) for span in spans]
    with pytest.raises(ValueError, match="partial tile of level 0"):
        grown({0: b"x" * 32}, 2, LEAVES[:1])
    for index, size in ((-1, 5), (5, 5), (0, 0)):
        with pytest.raises(IndexError):
            inclusion_spans(index, size)
    for old, size in ((0, 5), (6, 5)):
        with pytest.raises(IndexError):
            consistency_spans(old, size)
    assert TILE_BYTES == 8_192
