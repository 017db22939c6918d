"""The first commit of a repository: every text becomes a document, built exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.canonical import canonical, check_text, is_notebook, is_text
from angelos.angelgit.storage.models import DocumentRow, sha256
from angelos.angelgit.storage.trees import BESIDE, file_below_file
from angelos.core.errors import InvalidInput
from angelos.core.ids import uuid7
from angelos.core.paths import safe_link, safe_path
from angelos.core.revision import MAX_FILES
from angelos.core.revision_v2 import EntryMode, TreeEntry

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
    blobs: dict[str, bytes]
    """Hash -> content of what is no text."""


def import_files(
    repo: str,
    files: Mapping[str, bytes],
    check_config: CheckConfig = no_check,
    modes: Mapping[str, EntryMode] | None = None,
) -> ImportedRepo:
    """Return the documents of a new repository; what is no text is a blob.

    Args:
        repo: the repository's name.
        files: path -> content, of a symbolic link its target.
        check_config: checks the content of `angelos.toml`.
        modes: of the paths that are no plain files.

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
    modes = modes or {}
    if absent := modes.keys() - files.keys():
        raise InvalidInput(f"There is no file {min(absent)[:200]!r} that could have a mode.")
    entries: list[TreeEntry] = []
    rows: list[tuple[DocumentRow, bytes]] = []
    contents: list[bytes] = []
    blobs: dict[str, bytes] = {}
    for path in sorted(files):
        content, mode = files[path], modes.get(path, EntryMode.file)
        if mode is EntryMode.symlink:
            _check_link(path, content)
        elif not is_text(content) and not is_notebook(path) and path != CONFIG:
            blobs[sha256(content)] = content
        else:
            row, content, state = _document(repo, path, content, mode)
            rows.append((row, state))
            if path == CONFIG:
                check_config(content)
        entry = TreeEntry.of(path, content, mode)
        entries.append(entry)
        if entry.sha256 not in blobs:
            contents.append(content)
    return ImportedRepo(tuple(entries), tuple(rows), tuple(contents), blobs)


def _check_link(path: str, target: bytes) -> None:
    try:
        safe_link(path, check_text(path, target))
    except InvalidInput as error:
        raise InvalidInput(f"The link {path} cannot be kept: {error.detail}") from error


def _document(
    repo: str, path: str, body: bytes, mode: EntryMode
) -> tuple[DocumentRow, bytes, bytes]:
    """Return a new document's row, its content and its first state."""
    text = check_text(path, canonical(path, check_text(path, body)))
    content = text.encode()
    digest = sha256(content)
    row = DocumentRow(
        id=uuid7(), repo=repo, path=path, mode=mode & 0o777, alive=True, sha256=digest
    )
    return row, content, crdt.build(path, text)
