"""An export read from the store page by page, however long the log is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from angelos.core.errors import Tampered
from angelos.governance.log.checkpoint import Checkpoint
from angelos.governance.log.export import ExportCheckpoint, entry_line, export_lines, line_of
from angelos.governance.log.store import REPAIR, AuditStore

_PIECE_BYTES = 65_536


async def export(
    store: AuditStore, checkpoint: Checkpoint, page: int
) -> AsyncGenerator[bytes, None]:
    """Yield an export of the log up to a checkpoint, in pieces of whole lines.

    Args:
        store: Where the log is.
        checkpoint: The newest one.
        page: How many entries, or checkpoints, are held at once.

    Raises:
        Tampered: An entry is missing.
    """
    piece = bytearray()
    async with aclosing(_lines(store, checkpoint, page)) as lines:
        async for line in lines:
            piece += line
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


async def _lines(
    store: AuditStore, checkpoint: Checkpoint, page: int
) -> AsyncGenerator[bytes, None]:
    for line in export_lines(checkpoint.origin, await store.epochs(), (), ()):
        yield line
    after = -1
    while notes := await store.notes(after, checkpoint.size, page):
        for after, note in notes:  # noqa: B007 - the next page follows the last one
            yield line_of(ExportCheckpoint(note))
    after = -1
    while after < checkpoint.size - 1:
        rows = await store.entries(after, min(page, checkpoint.size - 1 - after))
        if not rows:
            raise Tampered(f"Entry {after + 1} of the audit log is missing.", hint=REPAIR)
        after = rows[-1].index
        rows.reverse()
        while rows:  # each is released when it is sent
            yield line_of(entry_line(rows.pop()))
