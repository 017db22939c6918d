"""The files of the program that runs in a box, as inputs of its task.

>>> "angelos/ml/registry/boxed.py" in program_files()
True
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

FILES = (
    ("angelos", ("__init__.py", "core/__init__.py", "core/errors.py")),
    ("angelos.ml", ("__init__.py", "lora.py", "training.py", "registry/__init__.py")),
    ("angelos.ml.registry", ("boxed.py",)),
    (
        "llm",
        (
            "__init__.py",
            "checkpoint.py",
            "config.py",
            "data.py",
            "generate.py",
            "model.py",
            "train.py",
        ),
    ),
)
ARGV = ("python", "-m", "angelos.ml.registry.boxed")


@functools.cache
def program_files() -> Mapping[str, bytes]:
    """Return the program's files by their paths below `/in`."""
    files: dict[str, bytes] = {}
    for package, names in FILES:
        folder = resources.files(package)
        for name in names:
            files[f"{package.replace('.', '/')}/{name}"] = folder.joinpath(name).read_bytes()
    return MappingProxyType(files)


def program_sha256() -> str:
    """Return the hash of the program: the code revision of what it trains."""
    digest = hashlib.sha256()
    for path, body in sorted(program_files().items()):
        digest.update(f"{path}\n{hashlib.sha256(body).hexdigest()}\n".encode())
    return digest.hexdigest()
