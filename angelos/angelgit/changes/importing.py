"""The first commit of a repository: every file becomes a document, built exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.canonical import canonical, check_text
from angelos.angelgit.storage.models import DocumentRow, FileState, Manifest, sha256
from angelos.angelgit.storage.trees import BESIDE, file_below_file, with_files
from angelos.core.errors import InvalidInput
from angelos.core.ids import uuid7
from angelos.core.paths import safe_path

CONFIG = "angelos.toml"
CheckConfig = Callable[[bytes], object]
"""Raises `InvalidInput` for an `angelos.toml` with which no proposal could be tested."""


def no_check(body: bytes) -> None:
    """Accept any configuration."""


class ImportedRepo(msgspec.Struct, frozen=True):
    """The documents, files and blobs of a new repository."""

    manifest: Manifest
    rows: tuple[DocumentRow, ...]
    blobs: tuple[bytes, ...]
    clients: tuple[tuple[str, int], ...]
    """Document and CRDT client id of what each file holds."""


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
    if pair := file_below_file(files):
        raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=BESIDE)
    manifest: list[FileState] = []
    rows: list[DocumentRow] = []
    blobs: list[bytes] = []
    clients: list[tuple[str, int]] = []
    for path in sorted(files):
        text = check_text(path, files[path])
        text = check_text(path, canonical(path, text))
        if path == CONFIG:
            check_config(text.encode())
        content, state = text.encode(), crdt.build(path, text)
        file = FileState(
            path=path,
            mode=0o644,
            sha256=sha256(content),
            size=len(content),
            document=uuid7(),
            state=sha256(state),
        )
        manifest.append(file)
        rows.append(_new_row(repo, file))
        blobs += [content, state]
        clients += [(file.document, client) for client in crdt.clients_of(state)]
    return ImportedRepo(with_files((), manifest), tuple(rows), tuple(blobs), tuple(clients))


def _new_row(repo: str, file: FileState) -> DocumentRow:
    return DocumentRow(
        id=file.document,
        repo=repo,
        path=file.path,
        mode=file.mode,
        alive=True,
        sha256=file.sha256,
        state=file.state,
    )
