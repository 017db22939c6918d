"""Facts in blocks: what one entry of the journal's stream holds, and how its facts are numbered.

An entry costs Valkey about as much as it costs to write thirty facts into one, so facts that are
appended together share entries. The entry `<ms>-<s>` holds up to `MOST` facts in order; the one at
index i has the offset `<ms>-<512 * s + i>`, so the entry of an offset needs no look-up.

    b    the facts, as one MessagePack array
    k    their kinds, so that whoever wants none of them need not decode them
    c    the CRC-32 of both
    e    the offset of the last fact before it that does not last
    n    how many facts were appended before it
    y    how many bytes the bodies before it have

>>> entry_of(Offset("7-1030")), offset_in("7-2", 6)
('7-2', '7-1030')
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import msgspec

from angelos.adapters.stores.streams import checksum, fields_of
from angelos.core.errors import InvalidInput
from angelos.core.facts import EPHEMERAL, Fact
from angelos.core.ids import Offset, offset_key

Key = tuple[int, int]

MOST = 64
"""Facts in one entry."""
MOST_BYTES = 256 * 1024
"""Data in one entry, unless it is a single fact."""
NUMBERS = 512
"""How many offsets belong to each entry, used or not."""
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(list[Fact]).decode


def split(facts: Sequence[Fact]) -> Iterator[Sequence[Fact]]:
    """Yield the facts in order, without offsets, in pieces that fit into one entry."""
    start, total = 0, 0
    bare = [msgspec.structs.replace(f, offset=Offset("")) if f.offset else f for f in facts]
    for index, fact in enumerate(bare):
        size = len(fact.data)
        if index > start and (index - start >= MOST or total + size > MOST_BYTES):
            yield bare[start:index]
            start, total = index, 0
        total += size
    yield bare[start:]


def write_block(facts: Sequence[Fact]) -> tuple[bytes, bytes, int, int]:
    """Return the body of an entry, kinds, checksum, and the index of the last that does not last.

    The index is -1 if all last. None of the facts has an offset.
    """
    body = _encode(facts)
    names = [fact.kind for fact in facts]
    different = {*names}
    kinds = " ".join(sorted(different)).encode()
    ephemeral = -1
    if not different.isdisjoint(EPHEMERAL):
        ephemeral = max(index for index, kind in enumerate(names) if kind in EPHEMERAL)
    return body, kinds, checksum(body, kinds), ephemeral


def read_block(entry: bytes, words: Sequence[bytes]) -> list[Fact]:
    """Return the facts of an entry with their offsets.

    Raises:
        InvalidInput: It is damaged, or of another writer.
    """
    fields = fields_of(words)
    if not _is_whole(fields):
        raise InvalidInput("Its checksum does not fit: it is damaged, or of another writer.")
    try:
        facts = _decode(fields[b"b"])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"It holds no facts: {error}") from error
    if not 0 < len(facts) <= NUMBERS:
        raise InvalidInput(f"It holds {len(facts)} facts.")
    for fact, offset in zip(facts, offsets_in(entry, len(facts)), strict=True):
        msgspec.structs.force_setattr(fact, "offset", offset)  # just decoded, nobody else's yet
    return facts


def kinds_of(words: Sequence[bytes]) -> frozenset[str] | None:
    """Return the kinds of the facts of an entry; None if it is damaged or of another writer."""
    fields = fields_of(words)
    if not _is_whole(fields):
        return None
    return _split_kinds(fields[b"k"])


@functools.lru_cache(256)
def _split_kinds(kinds: bytes) -> frozenset[str]:
    """Return the kinds; the same object for the same kinds, since thousands of blocks hold one."""
    return frozenset(kinds.decode(errors="replace").split(" "))


def _is_whole(fields: dict[bytes, bytes]) -> bool:
    body, kinds = fields.get(b"b", b""), fields.get(b"k")
    return kinds is not None and fields.get(b"c") == b"%d" % checksum(body, kinds)


def last_of(entry: bytes, words: Sequence[bytes]) -> Offset:
    """Return the offset of the last fact of an entry, readable or not."""
    try:
        return read_block(entry, words)[-1].offset
    except InvalidInput:
        return behind(entry)


def entry_key(entry: str) -> Key:
    """Return a key by which entries sort."""
    ms, _, number = entry.partition("-")
    return int(ms), int(number)


def offset_in(entry: str, index: int) -> Offset:
    """Return the offset of a fact in an entry."""
    ms, number = entry_key(entry)
    return Offset(f"{ms}-{number * NUMBERS + index}")


def offsets_in(entry: bytes, count: int) -> list[Offset]:
    """Return the offsets of the facts of an entry."""
    ms, number = entry_key(entry.decode())
    first = number * NUMBERS
    return [Offset(f"{ms}-{index}") for index in range(first, first + count)]


def entry_of(offset: Offset) -> str:
    """Return the entry that an offset belongs to."""
    ms, number = offset_key(offset)
    return f"{ms}-{number // NUMBERS}"


def behind(entry: bytes) -> Offset:
    """Return an offset behind every fact of an entry and before those of the next."""
    return offset_in(entry.decode(), NUMBERS - 1)


def read_from(after: Offset) -> str:
    """Return from where the stream is read for the facts behind an offset.

    The first entry may begin with facts that are not behind it.
    """
    entry = entry_of(after)
    return f"({entry}" if offset_key(after)[1] % NUMBERS == NUMBERS - 1 else entry
