"""Temporary folders outside the node's own one, recorded so that a killed node leaves none.

    folders = ScratchFolders(directory / "scratch")
    folders.sweep()                    # at the start: remove what killed nodes have left
    path = folders.make()              # recorded first, then made
    folders.remove(path)

Only a recorded folder is ever removed, and only after the process that made it has ended.
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


class _Record(msgspec.Struct, frozen=True):
    """Where a folder is and which process made it."""

    path: str
    pid: int
    start_ticks: int


class ScratchFolders:
    """Makes, removes and sweeps temporary folders."""

    def __init__(self, records: Path | None) -> None:
        """Keep one small file for each folder in `records`; without it nothing can be swept."""
        self._records = records

    def make(self) -> Path:
        """Return a new, private temporary folder; raises `OSError`."""
        path = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
        if self._records is not None:
            self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
            pid = os.getpid()
            record = _Record(str(path), pid, start_ticks(pid))
            (self._records / path.name).write_bytes(msgspec.json.encode(record))
        path.mkdir(mode=0o700)
        return path

    def remove(self, path: Path) -> None:
        """Remove a folder and its record; a folder that cannot be removed stays recorded."""
        try:
            remove_tree(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s cannot be removed, the next start tries again: %s", path, error)
            return
        if self._records is not None:
            (self._records / path.name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the folders of processes that have ended."""
        if self._records is None or not self._records.is_dir():
            return
        for file in self._records.iterdir():
            try:
                record = msgspec.json.decode(file.read_bytes(), type=_Record)
            except (OSError, msgspec.DecodeError):  # it died while it wrote: no folder was made yet
                file.unlink(missing_ok=True)
                continue
            # A process id may be in use again; its start time tells two processes apart.
            ended = start_ticks(record.pid) != record.start_ticks
            if ended and Path(record.path).name == file.name:
                self.remove(Path(record.path))
