"""How tokens are stored: as a SHA-256, since they are 256 random bits.

Nobody can guess such a token, which is what a slow hash would guard against, and an index finds
the hash.

>>> len(hash_token("angel_x"))
32
"""

from __future__ import annotations

import hashlib

MAX_TOKEN = 512


def hash_token(token: str) -> bytes:
    """Return the SHA-256 by which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
