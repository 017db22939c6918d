"""A git tree as files of ours: every entry is kept as it is, or refused by name.

    files = read_files(cache, tree)

What a tree of ours cannot hold: submodules, names that are not UTF-8 or not safe, links that lead
out of the repository, modes of old git versions. Text and notebooks become documents; what is no
text, as Latin-1, is a blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.objects import DIRECTORY, GitEntry, git_id, tree_body
from angelos.angelgit.git.parse import parse_tree
from angelos.core.errors import InvalidInput, Refused, TooLarge
from angelos.core.paths import safe_link, safe_path
from angelos.core.revision_v2 import MAX_TREE_FILES, EntryMode

_SUBMODULE = 0o160000
_FILES = {int(mode): mode for mode in EntryMode if mode is not EntryMode.directory}
_SHOWN = 20
_MAX_DEPTH = 200


class GitFile(NamedTuple):
    """One file or link of a git tree."""

    path: str
    mode: EntryMode
    id: str


class _Reader:
    def __init__(self, cache: GitCache) -> None:
        self.cache = cache
        self.files: list[GitFile] = []
        self.refused: list[str] = []

    def walk(self, tree: str, folder: bytes = b"", depth: int = 0) -> None:
        """Collect what is in a tree, and what cannot be kept."""
        body = self.cache.read(tree).body
        entries = parse_tree(body)
        if (
            depth > _MAX_DEPTH
            or git_id("tree", tree_body(entries)) != tree
            or not (entries or not folder)
        ):
            self.refused.append(f"{_shown(folder)} (a folder that git would not write so)")
            return
        for entry in entries:
            path = folder + entry.name
            if entry.mode == DIRECTORY:
                self.walk(entry.id, path + b"/", depth + 1)
            elif why := self._refusal(path, entry):
                self.refused.append(f"{_shown(path)} ({why})")
            else:
                self.files.append(GitFile(path.decode(), _FILES[entry.mode], entry.id))
            if len(self.files) > MAX_TREE_FILES:
                raise TooLarge(f"A repository holds at most {MAX_TREE_FILES} files.")

    def _refusal(self, path: bytes, entry: GitEntry) -> str:
        """Return why an entry cannot be kept, empty if it can."""
        if entry.mode == _SUBMODULE:
            return "a submodule"
        if entry.mode not in _FILES:
            return f"its mode is {entry.mode:o}"
        try:
            name = safe_path(path.decode())
            if entry.mode == EntryMode.symlink:
                safe_link(name, self.cache.read(entry.id).body.decode())
        except UnicodeDecodeError:
            return "not UTF-8"
        except InvalidInput as error:
            return error.detail.rstrip(".")
        return ""


def read_files(cache: GitCache, tree: str) -> list[GitFile]:
    """Return the files and links of a tree.

    Raises:
        Refused: some cannot be kept; the message names them.
        Tampered: an object is missing or broken.
        TooLarge: there are too many.
    """
    reader = _Reader(cache)
    reader.walk(tree)
    if reader.refused:
        more = len(reader.refused) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        raise Refused(
            f"Nothing was taken, because these cannot be kept: "
            f"{', '.join(reader.refused[:_SHOWN])}{rest}.",
            hint="Commit their removal or renaming first.",
            names=reader.refused[:1_000],
        )
    return reader.files


def tree_files(cache: GitCache, tree: str, folder: bytes = b"") -> Iterator[tuple[bytes, GitEntry]]:
    """Yield every path of a tree that is no folder, with its entry."""
    for entry in parse_tree(cache.read(tree).body):
        if entry.mode == DIRECTORY:
            yield from tree_files(cache, entry.id, folder + entry.name + b"/")
        else:
            yield folder + entry.name, entry


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
