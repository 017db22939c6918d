"""Which folder a kernel sees: that of its notebook's repository, its own, or none.

root/workspace/study/a/b.ipynb  ->  root/workspace/study, working directory a
root/notes/b.ipynb              ->  root/notes
a console, a folder that holds the workspace or the data directory, a home  ->  none

>>> folder_for(Path("/r/w/study/a"), Places(Path("/r"), Path("/r/w"), Path("/r/data"), Path("/h")))
PosixPath('/r/w/study')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Places(NamedTuple):
    """Folders of the server, without links."""

    root: Path
    """Below which Jupyter's paths are."""
    workspace: Path
    data: Path
    home: Path


def folder_for(start: Path, places: Places) -> Path | None:
    """Return the folder that a kernel which starts in `start` may see and write, or None.

    Args:
        start: An absolute path.
        places: The server's folders.
    """
    real = Path(os.path.realpath(start))
    if real != start or not _within(real, places.root):
        return None  # a link leads there: it may have been made to lead elsewhere
    if _within(real, places.workspace):
        parts = real.relative_to(places.workspace).parts
        return places.workspace / parts[0] if parts and not parts[0].startswith(".") else None
    hidden = any(part.startswith(".") for part in real.relative_to(places.root).parts)
    if hidden or _within(real, places.data):
        return None
    holds = any(_within(inner, real) for inner in (places.workspace, places.data, places.home))
    return None if holds else real


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
