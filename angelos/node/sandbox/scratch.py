"""Folders outside the node's own one that a killed node would leave behind, noted on disk.

    folders = Leftovers(directory / "scratch")
    folders.sweep()                    # at the start: what a killed process of ours has left
    path = folders.make()              # noted first, then made
    folders.remove(path)

Only what was noted is ever removed, and only when the process that made it is gone.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from pathlib import Path

import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.node.sandbox.proc import start_ticks

log = logging.getLogger(__name__)
_PREFIX = "angelos-task-"


class _Note(msgspec.Struct, frozen=True):
    """Where a folder is and which process made it."""

    path: str
    pid: int
    start_ticks: int


class Leftovers:
    """Makes, removes and sweeps temporary folders; without `notes` nothing can be swept."""

    def __init__(self, notes: Path | None) -> None:
        """Take the folder for the notes, one small file for each temporary folder."""
        self._notes = notes

    def make(self) -> Path:
        """Return a new, private temporary folder; raises `OSError`."""
        path = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
        if self._notes is not None:
            self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)
            pid = os.getpid()
            note = _Note(str(path), pid, start_ticks(pid))
            (self._notes / path.name).write_bytes(msgspec.json.encode(note))
        path.mkdir(mode=0o700)
        return path

    def remove(self, path: Path) -> None:
        """Remove a folder and its note; one that cannot be removed stays noted."""
        try:
            remove_tree(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s cannot be removed, left for the next start: %s", path, error)
            return
        if self._notes is not None:
            (self._notes / path.name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what processes that are gone have left."""
        if self._notes is None or not self._notes.is_dir():
            return
        for file in self._notes.iterdir():
            try:
                note = msgspec.json.decode(file.read_bytes(), type=_Note)
            except (OSError, msgspec.DecodeError):  # it died while it wrote: nothing was made yet
                file.unlink(missing_ok=True)
                continue
            if start_ticks(note.pid) != note.start_ticks and Path(note.path).name == file.name:
                self.remove(Path(note.path))
