r"""Reads the error number and the path out of the traceback that ended a Python program. Pure.

Python prints an `OSError` in one fixed form, `[Errno N] words: 'path'`. Only the number and the
path are read, never the words. A program can print such a line itself: what is read here is its
own claim, and no witness against it.

    >>> os_error("Traceback ...\nPermissionError: [Errno 13] Permission denied: '/etc/shadow'\n")
    OsError(errno=13, path='/etc/shadow')
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ERRNO = re.compile(r"\[Errno (\d{1,4})\]")
_WITH_PATH = re.compile(
    r"^(?:\w+\.)*(?:FileNotFoundError|PermissionError|NotADirectoryError|OSError): "
    r"\[Errno (\d{1,4})\] [^:]*: b?(['\"])(/.*?)\2",
)


class OsError(NamedTuple):
    """What the last line of a traceback states of an `OSError`."""

    errno: int
    path: str = ""
    """The absolute path that it names, or empty."""


def os_error(stderr: str) -> OsError | None:
    """Return the `OSError` that the last line of `stderr` states, or None."""
    line = stderr.rstrip().rpartition("\n")[2]
    if match := _WITH_PATH.match(line):
        return OsError(int(match[1]), match[3])
    if match := _ERRNO.search(line):
        return OsError(int(match[1]))
    return None
