"""A witness's folder: its key, the logs that it knows, and their last checkpoints.

<folder>/name  key              its name, and the seed of its key (mode 0600)
<folder>/logs/<hash>/vkeys      the keys of a log, as `angelos audit keys` prints them
<folder>/logs/<hash>/last       the last checkpoint that was cosigned
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from angelos.adapters.host.datadir import write_private
from angelos.core.errors import Conflict, InvalidInput, NotFound, Tampered
from angelos.governance.log.checkpoint import (
    SEED_BYTES,
    Checkpoint,
    KeyEpoch,
    WitnessKey,
    open_checkpoint,
)
from angelos.governance.log.notes import NoteKey, parse_vkey_lines, vkey_lines


class WitnessFolder:
    """The state of one witness on disk.

    Args:
        path: Of the folder; `create` makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self, name: str) -> WitnessKey:
        """Make a new witness.

        Raises:
            Conflict: There is one.
            InvalidInput: A key cannot have this name.
        """
        key = WitnessKey(name, secrets.token_bytes(SEED_BYTES))
        NoteKey.parse(key.public.vkey)
        if (self._path / "key").exists():
            raise Conflict(f"{self._path} is a witness already.")
        (self._path / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        seed = secrets.token_bytes(SEED_BYTES)
        write_private(self._path / "name", name.encode())
        write_private(self._path / "key", seed)
        return WitnessKey(name, seed)

    def key(self) -> WitnessKey:
        """Return the witness's key.

        Raises:
            NotFound: The folder is no witness.
            Tampered: Others may read the key, or it has another size.
        """
        place = self._path / "key"
        if not place.exists():
            raise NotFound(
                f"{self._path} is no witness.", hint="`angelos audit witness init` makes one."
            )
        seed = place.read_bytes()
        if len(seed) != SEED_BYTES or place.stat().st_mode & 0o077:
            raise Tampered(f"{place} is not a key that only its owner can read.")
        return WitnessKey((self._path / "name").read_text(encoding="utf-8"), seed)

    def trust(self, epochs: list[KeyEpoch]) -> str:
        """Learn the keys of a log, all that it has; return its name.

        Raises:
            InvalidInput: They are not the keys of one log.
        """
        origins = {key.name for epoch in epochs for key in epoch}
        if len(origins) != 1:
            raise InvalidInput("The file holds not the keys of one log.")
        (origin,) = origins
        folder = self._log(origin)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "vkeys", vkey_lines(epochs))
        return origin

    def logs(self) -> dict[str, list[KeyEpoch]]:
        """Return the keys of each log that the witness knows."""
        keys: dict[str, list[KeyEpoch]] = {}
        for file in sorted(self._path.glob("logs/*/vkeys")):
            epochs = parse_vkey_lines(file.read_text(encoding="utf-8"))
            if epochs:
                keys[epochs[0][0].name] = epochs
        return keys

    def last(self, origin: str, epochs: list[KeyEpoch]) -> Checkpoint | None:
        """Return the last checkpoint of a log that was cosigned; raise `Tampered` if it is bad."""
        place = self._log(origin) / "last"
        if not place.exists():
            return None
        return open_checkpoint(place.read_text(encoding="utf-8"), epochs)

    def remember(self, origin: str, note: str) -> None:
        """Keep the last checkpoint of a log, durably."""
        folder = self._log(origin)
        write_private(folder / "last", note.encode())
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _log(self, origin: str) -> Path:
        return self._path / "logs" / hashlib.sha256(origin.encode()).hexdigest()[:32]
