"""Ed25519 keys in files that only their owner can read.

For example:

    log_key = load_or_create(data_dir / "keys" / "log.key")
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from angelos.core.errors import Tampered
from angelos.core.signing import SigningKey

SEED_BYTES = 32


def load_or_create(path: Path) -> SigningKey:
    """Return the key whose 32-byte seed is in `path`; create it (mode 0600) if there is none.

    Two processes that start at once get the same key: the file appears whole or not at all.

    Raises:
        Tampered: the file has another size, or other users may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _create(path, SigningKey.generate().seed)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Tampered(f"Other users may read {path} (mode {mode:04o}).", hint=f"chmod 600 {path}")
    seed = path.read_bytes()
    if len(seed) != SEED_BYTES:
        raise Tampered(f"{path} holds {len(seed)} bytes, not a key of {SEED_BYTES}.")
    return SigningKey(seed)


def _create(path: Path, seed: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed)
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)  # fails if another process was first, whose key is used then
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
