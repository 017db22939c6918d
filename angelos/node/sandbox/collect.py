"""Takes files out of a box's folder after the end, by a walk that follows no link.

Every folder is opened by its name below the descriptor of its parent, with O_NOFOLLOW: nothing
that the box has written can lead the walk out of the folder (openat2(2) explains the ways).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from angelos.core.errors import InvalidInput
from angelos.core.paths import matches, safe_path
from angelos.core.sessions import (
    Collected,
    CollectedFile,
    CollectLimits,
    NotCollected,
    NotCollectedReason,
)

_MAX_ENTRIES, _MAX_LEFT_OUT = 100_000, 10_000
_MAX_DEPTH = 64
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class _Budget:
    """What may still be taken."""

    limits: CollectLimits
    files: list[CollectedFile] = field(default_factory=list)
    total: int = 0


def collect(folder: int, patterns: tuple[str, ...], limits: CollectLimits) -> Collected:
    """Return the files below an open folder that match, and what was left out.

    Args:
        folder: A descriptor of the folder; it stays open.
        patterns: Checked by `check_patterns`.
        limits: What is within them, in the order of paths, is taken.
    """
    found = _Budget(limits)
    left_out: list[NotCollected] = []
    names = sorted(islice(_walk(folder, "", 0), _MAX_ENTRIES), key=lambda entry: entry[0])
    for path, unfit in names:
        if not matches(path, patterns):
            continue
        reason = unfit or _unsafe(path) or _take(folder, path, found)
        if reason is not None:
            shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            left_out.append(NotCollected(path=shown, reason=reason))
    return Collected(files=tuple(found.files), left_out=tuple(left_out[:_MAX_LEFT_OUT]))


def _walk(folder: int, below: str, depth: int) -> Iterator[tuple[str, NotCollectedReason | None]]:
    """Yield each file below a folder, with the reason why it cannot be taken, if there is one."""
    for name in sorted(os.listdir(folder)):
        path = below + name
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            yield path, NotCollectedReason.link
        elif stat.S_ISREG(mode):
            yield path, None
        elif not stat.S_ISDIR(mode):
            yield path, NotCollectedReason.special
        elif depth >= _MAX_DEPTH:
            yield path, NotCollectedReason.too_many
        else:
            child = _open(name, folder, os.O_DIRECTORY)
            if child is None:
                yield path, NotCollectedReason.changed
                continue
            try:
                yield from _walk(child, f"{path}/", depth + 1)
            finally:
                os.close(child)


def _unsafe(path: str) -> NotCollectedReason | None:
    try:
        safe_path(path)
    except InvalidInput:
        return NotCollectedReason.unsafe_name
    return None


def _take(folder: int, path: str, found: _Budget) -> NotCollectedReason | None:
    """Read one regular file into the budget; return why not."""
    with contextlib.ExitStack() as stack:
        at: int | None = folder
        *parents, name = path.split("/")
        for parent in parents:
            at = _open(parent, at, os.O_DIRECTORY) if at is not None else None
            if at is not None:
                stack.callback(os.close, at)
        fd = _open(name, at) if at is not None else None
        if fd is None:
            return NotCollectedReason.changed
        stack.callback(os.close, fd)
        info = os.fstat(fd)
        reason = _unfit(info, found)
        content = _read(fd, info.st_size) if reason is None else b""
        if content is None:
            return NotCollectedReason.changed
        if reason is None:
            digest, executable = hashlib.sha256(content).hexdigest(), info.st_mode & stat.S_IXUSR
            found.total += len(content)
            found.files.append(
                CollectedFile(
                    path=path, sha256=digest, content=content, executable=bool(executable)
                )
            )
        return reason


def _unfit(info: os.stat_result, found: _Budget) -> NotCollectedReason | None:
    """Return why an open file cannot be taken."""
    if not stat.S_ISREG(info.st_mode):
        return NotCollectedReason.special
    if info.st_size > found.limits.file_bytes:
        return NotCollectedReason.too_large
    full = len(found.files) >= found.limits.files
    if full or info.st_size > found.limits.total_bytes - found.total:
        return NotCollectedReason.too_many
    return None


def _open(name: str, folder: int, kind: int = 0) -> int | None:
    """Open an entry of a folder, making it readable where its owner had closed it."""
    for attempt in (0, 1):
        try:
            return os.open(name, _OPEN | kind, dir_fd=folder)
        except PermissionError:
            if attempt:
                return None
            # It is no link (the walk looked, and nothing runs any more that could change it).
            with contextlib.suppress(OSError):
                os.chmod(name, 0o700, dir_fd=folder)
        except OSError:
            return None
    return None


def _read(fd: int, size: int) -> bytes | None:
    """Return exactly `size` bytes, or None if there are fewer or more."""
    content = bytearray()
    while piece := os.read(fd, size + 1 - len(content)):
        content += piece
        if len(content) > size:
            return None
    return bytes(content) if len(content) == size else None
