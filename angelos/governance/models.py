"""The audit log as it is kept and exported.

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


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of an export."""

    format: str
    origin: str
    key: bytes


class CheckpointLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed checkpoint."""

    checkpoint: str


class EntryLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One leaf with what was hashed."""

    index: int
    body: bytes
    leaf: str


class Entry(msgspec.Struct, frozen=True):
    """A row to be: a fact that lasts, as the tree takes it."""

    offset: Offset
    kind: str
    subject: str
    body: bytes
    leaf: bytes


def entry_of(fact: Fact) -> Entry | None:
    """Return the entry of a fact that has its offset; None for one that does not last."""
    if fact.kind in EPHEMERAL:
        return None
    body = encode(fact)
    return Entry(fact.offset, fact.kind, fact.subject, body, leaf_hash(body))


def export_lines(
    key: VerifyKey, notes: Iterable[str], entries: Iterable[tuple[int, bytes, bytes]]
) -> Iterator[bytes]:
    """Yield the lines of an export; `entries` are (index, body, leaf)."""
    yield line_of(Header(FORMAT, origin_of(key), key.raw))
    for note in notes:
        yield line_of(CheckpointLine(note))
    for index, body, leaf in entries:
        yield line_of(EntryLine(index, body, leaf.hex()))


def line_of(line: Header | CheckpointLine | EntryLine) -> bytes:
    """Return a line of an export in its canonical form."""
    return msgspec.json.encode(line) + b"\n"
