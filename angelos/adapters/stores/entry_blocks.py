"""Entries of the audit log as they are stored: up to 256 of them, compressed together.

What is compressed in one piece shares its words, so an entry takes about a sixth of a row of its
own. A block never crosses a multiple of 256, which is a tile of the tree (C2SP tlog-tiles), and
holds at most about a megabyte before it is compressed.

    >>> entry = AuditLeaf(b'{"kind":"task.finished","subject":"task-1"}', bytes(32), bytes(32), b"")
    >>> unpack(pack([entry])) == [entry]
    True

The data of facts, which may be erased, are a piece of their own; the bodies are its dictionary. A
commitment (32 random bytes to a compressor) is left out of a body while the data and the salt that
it is computed from are there.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import zstandard

from angelos.core.audit import SALT_BYTES, commitment
from angelos.core.errors import Tampered
from angelos.core.ids import Offset

BLOCK_ENTRIES = 256
LEAF_BYTES = 32
_BLOCK_BYTES = 1 << 20
_MAX_BYTES = 1 << 28
_LEVEL = 3
_COMPUTED = b'"commitment":\0'  # no JSON has this byte
_ENTRY_BYTES = LEAF_BYTES + SALT_BYTES


class AuditLeaf(NamedTuple):
    """One entry, without its place."""

    body: bytes
    """The leaf: canonical JSON (`core.audit`)."""
    leaf: bytes
    """Its hash in the tree."""
    salt: bytes | None
    data: bytes | None
    """The fact's data; none, and no salt, once they were erased."""


class Packed(NamedTuple):
    """Consecutive entries in the columns of a row."""

    leaves: bytes
    """The hashes, side by side."""
    bodies: bytes
    data: bytes


class EntryNames(msgspec.Struct, frozen=True):
    """What a reader looks for in a body."""

    offset: Offset = Offset("0-0")
    kind: str = ""
    subject: str = ""


class _Disclosed(msgspec.Struct, frozen=True, array_like=True):
    """The part of a row that can be erased."""

    salts: bytes
    """Side by side, without those that were erased."""
    data: list[bytes | None]
    commitments: dict[int, str] = {}
    """Those of entries whose data were erased here, by place."""


_names = msgspec.json.Decoder(EntryNames)
_bodies = msgspec.msgpack.Decoder(list[bytes])
_disclosed = msgspec.msgpack.Decoder(_Disclosed)


def pack(entries: Sequence[AuditLeaf]) -> Packed:
    """Return entries as a row holds them."""
    bodies = msgspec.msgpack.encode([_without_commitment(entry) for entry in entries])
    salts = b"".join(entry.salt for entry in entries if entry.salt is not None)
    disclosed = _Disclosed(salts, [entry.data for entry in entries])
    compressed = zstandard.ZstdCompressor(_LEVEL).compress(bodies)
    leaves = b"".join(entry.leaf for entry in entries)
    return Packed(leaves, compressed, _compressed(disclosed, bodies))


def unpack(packed: Packed) -> list[AuditLeaf]:
    """Return the entries of a row.

    Raises:
        Tampered: The row was changed so that it cannot be read.
    """
    _, bodies, disclosed = _opened(packed)
    salts = iter(_split_bytes(disclosed.salts, SALT_BYTES))
    rows = []
    for place, leaf in enumerate(_split_bytes(packed.leaves, LEAF_BYTES)):
        data = disclosed.data[place]
        if data is None:
            salt, stated = None, disclosed.commitments.get(place, "")
        else:
            salt = next(salts)
            stated = commitment(salt, data) if _COMPUTED in bodies[place] else ""
        rows.append(AuditLeaf(_with_commitment(bodies[place], stated), leaf, salt, data))
    return rows


def body_at(packed: Packed, place: int) -> bytes:
    """Return the body of one entry of a row; raise `Tampered` if the row cannot be read."""
    _, bodies, disclosed = _opened(packed)
    body, data = bodies[place], disclosed.data[place]
    if _COMPUTED not in body:
        return body
    if data is None:
        return _with_commitment(body, disclosed.commitments.get(place, ""))
    at = SALT_BYTES * sum(each is not None for each in disclosed.data[:place])
    return _with_commitment(body, commitment(disclosed.salts[at : at + SALT_BYTES], data))


