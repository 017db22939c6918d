"""Skips a module of tests where the `ml` extra is not installed; in CI that is a failure."""

from __future__ import annotations

import importlib.util
import os

import pytest

EXTRA = ("torch", "lightning", "peft", "safetensors", "matplotlib", "tqdm", "tomli_w")


def need_ml() -> None:
    """Skip the calling module, with the reason, unless all of the extra is there."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI"):
        raise ModuleNotFoundError(f"CI needs the ml extra; missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"{missing[0]} is missing: pip install -e '.[ml]'", allow_module_level=True)
