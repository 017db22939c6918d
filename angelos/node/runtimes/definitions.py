"""Reads the languages from their files in `data/`.

>>> definitions()["go"].main
'main.go'
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from angelos.node.runtimes.models import RuntimeDefinition

_DATA = Path(__file__).parent / "data"


@cache
def definitions() -> dict[str, RuntimeDefinition]:
    """Return the languages beside Python by their names."""
    files = sorted(_DATA.glob("*.toml"))
    loaded = [msgspec.toml.decode(file.read_bytes(), type=RuntimeDefinition) for file in files]
    return {definition.language: definition for definition in loaded}
