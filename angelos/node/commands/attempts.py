"""How often each command was begun here, kept over the node's death.

    attempts = Attempts(directory / "begun.json")
    attempts.begin(command.id)     # 1; 2 if the node died after it had begun it once

A command is delivered until it is acknowledged, so one whose node was killed is carried out
again; whoever reads its output has to know that it begins anew.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from angelos.core.ids import CommandId

log = logging.getLogger(__name__)
KEPT = 256
"""So many commands that do not run are remembered; one that finished seldom comes again."""


class Attempts:
    """A small file, written once for each beginning."""

    def __init__(self, file: Path) -> None:
        """Take the file; one that cannot be read counts for nothing."""
        self._file = file
        self._running: set[CommandId] = set()
        self._counts: dict[CommandId, int] = {}
        try:
            self._counts = msgspec.json.decode(file.read_bytes(), type=dict[CommandId, int])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s cannot be read, attempts count from 1 again: %s", file, error)

    def begin(self, command: CommandId) -> int:
        """Note that a command begins and return how often it has begun."""
        count = self._counts.pop(command, 0) + 1
        self._counts[command] = count  # the newest last
        self._running.add(command)
        idle = [known for known in self._counts if known not in self._running]
        for known in idle[: max(len(idle) - KEPT, 0)]:
            del self._counts[known]
        part = self._file.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._counts))
            part.replace(self._file)
        except OSError as error:  # a full disk: the task itself may do without
            log.warning("%s cannot be written: %s", self._file, error)
        return count

    def end(self, command: CommandId) -> None:
        """Note that a command runs no more."""
        self._running.discard(command)
