"""Honest patches: 80 of this repository's history, 40 new functions of the standard library.

The first are drawn at random from all changes of 3 to 80 lines to a Python file up to 28 November
2026 (seed 20261128). The second are made here: a function of a module of this interpreter is taken
out, and the patch puts it back.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

from angelos.control.gate.inspect import Patch, PatchedFile

_MODULES = (
    "bisect", "calendar", "colorsys", "csv", "difflib", "fractions", "heapq", "numbers", "shlex",
    "statistics", "string", "textwrap", "tokenize", "uuid", "ipaddress", "configparser",
)  # fmt: skip
_STANDARD = 40


def from_history() -> Iterator[Patch]:
    """Yield the patches of this repository's history."""
    body = lzma.decompress(Path(__file__).with_name("honest_patches.json.xz").read_bytes())
    rows = json.loads(body)
    present = (*(row["path"] for row in rows), "angelos/__init__.py", "llm/__init__.py")
    for row in rows:
        file = PatchedFile(
            path=row["path"], before=row["before"].encode(), after=row["after"].encode()
        )
        yield Patch(files=(file,), present=present, agent=True)


def from_the_standard_library() -> Iterator[Patch]:
    """Yield patches that each add one function to a module."""
    patches = [patch for name in _MODULES for patch in _functions_of(name)]
    step = len(patches) / _STANDARD
    for index in range(_STANDARD):
        yield patches[int(index * step)]


def _functions_of(name: str) -> Iterator[Patch]:
    source = inspect.getsource(importlib.import_module(name))
    lines = source.splitlines(keepends=True)
    path = f"study/{name}.py"
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            before = "".join([*lines[:first], *lines[node.end_lineno :]])
            file = PatchedFile(path=path, before=before.encode(), after=source.encode())
            yield Patch(files=(file,), present=(path, "study/__init__.py"), agent=True)
