"""A witness cosigns what continues its last tree, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.core.errors import Conflict, InvalidInput, NotFound, Tampered
from angelos.governance.log.checkpoint import Checkpoint, LogKeys
from angelos.governance.log.merkle import Frontier
from angelos.governance.witness.client import parse_witnesses
from angelos.governance.witness.folder import WitnessFolder
from angelos.governance.witness.state import (
    WitnessRequest,
    WitnessStatus,
    parse_witness_request,
    witness_verdict,
)
from tests.unit.governance.merkle_oracle import consistency_proof

ORIGIN = "angelos/audit/one"
KEYS = LogKeys(ORIGIN, bytes(range(32)), bytes(range(32)))
LATER = LogKeys(ORIGIN, bytes(32), bytes(32))
LEAVES = [bytes([n]) * 32 for n in range(24)]


def tree(size, leaves=LEAVES, origin=ORIGIN):
    return Checkpoint(origin, size, Frontier().extend(leaves[:size]).root())


def request(old, size, *, keys=KEYS, leaves=LEAVES, proof=None, origin=ORIGIN):
    if proof is None:
        proof = consistency_proof(leaves[:size], old) if 0 < old < size else []
    return WitnessRequest(old, tuple(proof), keys.sign(tree(size, leaves, origin), 1))


def status(asked, last=None):
    return witness_verdict(asked, {ORIGIN: [KEYS.epoch]}, {ORIGIN: last} if last else {}).status


@given(st.integers(0, 24), st.integers(0, 24))
@settings(deadline=None)
def test_it_cosigns_a_log_that_grows(old, size):
    asked = request(old, size)
    if old > size:
        assert status(asked, tree(old)) is WitnessStatus.malformed
    else:
        assert status(asked, tree(old)) is WitnessStatus.cosigned
    assert parse_witness_request(asked.encoded.encode()) == asked


def test_it_refuses_everything_else():
    last = tree(9)
    other = LEAVES[::-1]
    assert status(request(9, 12, leaves=other), last) is WitnessStatus.inconsistent
    assert status(request(9, 12, proof=[bytes(32)]), last) is WitnessStatus.inconsistent
    assert status(request(9, 9, leaves=other, proof=[]), last) is WitnessStatus.conflict
    assert status(request(8, 12), last) is WitnessStatus.conflict
    assert status(request(0, 12), last) is WitnessStatus.conflict
    assert status(request(9, 12)) is WitnessStatus.conflict
    assert status(request(9, 12, keys=LATER), last) is WitnessStatus.unsigned
    stranger = LogKeys("angelos/audit/two", bytes(32), bytes(32))
    assert status(request(0, 3, keys=stranger, origin="angelos/audit/two")) is (
        WitnessStatus.unknown_log
    )
    # A log cannot sign another's checkpoint, and needs both keys.
    assert status(request(0, 3, keys=stranger)) is WitnessStatus.unsigned
    half = request(0, 3)
    cut = half._replace(note="\n".join(half.note.split("\n")[:-2]) + "\n")
    assert status(cut) is WitnessStatus.unsigned
    assert status(half._replace(note="nonsense")) is WitnessStatus.malformed


@given(st.binary(max_size=300))
def test_any_body_is_a_request_or_refused(body):
    try:
        asked = parse_witness_request(body)
    except Tampered:
        return
    assert asked.encoded.encode() == body


@pytest.mark.parametrize("body", [
    b"", b"old 0", b"old 00\n\n", b"old -1\n\nx", b"old 1\nAA==\n\nx",
    b"old " + b"9" * 20 + b"\n\n", b"old 0\n" + b"A" * 43 + b"=\n" * 64 + b"\nx", b"\xff\n\n",
])  # fmt: skip
def test_a_malformed_request_is_refused(body):
    with pytest.raises(Tampered):
        parse_witness_request(body)


def test_the_folder_keeps_its_key_its_logs_and_their_last(tmp_path):
    folder = WitnessFolder(tmp_path / "witness")
    with pytest.raises(NotFound):
        folder.key()
    key = folder.create("w.example")
    assert folder.key().public == key.public
    with pytest.raises(Conflict):
        folder.create("w.example")
    assert (tmp_path / "witness" / "key").stat().st_mode & 0o777 == 0o600
    assert folder.logs() == {}
    assert folder.trust([KEYS.epoch, LATER.epoch]) == ORIGIN
    assert folder.logs() == {ORIGIN: [KEYS.epoch, LATER.epoch]}
    assert folder.last(ORIGIN, [KEYS.epoch]) is None
    folder.remember(ORIGIN, KEYS.sign(tree(3), 1))
    assert folder.last(ORIGIN, [KEYS.epoch]) == tree(3)
    with pytest.raises(InvalidInput):
        folder.trust([])
    with pytest.raises(InvalidInput):
        WitnessFolder(tmp_path / "bad").create("with space")
    (tmp_path / "witness" / "key").chmod(0o644)
    with pytest.raises(Tampered):
        folder.key()


def test_a_file_of_witnesses(tmp_path):
    vkey = WitnessFolder(tmp_path / "w").create("w.example").public.vkey
    (one,) = parse_witnesses(f"# ours\n\nhttp://w.example/ {vkey}\n")
    assert (one.url, one.key.vkey) == ("http://w.example", vkey)
    for bad in (f"w.example {vkey}", "http://w.example", "http://w.example x"):
        with pytest.raises(InvalidInput):
            parse_witnesses(bad)
