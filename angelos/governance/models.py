"""The audit log as it is stored and exported.

An export is JSON lines, each in canonical form (these structs, fields in this order, no spaces):

    {"format":"angelos-audit/1","origin":"angelos/audit/6fd0...","key":"<base64>"}
    {"checkpoint":"<note>"}                                 by size; the last covers all entries
    {"index":0,"body":"<base64 MessagePack of the fact>","leaf":"<hex>"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from angelos.core.facts import EPHEMERAL, Fact
from angelos.core.ids import Offset
from angelos.core.messages import encode
from angelos.core.signing import VerifyKey
from angelos.governance.checkpoint import origin_of
from angelos.governance.merkle import leaf_hash

FORMAT = "angelos-audit/1"


class ExportHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of an export."""

    format: str
    origin: str
    key: bytes


class ExportCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed checkpoint."""

    checkpoint: str


class ExportEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One leaf, with the bytes that were hashed."""

    index: int
    body: bytes
    leaf: str


class NewEntry(msgspec.Struct, frozen=True):
    """A lasting fact as the tree and the table take it."""

    offset: Offset
    kind: str
    subject: str
    body: bytes
    leaf: bytes


def new_entry(fact: Fact) -> NewEntry | None:
    """Return the entry of a fact that has its offset; None for a kind that does not last."""
    if fact.kind in EPHEMERAL:
        return None
    body = encode(fact)
    return NewEntry(fact.offset, fact.kind, fact.subject, body, leaf_hash(body))


def export_lines(
    key: VerifyKey, notes: Iterable[str], entries: Iterable[tuple[int, bytes, bytes]]
) -> Iterator[bytes]:
    """Yield the lines of an export; `entries` are (index, body, leaf)."""
    yield line_of(ExportHeader(FORMAT, origin_of(key), key.raw))
    for note in notes:
        yield line_of(ExportCheckpoint(note))
    for index, body, leaf in entries:
        yield line_of(ExportEntry(index, body, leaf.hex()))


def line_of(line: ExportHeader | ExportCheckpoint | ExportEntry) -> bytes:
    """Return a line of an export in its canonical form."""
    return msgspec.json.encode(line) + b"\n"
