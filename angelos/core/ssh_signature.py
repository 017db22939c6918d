r"""SSH signatures (OpenSSH, PROTOCOL.sshsig) with an Ed25519 key, as git makes and verifies them.

    >>> key = SigningKey(b"k" * 32)
    >>> ssh_signature(key, b"a commit")[:29]
    b'-----BEGIN SSH SIGNATURE-----'
    >>> ssh_public_key(key.public)[:19]
    'ssh-ed25519 AAAAC3N'

What is signed begins with `SSHSIG`, which no other use of our keys does (`core.signing`).
"""

from __future__ import annotations

import base64
import hashlib
import textwrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from angelos.core.signing import SigningKey, VerifyKey

_MAGIC = b"SSHSIG"
_ALGORITHM = b"ssh-ed25519"
_HASH = b"sha512"
_COLUMNS = 70


def ssh_signature(key: SigningKey, message: bytes, namespace: bytes = b"git") -> bytes:
    """Return the armoured signature of a message."""
    signed = _MAGIC + b"".join(
        map(_string, (namespace, b"", _HASH, hashlib.sha512(message).digest()))
    )
    raw = Ed25519PrivateKey.from_private_bytes(key.seed).sign(signed)
    signature = _string(_ALGORITHM) + _string(raw)
    blob = _MAGIC + (1).to_bytes(4, "big")
    blob += b"".join(map(_string, (_public(key.public), namespace, b"", _HASH, signature)))
    rows = textwrap.wrap(base64.b64encode(blob).decode(), _COLUMNS)
    lines = ["-----BEGIN SSH SIGNATURE-----", *rows, "-----END SSH SIGNATURE-----"]
    return "\n".join(lines).encode()


def ssh_public_key(key: VerifyKey) -> str:
    """Return a public key in the form of `authorized_keys`."""
    return f"{_ALGORITHM.decode()} {base64.b64encode(_public(key)).decode()}"


def _public(key: VerifyKey) -> bytes:
    return _string(_ALGORITHM) + _string(key.raw)


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
