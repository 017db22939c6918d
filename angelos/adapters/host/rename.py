"""Renames that never lose what stands at the target (`renameat2(2)`).

    move(Path("new"), Path("a.txt"))        # FileExistsError if there is an a.txt
    exchange(Path("new"), Path("a.txt"))    # new is a.txt now, and what was a.txt is new

Where the kernel or the file system does not know them, they are made of ordinary renames, and
another process may see the target missing for a moment.
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


def exchange(one: Path, other: Path) -> None:
    """Let two paths change places; raise `FileNotFoundError` if one is missing."""
    if _renameat2(one, other, _EXCHANGE):
        return
    with tempfile.TemporaryDirectory(prefix=".exchange-", dir=other.parent) as folder:
        between = Path(folder) / "it"
        other.rename(between)
        try:
            one.rename(other)
        except OSError:
            between.rename(other)
            raise
        between.rename(one)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Call the kernel; False if this cannot be done here."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(target))
