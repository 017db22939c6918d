"""The first commit of a repository: every file becomes a document, built exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.canonical import canonical, check_text
from angelos.angelgit.storage.models import DocumentRow
from angelos.angelgit.storage.trees import BESIDE, file_below_file
from angelos.core.errors import InvalidInput
from angelos.core.ids import uuid7
from angelos.core.paths import safe_path
from angelos.core.revision import MAX_FILES
from angelos.core.revision_v2 import TreeEntry

CONFIG = "angelos.toml"
CheckConfig = Callable[[bytes], object]
"""Raises `InvalidInput` for an `angelos.toml` with which no proposal could be tested."""


def no_check(body: bytes) -> None:
    """Accept any configuration."""


class ImportedRepo(msgspec.Struct, frozen=True):
    """The files and documents of a new repository."""

    entries: tuple[TreeEntry, ...]
    rows: tuple[tuple[DocumentRow, bytes], ...]
    """Documents with their first states."""
    contents: tuple[bytes, ...]


def import_files(
    repo: str, files: Mapping[str, bytes], check_config: CheckConfig = no_check
) -> ImportedRepo:
    """Return the documents of a new repository.

    Args:
        repo: the repository's name.
        files: path -> content.
        check_config: checks the content of `angelos.toml`.

    Raises:
        InvalidInput: a path or a content cannot be a document, or the configuration is wrong.
        TooLarge: a file, or the repository, is too large.
    """
    for path in files:
        safe_path(path)
    if len(files) > MAX_FILES:
        raise InvalidInput(f"A repository holds at most {MAX_FILES} files.")
    if pair := file_below_file(files):
        raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=BESIDE)
    entries: list[TreeEntry] = []
    rows: list[tuple[DocumentRow, bytes]] = []
    contents: list[bytes] = []
    for path in sorted(files):
        text = check_text(path, files[path])
        text = check_text(path, canonical(path, text))
        if path == CONFIG:
            check_config(text.encode())
        content = text.encode()
        entry = TreeEntry.of(path, content)
        entries.append(entry)
        contents.append(content)
        row = DocumentRow(
            id=uuid7(), repo=repo, path=path, mode=0o644, alive=True, sha256=entry.sha256
        )
        rows.append((row, crdt.build(path, text)))
    return ImportedRepo(tuple(entries), tuple(rows), tuple(contents))
