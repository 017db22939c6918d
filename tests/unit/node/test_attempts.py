"""How often a command was started here, over restarts of the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from angelos.core.ids import CommandId
from angelos.node.commands.attempts import REMEMBERED, Attempts


def test_attempts_are_counted_over_restarts_and_bounded(tmp_path: Path) -> None:
    file, long = tmp_path / "begun.json", CommandId("cmd-long")
    attempts = Attempts(file)
    assert attempts.begin(long) == 1
    for number in range(2 * REMEMBERED):
        short = CommandId(f"cmd-{number}")
        assert attempts.begin(short) == 1
        attempts.end(short)
    assert len(file.read_bytes()) < 30 * REMEMBERED
    again = Attempts(file)
    assert (again.begin(long), again.begin(CommandId("cmd-0"))) == (2, 1)
    file.write_bytes(b"half a fi")
    assert Attempts(file).begin(long) == 1


def test_a_full_disk_does_not_keep_a_task_from_starting(tmp_path: Path, caplog: Any) -> None:
    attempts = Attempts(tmp_path / "gone" / "begun.json")
    assert attempts.begin(CommandId("cmd-1")) == 1
    assert "cannot be written" in caplog.text