def without_data(packed: Packed, places: Collection[int]) -> Packed | None:
    """Return a row without the data and salts of some of its entries; None if they have none."""
    plain, _, disclosed = _opened(packed)
    erased = {place for place in places if disclosed.data[place] is not None}
    if not erased:
        return None
    salts = iter(_split_bytes(disclosed.salts, SALT_BYTES))
    left: list[bytes] = []
    data, commitments = list(disclosed.data), dict(disclosed.commitments)
    for place, each in enumerate(disclosed.data):
        if each is None:
            continue
        salt = next(salts)
        if place in erased:
            commitments[place] = commitment(salt, each)
            data[place] = None
        else:
            left.append(salt)
    return packed._replace(data=_compressed(_Disclosed(b"".join(left), data, commitments), plain))


def split(first: int, entries: Sequence[AuditLeaf]) -> Iterator[tuple[int, list[AuditLeaf]]]:
    """Yield entries as they go into rows, each with the index of its first one.

    Args:
        first: The index of the first entry.
        entries: Consecutive ones.
    """
    row: list[AuditLeaf] = []
    size = 0
    for index, entry in enumerate(entries, start=first):
        added = bytes_of(entry)
        if row and (index % BLOCK_ENTRIES == 0 or size + added > _BLOCK_BYTES):
            yield index - len(row), row
            row, size = [], 0
        row.append(entry)
        size += added
    if row:
        yield first + len(entries) - len(row), row


def bytes_of(entry: AuditLeaf) -> int:
    """Return how many bytes an entry has before it is compressed."""
    return len(entry.body) + len(entry.data or b"") + _ENTRY_BYTES


def names_of(body: bytes) -> EntryNames | None:
    """Return what a body says about where it belongs; None where it cannot be read."""
    try:
        return _names.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def term(field: str, word: str) -> int:
    """Return the number that a row is looked up by: 32 bits, and not the only one of its word."""
    return zlib.crc32(f"{field} {word}".encode(errors="surrogatepass")) - (1 << 31)


def terms_of(names: Iterable[EntryNames]) -> list[int]:
    """Return the numbers of a row: of each kind and each subject in it."""
    found: set[int] = set()
    for each in names:
        found |= {term("kind", each.kind), term("subject", each.subject)}
    return sorted(found)


def _opened(packed: Packed) -> tuple[bytes, list[bytes], _Disclosed]:
    """Return a row's bodies as one piece and as a list, and the rest; raise `Tampered`."""
    try:
        plain = _plain(zstandard.ZstdDecompressor(), packed.bodies)
        bodies = _bodies.decode(plain)
        reader = zstandard.ZstdDecompressor(dict_data=_dictionary(plain))
        disclosed = _disclosed.decode(_plain(reader, packed.data))
    except (zstandard.ZstdError, msgspec.DecodeError, MemoryError) as error:
        raise Tampered("Entries of the audit log cannot be read.") from error
    present = sum(each is not None for each in disclosed.data)
    if not len(packed.leaves) == LEAF_BYTES * len(bodies) == LEAF_BYTES * len(disclosed.data):
        raise Tampered("Entries of the audit log were added or removed.")
    if len(disclosed.salts) != present * SALT_BYTES:
        raise Tampered("Entries of the audit log cannot be read.")
    return plain, bodies, disclosed


def _compressed(disclosed: _Disclosed, bodies: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(_LEVEL, dict_data=_dictionary(bodies))
    return compressor.compress(msgspec.msgpack.encode(disclosed))


def _split_bytes(joined: bytes, width: int) -> list[bytes]:
    return [joined[at : at + width] for at in range(0, len(joined), width)]


def _stated(hexadecimal: str) -> bytes:
    return b'"commitment":"%b"' % hexadecimal.encode()


def _without_commitment(entry: AuditLeaf) -> bytes:
    if entry.salt is None or entry.data is None:
        return entry.body
    return entry.body.replace(_stated(commitment(entry.salt, entry.data)), _COMPUTED, 1)


def _with_commitment(body: bytes, stated: str) -> bytes:
    return body.replace(_COMPUTED, _stated(stated), 1) if stated else body


def _plain(decompressor: zstandard.ZstdDecompressor, compressed: bytes) -> bytes:
    size = zstandard.frame_content_size(compressed)
    if not 0 <= size <= _MAX_BYTES:
        raise Tampered("Entries of the audit log cannot be read.")
    return decompressor.decompress(compressed)


def _dictionary(content: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
