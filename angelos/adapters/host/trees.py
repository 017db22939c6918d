"""Remove folders that hold read-only folders, such as a node's checkouts.

    remove_tree(Path("/tmp/angelos-demo-1"))

`shutil.rmtree` fails on those for everybody but root.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it; links are removed, not followed. Raises `OSError`."""
    if path.is_symlink():
        raise NotADirectoryError(f"{path} is a link.")
    path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            child = Path(folder, name)
            if not child.is_symlink():
                child.chmod(0o700)
    shutil.rmtree(path)
