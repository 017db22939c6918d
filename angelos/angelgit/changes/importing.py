"""The first commit of a repository: files become documents, each made exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from angelos.angelgit.documents import documents
from angelos.angelgit.storage.models import FileState, Manifest, sha256
from angelos.angelgit.storage.store import DocumentRow
from angelos.angelgit.storage.trees import BESIDE, entangled, with_files
from angelos.core.errors import InvalidInput
from angelos.core.ids import uuid7
from angelos.core.paths import safe_path

CONFIG = "angelos.toml"
CheckConfig = Callable[[bytes], object]
"""Raises `InvalidInput` for a configuration that nothing could be tested with later."""


def no_check(body: bytes) -> None:
    """Take any configuration."""


class ImportedRepo(msgspec.Struct, frozen=True):
    """All that a new repository is made of."""

    manifest: Manifest
    rows: tuple[DocumentRow, ...]
    blobs: tuple[bytes, ...]


def import_files(
    repo: str, files: Mapping[str, bytes], check_config: CheckConfig = no_check
) -> ImportedRepo:
    """Return documents for `files`; raise `InvalidInput` or `TooLarge` for what cannot be one."""
    for path in files:
        safe_path(path)
    if pair := entangled(files):
        raise InvalidInput(f"{pair[1]} cannot be beside {pair[0]}.", hint=BESIDE)
    made: list[FileState] = []
    rows: list[DocumentRow] = []
    blobs: list[bytes] = []
    for path in sorted(files):
        text = documents.check_text(path, files[path])
        text = documents.check_text(path, documents.canonical(path, text))
        if path == CONFIG:
            check_config(text.encode())
        content, state, document = text.encode(), documents.build(path, text), uuid7()
        hashes = (sha256(content), sha256(state))
        made.append(
            FileState(
                path=path,
                mode=0o644,
                sha256=hashes[0],
                size=len(content),
                document=document,
                state=hashes[1],
            )
        )
        rows.append(
            DocumentRow(
                id=document,
                repo=repo,
                path=path,
                mode=0o644,
                alive=True,
                sha256=hashes[0],
                state=hashes[1],
            )
        )
        blobs += [content, state]
    return ImportedRepo(with_files((), made), tuple(rows), tuple(blobs))
