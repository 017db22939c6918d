"""Names that a file of a repository must not take: modules that others import, start-up hooks.

A checkout comes first on the import path, so that `nbformat.py` at its root would stand before
the library of this name, for whoever imports it: a test, or the runner itself.

>>> shadowed("nbformat.py", frozenset({"nbformat"}))
'nbformat'
>>> shadowed("study/random.py", frozenset())
''
"""

from __future__ import annotations

import sys
from collections.abc import Collection

START_UP = frozenset({"sitecustomize", "usercustomize"})
"""Modules that Python imports when it starts, wherever on its path they lie (site)."""
_SOURCES = (".py", ".pyc", ".pyi", ".so", ".pyd", ".ipynb")
_RUN_BY_PYTHON = (".pth", ".pyc", ".pyo", ".so", ".pyd", ".egg", ".egg-link", ".whl", ".dll")
_METADATA = (".dist-info", ".egg-info")
ROOTS = ("", "src", "lib")
"""Folders that commonly are on the import path."""


def module_names(path: str) -> list[str]:
    """Return the top-level modules that a file would be, or be part of, on a common import path.

    >>> module_names("src/asyncio/__init__.py")
    ['src', 'asyncio']
    """
    parts = path.split("/")
    names: list[str] = []
    for root in ROOTS:
        below = parts[1:] if root and parts[0] == root else parts if not root else []
        if not below:
            continue
        name = below[0]
        if len(below) == 1:
            if not name.endswith(_SOURCES):
                continue
            name = name.partition(".")[0]
        names.append(name)
    return names


def shadowed(path: str, installed: Collection[str]) -> str:
    """Return the standard or installed module before which a file would stand, or ""."""
    for name in module_names(path):
        if name in sys.stdlib_module_names or name in installed:
            return name
    return ""


def runs_by_itself(path: str) -> bool:
    """Return whether Python or an installer may run a file that nobody imports."""
    parts = path.lower().split("/")
    stem = parts[-1].partition(".")[0]
    return (
        stem in START_UP
        or parts[-1].endswith(_RUN_BY_PYTHON)
        or parts[-1] in {"entry_points.txt", "pyvenv.cfg"}
        or "__pycache__" in parts
        or any(part.endswith(_METADATA) for part in parts)
    )
