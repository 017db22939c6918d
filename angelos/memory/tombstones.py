"""The ids of what was forgotten, in a file outside of both stores.

A backup holds both stores as they were, tombstones included; what was forgotten after it is in
neither. This file is in the data directory, and `angelos restore` carries it over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from angelos.core.memories import MemoryId, is_memory_id


class TombstoneFile:
    """Ids, one a line, each written before its memory is deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[MemoryId]:
        """Return the ids in the order of their end; a line that a crash cut off is none."""
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [MemoryId(line) for line in lines if is_memory_id(line)]

    def append(self, ids: Iterable[MemoryId]) -> None:
        """Add ids durably; raise `OSError` if the file is a link, which nobody of us made."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            # A line end first: a crash may have cut the last line off.
            file.write(("\n" + "".join(f"{each}\n" for each in ids)).encode())
            file.flush()
            os.fsync(file.fileno())
