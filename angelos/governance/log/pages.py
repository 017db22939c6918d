"""An export read from the store page by page, however long the log is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from angelos.governance.log.export import ExportCheckpoint, entry_line, export_lines, line_of
from angelos.governance.log.store import AuditStore

_PIECE_BYTES = 65_536


async def export(
    store: AuditStore, origin: str, size: int, page: int
) -> AsyncGenerator[bytes, None]:
    """Yield an export of the log, in pieces of whole lines; what is missing is left out.

    Args:
        store: Where the log is.
        origin: Its name.
        size: How many entries it should have.
        page: How many entries, or checkpoints, are held at once.
    """
    piece = bytearray()
    async with aclosing(_lines(store, origin, size, page)) as lines:
        async for line in lines:
            piece += line
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


async def _lines(
    store: AuditStore, origin: str, size: int, page: int
) -> AsyncGenerator[bytes, None]:
    for line in export_lines(origin, await store.epochs(), (), ()):
        yield line
    after = -1
    while notes := await store.notes(origin, after, size, page):
        for after, note in notes:  # noqa: B007 - the next page follows the last one
            yield line_of(ExportCheckpoint(note))
    after = -1
    while rows := await store.entries(after, min(page, size - 1 - after)):
        after = rows[-1].index
        rows.reverse()
        while rows:  # each is released when it is sent
            yield line_of(entry_line(rows.pop()))
        if after >= size - 1:
            return
