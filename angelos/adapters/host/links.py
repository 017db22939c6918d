"""Opens paths without following symbolic links, which boxed programs can make and exchange.

    folder = open_without_links(Path("/srv/work/study"))

Each part is opened from the descriptor of the one before, so no part can become a link between a
check and its use.
"""

from __future__ import annotations

import os
from pathlib import Path

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_without_links(path: Path, flags: int = os.O_PATH | os.O_DIRECTORY, mode: int = 0) -> int:
    """Return a descriptor of an absolute path, to be closed by the caller.

    Args:
        path: Without `..`.
        flags: As for `os.open`, for the last part.
        mode: Of a file that is created.

    Raises:
        OSError: `ELOOP` or `ENOTDIR` where a part is a link.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(path)
    folder = os.open("/", _STEP)
    try:
        *above, last = path.parts[1:] or (".",)
        for part in above:
            inner = os.open(part, _STEP, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    finally:
        os.close(folder)
