"""The program of a notebook step, run for real: a clean kernel over Unix sockets."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from angelos.control.proposals.notebook_step import program


def notebook(*sources):
    """Return a notebook's JSON."""
    cells = [
        {
            "cell_type": "code", "id": f"c{n}", "metadata": {}, "source": source,
            "execution_count": None, "outputs": [],
        }
        for n, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


async def run(folder):
    """Run the step in a read-only checkout and return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program("nb/a.ipynb", 60), cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"},
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "nb").mkdir()
    (tmp_path / "helper.py").write_text("ANSWER = 42\n")
    return tmp_path


async def test_a_good_notebook_passes_and_imports_from_the_checkout(checkout):
    (checkout / "nb/a.ipynb").write_text(
        notebook("from helper import ANSWER", "assert ANSWER == 42")
    )
    code, out = await run(checkout)
    assert code == 0, out
    assert "2 code cells ran" in out
    assert not list(checkout.rglob("__pycache__"))


async def test_a_failing_cell_fails_the_step_with_its_error(checkout):
    (checkout / "nb/a.ipynb").write_text(notebook("x = 1", "print('so far'); x / 0"))
    code, out = await run(checkout)
    assert code == 1
    assert "ZeroDivisionError" in out


async def test_a_notebook_that_is_none_fails(checkout):
    (checkout / "nb/a.ipynb").write_text("{")
    code, _ = await run(checkout)
    assert code == 1
