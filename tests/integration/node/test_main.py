"""`python -m angelos.wiring.node` when it cannot begin: what it says and how it exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ([], 1, "holds no identity. Join with a token first: `angelos node join`"),
        (["--enrol", "a-token"], 2, "unrecognized arguments: --enrol a-token"),
        (["--role", "king"], 2, "invalid choice: 'king'"),
        (["--slots", "0"], 2, "'0' is not a number from 1"),
        (["--dir", sys.prefix + "/node"], 2, "which every task may read"),
        (["--dir", __file__], 1, "Not a directory"),
    ],
)
def test_it_cannot_begin(tmp_path: Path, more: list[str], code: int, says: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "angelos.wiring.node",
            "--name",
            "n",
            "--dir",
            str(tmp_path / "n"),
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
