"""Remove folders that others have written: read-only ones, and such as are nested without end.

    remove_tree(Path("/tmp/angelos-demo-1"))

`shutil.rmtree` fails on read-only folders for everybody but root, and, as `os.walk`, it recurses
for each level: a thousand end it, and no path names what lies below four thousand letters. So each
folder is moved up before it is emptied.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it; links are removed, not followed. Raises `OSError`."""
    if path.is_symlink():
        raise NotADirectoryError(f"{path} is a link.")
    path.chmod(0o700)
    own, count = secrets.token_hex(8), 0
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            rows = list(entries)
        for entry in rows:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108 - many
                continue
            os.chmod(entry.path, 0o700)  # noqa: PTH101
            count += 1
            moved = f"{path}/.{own}-{count}"
            os.rename(entry.path, moved)  # noqa: PTH104
            pending.append(moved)
        if folder != str(path):
            os.rmdir(folder)  # noqa: PTH106
    path.rmdir()
