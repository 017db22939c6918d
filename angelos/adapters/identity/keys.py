"""Ed25519 keys in files of their own, readable by the owner only.

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
    """Return the key whose 32-byte seed is in `path`, made now (mode 0600) if it is not there.

    Two processes that start at once get the same key: the file appears whole or not at all.
    Raises `Tampered` when the file has another size or others may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _create(path, SigningKey.generate().seed)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Tampered(f"{path} is open to others (mode {mode:04o}).", hint=f"chmod 600 {path}")
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
        os.link(fresh, path)  # fails if somebody else was first, and then theirs is the key
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
