r"""Signed checkpoints as C2SP notes, which other tools for transparency logs read.

A checkpoint (https://c2sp.org/tlog-checkpoint) is a note (https://c2sp.org/signed-note):

    angelos/audit/6fd0...     the log's name, also the key's
    7                         how many leaves
    Xz1o...=                  root, base64
                              (an empty line)
    — angelos/audit/6fd0... base64(first 4 bytes of the key's hash || Ed25519 signature)

    >>> key = SigningKey(bytes(32))
    >>> open_note(sign(key, 1, bytes(32)), key.public).size
    1
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from angelos.core.errors import Tampered
from angelos.core.signing import SigningKey, VerifyKey

_ALGORITHM = b"\x01"  # Ed25519, as signed-note numbers it
_KEY_HASH_BYTES = 4
_DASH = "\u2014 "


class Checkpoint(NamedTuple):
    """The content of a note: the log of `origin` had `size` leaves and this root."""

    origin: str
    size: int
    root: bytes


def origin_of(key: VerifyKey) -> str:
    """Return the name of the log that this key signs."""
    return f"angelos/audit/{key.key_id}"


def sign(key: SigningKey, size: int, root: bytes) -> str:
    """Return the signed note of a tree."""
    text = _text(Checkpoint(origin_of(key.public), size, root))
    # Not SigningKey.sign, which adds a context: C2SP signs the text of the note alone.
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    return _note(text, key.public, signature)


def open_note(note: str, key: VerifyKey) -> Checkpoint:
    """Return the content of a note.

    Raises:
        Tampered: A byte differs from what `key` signed.
    """
    try:
        text, _, last = note.rpartition("\n\n")
        text += "\n"
        origin, size, root = text.splitlines()
        checkpoint = Checkpoint(origin, int(size), base64.b64decode(root, validate=True))
        blob = base64.b64decode(last.rstrip("\n").rpartition(" ")[2], validate=True)
        signature = blob[_KEY_HASH_BYTES:]
        if origin != origin_of(key):
            raise Tampered(f"The checkpoint is of another log, {origin[:80]}.")
        # Encoding it again must give the same bytes: no second spelling of a number or base64.
        if _text(checkpoint) != text or _note(text, key, signature) != note:
            raise Tampered("The checkpoint is not in its canonical form.")
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, text.encode())
    except (ValueError, binascii.Error, InvalidSignature) as error:
        raise Tampered("The checkpoint's form or signature is wrong.") from error
    return checkpoint


def _text(checkpoint: Checkpoint) -> str:
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def _note(text: str, key: VerifyKey, signature: bytes) -> str:
    name = origin_of(key)
    key_hash = hashlib.sha256(name.encode() + b"\n" + _ALGORITHM + key.raw).digest()
    blob = base64.b64encode(key_hash[:_KEY_HASH_BYTES] + signature).decode()
    return f"{text}\n{_DASH}{name} {blob}\n"
