"""Renames that never overwrite the target (`renameat2(2)`).

    move(Path("new"), Path("a.txt"))        # FileExistsError if there is an a.txt
    exchange(Path("new"), Path("a.txt"))    # new is a.txt now, and what was a.txt is new

Where the kernel or the file system lacks the call, ordinary renames take its place, and another
process may see the target missing for a moment.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def move(source: Path, target: Path) -> None:
    """Rename; raise `FileExistsError` if there is anything at the target."""
    if _renameat2(source, target, _NOREPLACE):
        return
    if source.is_dir() and not source.is_symlink():
        target.mkdir()  # an empty folder is the only one that a rename replaces
        source.rename(target)
    else:
        os.link(source, target, follow_symlinks=False)
        source.unlink()


def exchange(first: Path, second: Path) -> None:
    """Swap two paths; raise `FileNotFoundError` if one is missing."""
    if _renameat2(first, second, _EXCHANGE):
        return
    with tempfile.TemporaryDirectory(prefix=".exchange-", dir=second.parent) as folder:
        between = Path(folder) / "it"
        second.rename(between)
        try:
            first.rename(second)
        except OSError:
            between.rename(second)
            raise
        between.rename(first)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Call the kernel; return False where the call or the flag is not supported."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(target))
