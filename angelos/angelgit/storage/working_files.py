"""What AngelGit wrote into working files, recorded before each write and after it.

For example:

    records = WorkingFileRecords(conn, workspace)
    await records.begin([WriteIntent(document, b"content")])
    ...  # the file is written
    await records.end([document])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import zstandard

from angelos.adapters.stores.postgres import Connection
from angelos.angelgit.storage.models import WriteRecord
from angelos.angelgit.storage.sql import NamedQueries


class WriteIntent(NamedTuple):
    """What a working file is about to hold."""

    document: str
    content: bytes | None
    """None: the write was given up."""
    edit: bytes | None = None
    """The file holds the content already: it is an edit, and this is its update."""


class WorkingFileRecords:
    """The records of one workspace's files, by document, on one connection."""

    def __init__(self, conn: Connection, workspace: str) -> None:
        self._sql = NamedQueries(conn)
        self._workspace = workspace

    async def find(self, documents: Collection[str]) -> dict[str, tuple[WriteRecord, bytes | None]]:
        """Return, by document, the record of its file and the edit that is being taken in."""
        rows = await self._sql.all(
            "write_records", documents=list(documents), workspace=self._workspace
        )
        return {
            document: (WriteRecord(_decompress(content), _decompress(intended)), edit)
            for document, content, intended, edit in rows
        }

    async def begin(self, writes: Iterable[WriteIntent]) -> None:
        """Record what files are about to hold."""
        compress = zstandard.ZstdCompressor(3).compress
        rows = [
            {
                "document": write.document,
                "workspace": self._workspace,
                "intended": None if write.content is None else compress(write.content),
                "edit": write.edit,
            }
            for write in writes
        ]
        await self._sql.many("begin_write", rows)

    async def end(self, documents: Collection[str]) -> None:
        """Record that files hold what they were about to hold."""
        await self._sql.run("end_writes", documents=list(documents), workspace=self._workspace)

    async def forget(self, document: str) -> None:
        """Remove the record of a document that has no working file any more."""
        await self._sql.run("forget_file", document=document, workspace=self._workspace)


def _decompress(body: bytes | None) -> bytes | None:
    return None if body is None else zstandard.ZstdDecompressor().decompress(body)
