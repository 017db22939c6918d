"""An export of the audit log: JSON lines, each in canonical form, for offline verification.

    {"format":"angelos-audit/2","origin":"angelos/audit/6fd0...","keys":[["<vkey>","<vkey>"]]}
    {"checkpoint":"<note>"}                       by size; the last covers all entries
    {"index":0,"leaf":"<hex>","body":{...},"salt":"<base64>","data":"<base64 MessagePack>"}

`body` is the leaf itself, in the bytes that were hashed. `salt` and `data` are null where the data
were erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from angelos.governance.log.checkpoint import KeyEpoch
from angelos.governance.log.models import EntryRow

FORMAT = "angelos-audit/2"


class ExportHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of an export."""

    format: str
    origin: str
    keys: tuple[tuple[str, ...], ...]
    """Verifier keys, a row for each life of the signer."""


class ExportCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed checkpoint."""

    checkpoint: str


class ExportEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One leaf, with the bytes that were hashed and the data that it commits to."""

    index: int
    leaf: str
    body: msgspec.Raw
    salt: bytes | None = None
    data: bytes | None = None


def export_lines(
    origin: str, epochs: Sequence[KeyEpoch], notes: Iterable[str], rows: Iterable[EntryRow]
) -> Iterator[bytes]:
    """Yield the lines of an export."""
    keys = tuple(tuple(key.vkey for key in epoch) for epoch in epochs)
    yield line_of(ExportHeader(FORMAT, origin, keys))
    for note in notes:
        yield line_of(ExportCheckpoint(note))
    for row in rows:
        yield line_of(entry_line(row))


def entry_line(row: EntryRow) -> ExportEntry:
    """Return the line of a stored entry."""
    return ExportEntry(row.index, row.leaf.hex(), msgspec.Raw(row.body), row.salt, row.data)


def line_of(line: ExportHeader | ExportCheckpoint | ExportEntry) -> bytes:
    """Return a line of an export in its canonical form."""
    return msgspec.json.encode(line) + b"\n"
