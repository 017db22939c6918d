r"""Git trees and commits, read from their bytes. Pure.

>>> entries = parse_tree(b"100644 a\0" + bytes(20))
>>> entries[0].mode == 0o100644, entries[0].name
(True, b'a')
"""

from __future__ import annotations

import re
from typing import NamedTuple

from angelos.angelgit.git.objects import GitEntry
from angelos.core.errors import Tampered

_ID = 20
_MODE = re.compile(rb"[0-7]{1,6}")
_IDENTITY = re.compile(rb"(.*?) ?<([^>]*)>(?: (-?[0-9]{1,12}))?", re.DOTALL)
_MAX_SECONDS = 2**43


class RawCommit(NamedTuple):
    """What a git commit says."""

    tree: str
    parents: tuple[str, ...]
    authors: tuple[str, ...]
    """The author, then the co-authors, as `name <email>`."""
    message: str
    at: int
    """Unix milliseconds of the author's date."""


def parse_tree(body: bytes) -> list[GitEntry]:
    """Return the names of a tree; raise `Tampered` if it is none."""
    entries: list[GitEntry] = []
    place = 0
    while place < len(body):
        blank = body.find(b" ", place, place + 8)
        end = body.find(b"\0", blank)
        if blank < 0 or end < 0 or end + 1 + _ID > len(body):
            raise Tampered("A git tree cannot be read.")
        mode = body[place:blank]
        if not _MODE.fullmatch(mode):
            raise Tampered("A git tree has a mode that is none.")
        identifier = body[end + 1 : end + 1 + _ID].hex()
        entries.append(GitEntry(int(mode, 8), body[blank + 1 : end], identifier))
        place = end + 1 + _ID
    return entries


def parse_commit(body: bytes) -> RawCommit:
    """Return what a commit says, whatever its encoding; raise `Tampered` if it is none."""
    head, _, text = body.partition(b"\n\n")
    fields: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key:
            fields.setdefault(key, []).append(value)
    if b"tree" not in fields:
        raise Tampered("A git commit cannot be read.")
    encoding = fields.get(b"encoding", [b"utf-8"])[0].decode("ascii", "replace")
    author, at = _identity(fields.get(b"author", [b""])[0], encoding)
    message = _text(text, encoding).replace("\0", "")
    return RawCommit(
        tree=fields[b"tree"][0].decode("ascii", "replace"),
        parents=tuple(p.decode("ascii", "replace") for p in fields.get(b"parent", [])),
        authors=(author,),
        message=message,
        at=at,
    )


def _identity(value: bytes, encoding: str) -> tuple[str, int]:
    match = _IDENTITY.match(value)
    if match is None:
        return _text(value, encoding) or "unknown", 0
    name, email, seconds = match.groups()
    at = min(max(int(seconds or 0), 0), _MAX_SECONDS) * 1000
    return f"{_text(name, encoding)} <{_text(email, encoding)}>", at


def _text(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding)
    except (UnicodeDecodeError, LookupError, ValueError):
        return value.decode("utf-8", "replace")
