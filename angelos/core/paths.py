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
        raise InvalidInput(f"The path {path!r} holds a back slash or an invisible character.")
    if unicodedata.normalize("NFC", path) != path:
        raise InvalidInput(f"The path {path!r} is not in Unicode normal form C.")
    if any(part.lower() in _RESERVED for part in path.split("/")):
        raise InvalidInput(
            f"The path {path!r} is not a plain relative path.",
            hint="Use a path below the repository's root, such as study/statistics.py.",
        )
    return path


def safe_link(path: str, target: str) -> str:
    """Return `target` if a symbolic link at `path` may point there: nowhere outside the tree.

    A target is relative, of the form `../../a/b`: first any number of `..`, fewer than would leave
    the repository, then plain names. So a chain of links cannot leave it either: a link is read
    from the real directory that holds it, and a name that is itself a link was checked there. What
    it points at need not exist.

    >>> safe_link("study/data", "../shared/data")
    '../shared/data'

    Raises:
        InvalidInput: The path or target is not safe; nothing of it may be written.
    """
    depth = safe_path(path).count("/")
    segments = target.split("/")
    up = next((at for at, name in enumerate(segments) if name != ".."), len(segments))
    if up > depth:
        raise InvalidInput(
            f"The link {path} points out of the repository: {target[:80]!r}.",
            hint="Only links to paths of the same repository are kept.",
        )
    if rest := segments[up:]:
        safe_path("/".join(rest))
    return target


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Return whether `path` falls under one of `patterns`.

    Each segment is compared as with `fnmatch`, case-sensitively, so `*` stays inside one; `**` is
    any number of segments: `docs/**` is a folder and all below it, `**/a.py` is `a.py` anywhere.
    """
    return any(_match(path.split("/"), pattern.split("/")) for pattern in patterns)


def _match(parts: list[str], pattern: list[str]) -> bool:
    from fnmatch import fnmatchcase

    ends = {0}  # how many of `parts` the pattern so far may stand for
    for segment in pattern:
        if segment == "**":
            ends = set(range(min(ends), len(parts) + 1))
        else:
            ends = {at + 1 for at in ends if at < len(parts) and fnmatchcase(parts[at], segment)}
        if not ends:
            return False
    return len(parts) in ends
