"""The README's five minutes: its very lines, one after the other, in one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.up_process import running

ROOT = Path(__file__).parents[2]
SET_UP = ["make lab", ". .venv/bin/activate"]
"""What the test does in its own way: it has a system of its own and this very Python."""
OUTPUT = {
    "angelos status": "node/exec1",
    "angelos run -c 'print(6 * 7)'": "42",
    "angelos run -c 'while True: pass' --timeout 2": "angelos: timeout after 2.",
    "angelos repo import examples/my-study": "are the repository my-study; main is",
    "angelos propose": "waiting",
    "ID=": "",
    "angelos proposal show": "+def median(",
    "angelos proposal approve": "promoted",
    "angelos repo rollback": "main of my-study is now",
    "angelos audit verify": "",
    "angelos doctor": "isolation",
}
"""The beginning of each line -> what it has to print."""
FAILS = ("angelos run -c 'while True",)


class Line(NamedTuple):
    """A line of the README as it ran."""

    command: str
    code: int
    output: str


def lines() -> list[str]:
    """Return the lines below "Five minutes", without their comments."""
    section = (ROOT / "README.md").read_text().split("## Five minutes")[1].split("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    printed = [line for line in block.splitlines() if line.strip()]
    assert all(line.startswith("$ ") for line in printed)
    return [re.sub(r"\s+# .*", "", line[2:]) for line in printed]


def run(commands: list[str], data_dir: Path) -> list[Line]:
    """Run the lines in one shell, as somebody types them in the checkout."""
    script = "".join(f"{c}\nprintf '\\n@@@ %s\\n' $?\n" for c in commands)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=ROOT, env={**os.environ, "PATH": path, "ANGELOS_DATA_DIR": str(data_dir)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    parts = re.split(r"\n@@@ (\d+)\n", done.stdout)
    assert len(parts) == 2 * len(commands) + 1, done.stdout
    return [Line(c, int(parts[2 * n + 1]), parts[2 * n]) for n, c in enumerate(commands)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_line_runs_as_printed(tmp_path):
    printed = lines()
    assert printed[: len(SET_UP)] == SET_UP
    commands = printed[len(SET_UP) :]
    assert any(c.startswith("angelos propose ") for c in commands)
    assert any(c.startswith("angelos proposal approve ") for c in commands)
    with running(tmp_path / "data") as up:
        ran = run(commands, up.data.root)
    for line in ran:
        start = next(start for start in OUTPUT if line.command.startswith(start))
        assert line.code == (1 if line.command.startswith(FAILS) else 0), line
        assert OUTPUT[start] in line.output, line
        assert "Traceback" not in line.output


def test_what_make_lab_runs_is_there():
    """The first line is tested by hand; that it would find its files is tested here."""
    recipe = (ROOT / "Makefile").read_text().split("\nlab:")[1].split("\n\n")[0]
    assert "angelos up" in recipe
    assert (ROOT / "notebooks" / "00_quickstart.ipynb").exists()
