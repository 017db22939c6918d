r"""Checkpoints: what the log's root was at a size, signed by the log and by witnesses.

A checkpoint (C2SP tlog-checkpoint) is a note of three lines: the log's name, how many leaves it
has, and its root. The log signs each with two keys, Ed25519 and ML-DSA-44, so that it stands when
either is broken; witnesses add cosignatures (C2SP tlog-cosignature), each with its time.

    >>> keys = LogKeys("angelos/audit/test", bytes(32), bytes(32))
    >>> note = keys.sign(Checkpoint("angelos/audit/test", 1, bytes(32)), at=1_700_000_000)
    >>> open_checkpoint(note, [keys.epoch]).size
    1
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from angelos.core.errors import Tampered
from angelos.governance.log.merkle import HASH_BYTES
from angelos.governance.log.notes import (
    Algorithm,
    Note,
    NoteKey,
    NoteSignature,
    parse_note,
    signature_of,
)

SEED_BYTES = 32
_TIME_BYTES = 8
_MAX_SIZE = 2**63 - 1
_MAX_TIME = 2**63 - 1
_LABEL = b"subtree/v1\n\0"

KeyEpoch = tuple[NoteKey, ...]
"""The keys of one life of the signer; a checkpoint needs the signature of each of them."""


class Checkpoint(NamedTuple):
    """The log of this name had `size` leaves and this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class LogKeys:
    """The private keys of a log: Ed25519 for every reader, ML-DSA-44 beside it.

    Args:
        origin: The log's name.
        seed: 32 bytes, of Ed25519.
        quantum_seed: 32 bytes, of ML-DSA-44.
    """

    def __init__(self, origin: str, seed: bytes, quantum_seed: bytes) -> None:
        self._signing = Ed25519PrivateKey.from_private_bytes(seed)
        self._quantum = MLDSA44PrivateKey.from_seed_bytes(quantum_seed)
        public, quantum = self._signing.public_key(), self._quantum.public_key()
        self.epoch: KeyEpoch = (
            NoteKey(origin, Algorithm.ed25519, public.public_bytes_raw()),
            NoteKey(origin, Algorithm.ml_dsa_44, quantum.public_bytes_raw()),
        )

    def sign(self, checkpoint: Checkpoint, at: int) -> str:
        """Return the signed note; `at` are Unix seconds."""
        plain, quantum = self.epoch
        message = _cosigned(quantum.name, at, checkpoint)
        stamp = at.to_bytes(_TIME_BYTES, "big")
        signatures = (
            signature_of(plain, self._signing.sign(checkpoint.text.encode())),
            signature_of(quantum, stamp + self._quantum.sign(message)),
        )
        return Note(checkpoint.text, signatures).encoded


class WitnessKey:
    """The private key of a witness."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        self.public = NoteKey(name, Algorithm.ml_dsa_44, self._key.public_key().public_bytes_raw())

    def cosign(self, checkpoint: Checkpoint, at: int) -> NoteSignature:
        """Return the cosignature of a checkpoint; `at` are Unix seconds."""
        message = _cosigned(self.public.name, at, checkpoint)
        stamp = at.to_bytes(_TIME_BYTES, "big")
        return signature_of(self.public, stamp + self._key.sign(message))


def parse_checkpoint(text: str) -> Checkpoint:
    """Return what a note's text says; raise `Tampered` if it is no checkpoint in its one form."""
    try:
        origin, size, root = text.split("\n")[:3]
        checkpoint = Checkpoint(origin, int(size), base64.b64decode(root, validate=True))
    except (ValueError, binascii.Error) as error:
        raise Tampered("The checkpoint has the wrong form.") from error
    sound = 0 <= checkpoint.size <= _MAX_SIZE and len(checkpoint.root) == HASH_BYTES
    # Encoding it again must give the same bytes: no second spelling of a number or base64.
    if not sound or checkpoint.text != text:
        raise Tampered("The checkpoint is not in its canonical form.")
    return checkpoint


def open_checkpoint(note: str, epochs: Collection[KeyEpoch]) -> Checkpoint:
    """Return the content of a note that is signed by every key of one of `epochs`.

    Raises:
        Tampered: It is not, or a byte differs from what was signed.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    origins = {key.name for epoch in epochs for key in epoch}
    if origins and checkpoint.origin not in origins:
        raise Tampered(f"The checkpoint is of another log, {checkpoint.origin[:80]!r}.")
    if not any(_signed_by(parsed, checkpoint, epoch) for epoch in epochs):
        raise Tampered("The checkpoint is not signed by the log's keys.")
    return checkpoint


def cosigners(note: str, witnesses: Sequence[NoteKey]) -> list[NoteKey]:
    """Return the witnesses whose valid cosignature a note bears.

    Raises:
        Tampered: The note has the wrong form.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    return [key for key in witnesses if _signed_by(parsed, checkpoint, (key,))]


def cosigned(note: str, signatures: Sequence[NoteSignature]) -> str:
    """Return the note with further signatures below it, none of them twice."""
    parsed = parse_note(note)
    fresh = [signature for signature in signatures if signature not in parsed.signatures]
    return Note(parsed.text, (*parsed.signatures, *fresh)).encoded


def verify_signature(key: NoteKey, checkpoint: Checkpoint, signature: bytes) -> bool:
    """Return whether `signature` is this key's for a checkpoint."""
    text = checkpoint.text.encode()
    try:
        if key.algorithm is Algorithm.ed25519:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
            return True
        at = int.from_bytes(signature[:_TIME_BYTES], "big")
        if at > _MAX_TIME:
            return False
        rest = signature[_TIME_BYTES:]
        if key.algorithm is Algorithm.cosignature:
            message = b"cosignature/v1\ntime %d\n" % at + text
            Ed25519PublicKey.from_public_bytes(key.public).verify(rest, message)
        else:
            message = _cosigned(key.name, at, checkpoint)
            MLDSA44PublicKey.from_public_bytes(key.public).verify(rest, message)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _signed_by(note: Note, checkpoint: Checkpoint, epoch: KeyEpoch) -> bool:
    return bool(epoch) and all(
        any(
            signature.is_of(key) and verify_signature(key, checkpoint, signature.signature)
            for signature in note.signatures
        )
        for key in epoch
    )


def _cosigned(name: str, at: int, checkpoint: Checkpoint) -> bytes:
    """Return the `cosigned_message` of tlog-cosignature, which ML-DSA-44 signs."""
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    return b"".join(
        (
            _LABEL,
            len(cosigner).to_bytes(1, "big"),
            cosigner,
            at.to_bytes(8, "big"),
            len(origin).to_bytes(1, "big"),
            origin,
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )
