"""Snapshots of what facts fold to, so that a start reads what came since and not everything.

    saved = await snapshots.load("control", version)
    if saved is not None:
        state = decode(saved.body)      # of the facts up to saved.offset

A snapshot is a cache and never the truth: it counts only if its code, its journal and its audit log
are those of today. Whoever finds that it does not folds the journal again.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files
from typing import Protocol

import msgspec

from angelos.core.ids import Offset


class LogPoint(msgspec.Struct, frozen=True):
    """The audit log of this name had `size` entries and this root, and signed for it."""

    origin: str
    size: int
    root: bytes


class SavedFold(msgspec.Struct, frozen=True):
    """A fold as it was saved."""

    offset: Offset
    """The last fact folded."""
    body: bytes


class PointCheck(Protocol):
    """The audit log, as far as it says whether a snapshot belongs to it."""

    async def holds(self, point: LogPoint) -> bool:
        """Return whether the log still has, and signs for, a point."""
        ...


class LogPoints(PointCheck, Protocol):
    """The audit log, as far as a snapshot is bound to it."""

    async def point(self, offset: Offset) -> LogPoint:
        """Return a signed point of the log that covers every lasting fact up to `offset`.

        Raises:
            Tampered: The log was tampered with.
            Unavailable: The log takes no more facts.
        """
        ...


class FoldSnapshots(Protocol):
    """Where snapshots of folds are kept."""

    async def load(self, name: str, version: str) -> SavedFold | None:
        """Return the last snapshot of a fold; None if there is none that counts.

        Args:
            name: Which fold.
            version: Of the code that folds (`fold_version`).
        """
        ...

    async def save(self, name: str, version: str, saved: SavedFold) -> None:
        """Keep a snapshot in the place of the last one.

        Raises:
            Tampered: The audit log was tampered with; nothing is saved.
            Unavailable: A store or the log's signer does not answer.
        """
        ...


def fold_version(packages: Iterable[str]) -> str:
    """Return the version of a fold: a hash over the sources of the packages that define it.

    So a snapshot that other code has made is never read, and nobody has to count versions.

    >>> fold_version(["angelos.core"]) == fold_version(["angelos.core"])
    True
    """
    digest = sha256()
    for package in packages:
        for source in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if source.name.endswith(".py"):
                content = source.read_bytes()
                digest.update(f"{package}/{source.name} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()
