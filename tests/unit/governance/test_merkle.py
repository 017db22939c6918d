"""The tree against the recursive definitions of RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.governance.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from tests.unit.governance.merkle_oracle import consistency_proof, inclusion_proof

bodies = st.lists(st.binary(max_size=8), max_size=70)


def mth(entries):
    """MTH of section 2.1, word by word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def leaves_of(entries):
    return [leaf_hash(entry) for entry in entries]


def test_the_known_roots_of_certificate_transparency():
    """Test vectors of google/certificate-transparency (merkletree tests)."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
              "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Frontier()
    for entry, root in zip(inputs, roots, strict=True):
        tree = tree.append(leaf_hash(bytes.fromhex(entry)))
        assert tree.root().hex() == root


@given(bodies, st.integers(0, 70))
def test_root_and_frontier(entries, cut):
    tree = Frontier().extend(leaves_of(entries[:cut]))
    tree = Frontier.unpacked(tree.size, tree.packed()).extend(leaves_of(entries[cut:]))
    assert tree.root() == mth(entries)
    assert tree.size == len(entries)


def test_an_empty_tree():
    assert Frontier().root() == EMPTY_ROOT == mth([])


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_inclusion(entries, data):
    index = data.draw(st.integers(0, len(entries) - 1))
    leaves, root = leaves_of(entries), mth(entries)
    proof = inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, len(leaves), proof, root)
    assert not verify_inclusion(leaf_hash(b"another"), index, len(leaves), proof, root)
    assert not verify_inclusion(leaves[index], index, len(leaves), [*proof, bytes(32)], root)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        bad = [*proof[:place], node_hash(proof[place], b""), *proof[place + 1 :]]
        assert not verify_inclusion(leaves[index], index, len(leaves), bad, root)
        assert not verify_inclusion(leaves[index], index, len(leaves), proof[:-1], root)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_consistency(entries, data):
    old = data.draw(st.integers(1, len(entries)))
    leaves, root, old_root = leaves_of(entries), mth(entries), mth(entries[:old])
    proof = consistency_proof(leaves, old)
    assert verify_consistency(old, old_root, len(leaves), root, proof)
    other = mth([*entries[: old - 1], b"something else"])
    assert not verify_consistency(old, other, len(leaves), root, proof)
    assert not verify_consistency(old, old_root, len(leaves), root, [*proof, bytes(32)])
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        bad = [*proof[:place], node_hash(proof[place], b""), *proof[place + 1 :]]
        assert not verify_consistency(old, old_root, len(leaves), root, bad)
        assert not verify_consistency(old, old_root, len(leaves), root, proof[:-1])


@pytest.mark.parametrize("index", [-1, 3])
def test_no_proof_for_what_is_not_there(index):
    with pytest.raises(IndexError):
        inclusion_proof(leaves_of([b"a", b"b", b"c"]), index)
    assert not verify_inclusion(leaf_hash(b"a"), index, 3, [], mth([b"a"]))


@pytest.mark.parametrize("old", [0, 4])
def test_no_consistency_with_what_is_not_there(old):
    with pytest.raises(IndexError):
        consistency_proof(leaves_of([b"a", b"b", b"c"]), old)
    assert not verify_consistency(old, EMPTY_ROOT, 3, mth([b"a", b"b", b"c"]), [])


@pytest.mark.parametrize(("size", "packed"), [(1, b""), (3, bytes(32)), (-1, b""), (2, bytes(64))])
def test_a_frontier_of_the_wrong_form_is_refused(size, packed):
    with pytest.raises(ValueError, match="full subtrees"):
        Frontier.unpacked(size, packed)
