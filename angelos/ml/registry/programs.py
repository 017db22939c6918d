"""The files of the program that runs in a box, as inputs of its task.

>>> "angelos/ml/registry/boxed.py" in program_files()
True
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from angelos.core.errors import Unavailable

FILES = {
    "angelos": (
        "__init__.py",
        "core/__init__.py",
        "core/errors.py",
        "ml/__init__.py",
        "ml/lora.py",
        "ml/training.py",
        "ml/registry/__init__.py",
        "ml/registry/boxed.py",
    ),
    "llm": (
        "__init__.py",
        "checkpoint.py",
        "config.py",
        "data.py",
        "generate.py",
        "model.py",
        "train.py",
    ),
}
ARGV = ("python", "-m", "angelos.ml.registry.boxed")


@functools.cache
def program_files() -> Mapping[str, bytes]:
    """Return the program's files by their paths below `/in`.

    Nothing of them is imported: `llm` would load torch, for seconds.
    """
    files: dict[str, bytes] = {}
    for package, names in FILES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise Unavailable(f"The package {package} is not installed here.")
        folder = Path(spec.origin).parent
        files |= {f"{package}/{name}": (folder / name).read_bytes() for name in names}
    return MappingProxyType(files)


def program_sha256() -> str:
    """Return the hash of the program: the code revision of what it trains."""
    digest = hashlib.sha256()
    for path, body in sorted(program_files().items()):
        digest.update(f"{path}\n{hashlib.sha256(body).hexdigest()}\n".encode())
    return digest.hexdigest()
