"""The `angelos.toml` that `angelos repo import` offers for a folder that has none.

>>> print(starter(["analysis.ipynb", "tests/test_mean.py"], solo=True))
# How AngelOS tests and reviews changes of this repository. It is read from main, never from the
# proposal that is judged. Made by `angelos repo import`; edit it as you like.
[pipeline]
timeout_s = 120
steps = [
  { name = "analysis", notebook = "analysis.ipynb" },
  { name = "tests", run = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"] },
]
<BLANKLINE>
[review]
hold_agents = true  # every proposal of an agent waits for a person
solo = true  # one person alone: they may approve their own and their agents' proposals
<BLANKLINE>
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

FILE = "angelos.toml"
PYTEST = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
MOST_NOTEBOOKS = 31
"""A pipeline has at most 32 steps, and one runs the tests."""
_SHOWN = 3
_SHOWN = 3
_TEST = re.compile(r"test_.*\.py|.*_test\.py")
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_HEAD = """\
# How AngelOS tests and reviews changes of this repository. It is read from main, never from the
# proposal that is judged. Made by `angelos repo import`; edit it as you like.
[pipeline]
timeout_s = 120
steps = [
"""
_REVIEW = """\
]

[review]
hold_agents = true  # every proposal of an agent waits for a person
"""
_SOLO = "solo = true  # one person alone: they may approve their own and their agents' proposals\n"


def notebooks(paths: Iterable[str]) -> list[str]:
    """Return the notebooks that are re-run."""
    return sorted(path for path in paths if path.endswith(".ipynb"))[:MOST_NOTEBOOKS]


def has_tests(paths: Iterable[str]) -> bool:
    """Return whether pytest would find test files by their names."""
    return any(_TEST.fullmatch(PurePosixPath(path).name) for path in paths)


def starter(paths: Collection[str], *, solo: bool) -> str:
    """Return an `angelos.toml` for a repository of these files.

    Args:
        paths: All files, relative to the root.
        solo: Whether one person works alone and says so.
    """
    steps: list[str] = []
    names: set[str] = set()
    for path in notebooks(paths):
        name = _name(path, names)
        steps.append(f'  {{ name = "{name}", notebook = {_text(path)} }},\n')
    if has_tests(paths):
        steps.append(f'  {{ name = "{_unique("tests", names)}", run = {json.dumps(PYTEST)} }},\n')
    if not steps:
        steps.append(
            "  # no notebook and no test was found, so every proposal waits for a person\n"
        )
    return _HEAD + "".join(steps) + _REVIEW + (_SOLO if solo else f"# {_SOLO}")


def summary(paths: Collection[str]) -> str:
    """Return what the generated file would do, in half a sentence."""
    parts: list[str] = []
    if books := notebooks(paths):
        more = f" and {len(books) - _SHOWN} more" if len(books) > _SHOWN else ""
        parts.append(f"re-runs {', '.join(books[:_SHOWN])}{more}")
    if has_tests(paths):
        parts.append("runs pytest")
    return " and ".join(parts) or "tests nothing, since there is neither a notebook nor a test"


def _name(path: str, names: set[str]) -> str:
    """Return a step's name for a notebook, unlike those that there are."""
    stem = _NO_NAME.sub("-", path.removesuffix(".ipynb")).strip("-._")
    return _unique(stem[:56] or "notebook", names)


def _unique(name: str, names: set[str]) -> str:
    number, candidate = 1, name
    while candidate in names:
        number += 1
        candidate = f"{name}-{number}"
    names.add(candidate)
    return candidate


def _text(path: str) -> str:
    """Return a path as a TOML string."""
    return json.dumps(path, ensure_ascii=False).replace("\x7f", "\\u007f")
