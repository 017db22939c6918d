"""Skips a module of tests where the `ml` extra is not installed; in CI that is a failure."""

from __future__ import annotations

import importlib
import os

import pytest


def need(*names: str) -> None:
    """Skip the calling module, with the reason, unless all names can be imported."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{name} is missing: pip install -e '.[ml]'", allow_module_level=True)
