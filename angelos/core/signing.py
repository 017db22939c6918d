r"""Ed25519 signatures (RFC 8032) over bytes that name what they are for.

Each use signs `context + b"\\0" + body`, so that a signature made for a grant can never be
passed off as one for a commit.

    >>> key = SigningKey.generate()
    >>> key.public.verify(b"angelos.example.v1", b"body", key.sign(b"angelos.example.v1", b"body"))
    True
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True)
class VerifyKey:
    """A public key: 32 raw bytes."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the key's SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verify(self, context: bytes, body: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's for `body` in `context`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, context + b"\0" + body)
        except (InvalidSignature, ValueError):
            return False
        return True

    def verify_envelope(self, kind: str, body: bytes, signature: bytes) -> bool:
        """Return whether a signature is this key's for a DSSE envelope of `body`."""
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(signature, _pre_authentication(kind, body))
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """A private key, kept as its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = VerifyKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new random key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, context: bytes, body: bytes) -> bytes:
        """Return the 64-byte signature of `body` in `context`."""
        return self._key.sign(context + b"\0" + body)

    def sign_envelope(self, kind: str, body: bytes) -> bytes:
        """Return the signature of a DSSE envelope of `body`, whose type is `kind`.

        It can be passed off as nothing else: no context of ours begins with `DSSEv1`.
        """
        return self._key.sign(_pre_authentication(kind, body))


def _pre_authentication(kind: str, body: bytes) -> bytes:
    """Return what DSSE signs (https://github.com/secure-systems-lab/dsse, protocol v1)."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)
