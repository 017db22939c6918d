"""Paths inside a repository: relative, POSIX, normalised, bounded.

>>> safe_path("study/statistics.py")
'study/statistics.py'
"""

from __future__ import annotations

import unicodedata

from angelos.core.errors import InvalidInput

MAX_PATH_BYTES = 512
MAX_NAME_BYTES = 200
"""Of one segment. File systems take 255; editors put `.~` before and `-checkpoint` after it."""
_RESERVED = frozenset({"", ".", "..", ".git"})


def safe_path(path: str) -> str:
    """Return `path` if it can only name a file below the repository's root.

    Refuses absolute paths, `..`, empty segments, back slashes, control and format characters
    (which could show one name and be another), names that are not in Unicode NFC, `.git`, and
    anything over 512 bytes of UTF-8 or 200 in one name.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("The path holds a lone surrogate.") from error
    if size > MAX_PATH_BYTES:
        raise InvalidInput(f"The path is longer than {MAX_PATH_BYTES} bytes.")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in path.split("/")):
        raise InvalidInput(f"A name in the path is longer than {MAX_NAME_BYTES} bytes.")
    if "\\" in path or any(unicodedata.category(c) in {"Cc", "Cf"} for c in path):
        raise InvalidInput(f"The path {path!r} holds a back slash or a character that is not seen.")
    if unicodedata.normalize("NFC", path) != path:
        raise InvalidInput(f"The path {path!r} is not in Unicode normal form C.")
    if any(part.lower() in _RESERVED for part in path.split("/")):
        raise InvalidInput(
            f"The path {path!r} is not a plain relative path.",
            hint="Use a path below the repository's root, such as study/statistics.py.",
        )
    return path


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether `path` falls under one of `patterns`.

    A pattern ending in `/**` covers a folder and all below it, any other is compared as with
    `fnmatch`, case-sensitively, where `*` stays inside one segment.
    """
    return any(_match(path, pattern) for pattern in patterns)


def _match(path: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    if pattern.endswith("/**"):
        folder = pattern[:-3]
        return path == folder or path.startswith(folder + "/")
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
