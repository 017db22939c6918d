"""How often this node has started each command, on disk, so that it outlives the node.

    attempts = Attempts(directory / "begun.json")
    attempts.begin(command.id)     # 1; 2 if the node died after it had started the command once

A command is delivered until it is acknowledged, so one whose node was killed is carried out
again; a reader of its output has to know that the output starts from the beginning.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from angelos.core.ids import CommandId

log = logging.getLogger(__name__)
REMEMBERED = 256
"""So many commands that do not run are remembered; one that has finished seldom comes again."""


class Attempts:
    """A small file, written once for each start. A file that cannot be read counts as empty."""

    def __init__(self, file: Path) -> None:
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
        """Record that a command starts and return how often it has started."""
        count = self._counts.pop(command, 0) + 1
        self._counts[command] = count  # the newest last
        self._running.add(command)
        idle = [command for command in self._counts if command not in self._running]
        for oldest in idle[: max(len(idle) - REMEMBERED, 0)]:
            del self._counts[oldest]
        part = self._file.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._counts))
            part.replace(self._file)
        except OSError as error:  # a full disk: the task itself may not need it
            log.warning("%s cannot be written: %s", self._file, error)
        return count

    def end(self, command: CommandId) -> None:
        """Record that a command no longer runs."""
        self._running.discard(command)
