"""A real `angelos demo` for tests, and what it left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.demo_stores import Left, read

MAIN, DEV = "study:main", "study:dev"


@contextmanager
def demo_process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the demo as a shell does: in a process group of its own, as Ctrl-C would reach it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "angelos", "demo", "--json", "--keep", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # it ends what it started, however the test went


@dataclass
class Demo:
    """One run of the demo and what it left behind."""

    root: Path
    left: Left
    report: dict[str, Any]
    stderr: str

    def __getitem__(self, step: str) -> dict[str, Any]:
        """Return the evidence of a step."""
        return next(s["evidence"] for s in self.report["steps"] if s["name"] == step)

    def moves_of_main(self, after: int, before: int) -> list[dict[str, Any]]:
        """Return how `main` moved between two entries of the audit log."""
        return [f for f in self.left.find("branch.advanced", MAIN) if after < f["index"] < before]


def run_demo(root: Path) -> Demo:
    """Run the demo to its end, which has to be good, and read its stores."""
    with demo_process(root) as process:
        out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err + out
    report = json.loads(out.splitlines()[-1])
    return Demo(root, asyncio.run(read(root)), report, err)
