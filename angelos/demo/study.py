"""The repository of the demo: `statistics.py` and `difflib.py` of this interpreter.

Their docstrings hold some 150 doctests, which are the tests of the package `study`. The copy
lives in a package because `python -m doctest statistics.py` would import the library's own
module and pass whatever the copy says.

    >>> sorted(study_files())[:3]
    ['analysis.ipynb', 'angelos.toml', 'ruff.toml']
"""

from __future__ import annotations

import difflib
import json
import statistics
from pathlib import Path

REPO = "study"
PROTECTED = "study/constants.py"
POLICY = "angelos.toml"
REFERENCE = "study/reference.json"

ANGELOS_TOML = """\
# How AngelOS tests, reviews and watches this repository; read from main, never from a proposal.
[pipeline]
timeout_s = 60
steps = [
  { name = "unit", run = ["python", "-m", "doctest", "study/statistics.py", "study/difflib.py"] },
  { name = "notebook", notebook = "analysis.ipynb" },
  { name = "static", run = ["python", "-m", "ruff", "check", "--no-cache", "."] },
  { name = "security", run = ["python", "-m", "bandit", "-q", "-ll", "-r", "study"] },
]

[health]
run = ["python", "-m", "study.health"]

[review]
protected = ["study/constants.py"]
"""

RUFF_TOML = """\
line-length = 120
[lint]
select = ["E9", "F63", "F7", "F82", "B002", "B012", "PLE"]
"""

CHECK_PY = '''\
"""Run the doctests of the package as it lies in this checkout."""

import doctest
import pathlib
import sys

from study import difflib, statistics


def main() -> int:
    """Run all doctests; 1 if any fails."""
    here = pathlib.Path(__file__).resolve().parent
    failed = attempted = 0
    for module in (statistics, difflib):
        lies_in = pathlib.Path(module.__file__).resolve().parent
        if lies_in != here:
            print(f"{module.__name__} was imported from {lies_in}, not from {here}")
            return 2
        result = doctest.testmod(module)
        failed += result.failed
        attempted += result.attempted
        print(f"{module.__name__}: {result.attempted} doctests, {result.failed} failed")
    if attempted < 100:
        print(f"only {attempted} doctests were found")
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
'''

HEALTH_PY = '''\
"""Check that this checkout computes what the reference says."""

import json
import math
import pathlib
import sys

from study import constants, statistics


def main() -> int:
    """Compare with reference.json; 1 if anything differs."""
    text = (pathlib.Path(__file__).parent / "reference.json").read_text(encoding="utf-8")
    reference = json.loads(text)
    data = reference["data"]
    for name in ("mean", "median", "stdev"):
        got = getattr(statistics, name)(data)
        if not math.isclose(got, reference[name], rel_tol=constants.TOLERANCE):
            print(f"{name} is {got}, the reference says {reference[name]}")
            return 1
    print("healthy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
'''

CONSTANTS_PY = '''\
"""Numbers that a person has to agree to."""

TOLERANCE = 1e-9
'''

_DATA = [2.5, 3.25, 5.5, 11.25, 11.75, 4.0, 8.5]

_CELLS = (
    ("intro", "markdown", "# What the study computes"),
    ("imports", "code", "from study import difflib, statistics"),
    ("mean", "code", "statistics.mean([1, 2, 3, 4, 4])"),
    ("spread", "code", "round(statistics.stdev([2.5, 3.25, 5.5, 11.25, 11.75]), 4)"),
    ("close", "code", "difflib.get_close_matches('appel', ['ape', 'apple', 'peach', 'puppy'])"),
)


def notebook() -> str:
    """Return the notebook (nbformat 4.5) as JSON text."""
    cells = []
    for cell_id, kind, source in _CELLS:
        cell = {
            "cell_type": kind,
            "id": cell_id,
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    spec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    body = {
        "cells": cells,
        "metadata": {"kernelspec": spec},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def reference(data: list[float] | None = None) -> str:
    """Return reference.json: the data and what the library computes of it."""
    values = data or _DATA
    body = {
        "data": values,
        "mean": statistics.mean(values),
        "median": statistics.median(values),
        "stdev": statistics.stdev(values),
    }
    return json.dumps(body, indent=1) + "\n"


def study_files() -> dict[str, str]:
    """Return path -> text of the repository."""
    return {
        "angelos.toml": ANGELOS_TOML,
        "ruff.toml": RUFF_TOML,
        "analysis.ipynb": notebook(),
        "study/__init__.py": '"""Two modules of the standard library, to be worked on."""\n',
        "study/check.py": CHECK_PY,
        "study/health.py": HEALTH_PY,
        "study/constants.py": CONSTANTS_PY,
        "study/reference.json": reference(),
        "study/statistics.py": Path(statistics.__file__).read_text(encoding="utf-8"),
        "study/difflib.py": Path(difflib.__file__).read_text(encoding="utf-8"),
    }
