r"""Packs from outside: bounded before anything inflates them whole. Pure.

    bundle = read_bundle(data)
    check_pack(bundle.pack)

A pack's entries say how large they become; what they say is checked while each is inflated in
small steps, so that a few bytes cannot become gigabytes in memory (format: git's `pack-format`).
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from angelos.angelgit.git.objects import is_git_id
from angelos.core.errors import InvalidInput, Refused, TooLarge

MAX_OBJECTS = 1_000_000
MAX_OBJECT_BYTES = 100_000_000
MAX_INFLATED_BYTES = 2_000_000_000
_STEP = 65_536
_OFS_DELTA, _REF_DELTA = 6, 7
_HEAD = 12
_TRAILER = 20
_SHA1 = 20


class ReceivedBundle(NamedTuple):
    """A git bundle in its parts."""

    refs: dict[bytes, str]
    """Full name -> id; `HEAD` among them where it was bundled."""
    pack: memoryview


def read_bundle(data: bytes) -> ReceivedBundle:
    """Return the parts of a whole bundle of format 2.

    Raises:
        InvalidInput: it is none.
        Refused: it needs commits that are not in it.
    """
    head, blank, _ = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if not blank or lines[0] != b"# v2 git bundle" or len(lines) > MAX_OBJECTS:
        raise InvalidInput("This is no git bundle of format 2.")
    refs: dict[bytes, str] = {}
    for line in lines[1:]:
        if line.startswith(b"-"):
            raise Refused(
                "The history is not whole: commits are missing, as in a shallow clone.",
                hint="Fetch all of it first: git fetch --unshallow.",
            )
        identifier, _, name = line.partition(b" ")
        text = identifier.decode(errors="replace")
        if not is_git_id(text) or not name:
            raise InvalidInput("A reference of the bundle cannot be read.")
        refs[name] = text
    return ReceivedBundle(refs, memoryview(data)[len(head) + 2 :])


def check_pack(pack: memoryview) -> int:
    """Return how many objects a pack holds, all within their bounds.

    Raises:
        InvalidInput: it is no pack, or is cut off.
        TooLarge: an object, or all together, would become too large.
    """
    if len(pack) < _HEAD + _TRAILER or pack[:4] != b"PACK":
        raise InvalidInput("This is no git pack.")
    count = int.from_bytes(pack[8:12], "big")
    if count > MAX_OBJECTS:
        raise TooLarge(f"A pack of {count} objects; {MAX_OBJECTS} are allowed.")
    total, place = 0, _HEAD
    try:
        for _ in range(count):
            size, place = _entry(pack, place)
            total += size
            if size > MAX_OBJECT_BYTES or total > MAX_INFLATED_BYTES:
                raise TooLarge(
                    f"Objects of at most {MAX_OBJECT_BYTES} bytes, {MAX_INFLATED_BYTES} in all, are"
                    " taken from git."
                )
    except (IndexError, zlib.error) as error:
        raise InvalidInput("The git pack is broken.") from error
    if place + _TRAILER != len(pack):
        raise InvalidInput("The git pack is cut off.")
    return count


def _entry(pack: memoryview, place: int) -> tuple[int, int]:
    """Return how large the object at a place becomes, and where the next one is."""
    kind = pack[place] >> 4 & 7
    size, shift = pack[place] & 15, 4
    while pack[place] & 128:
        place += 1
        size |= (pack[place] & 127) << shift
        shift += 7
    place += 1
    if kind == _REF_DELTA:
        place += _SHA1
    elif kind == _OFS_DELTA:
        while pack[place] & 128:
            place += 1
        place += 1
    if size > MAX_OBJECT_BYTES:
        return size, place
    start, used = _inflate(pack, place, size)
    is_delta = kind in (_OFS_DELTA, _REF_DELTA)
    return max(size, _target_size(start)) if is_delta else size, place + used


def _inflate(pack: memoryview, place: int, size: int) -> tuple[bytes, int]:
    """Return the beginning of a compressed object, and how many bytes it takes in the pack."""
    inflater = zlib.decompressobj()
    start, length, used = b"", 0, 0
    waiting: bytes = b""
    while not inflater.eof:
        if not waiting:
            waiting = bytes(pack[place + used : place + used + _STEP])
            if not waiting:
                raise IndexError
            used += len(waiting)
        piece = inflater.decompress(waiting, _STEP)
        waiting = inflater.unconsumed_tail
        start = start or piece[:32]
        length += len(piece)
        if length > size or (not piece and not waiting and not inflater.eof and used > len(pack)):
            raise IndexError
    return start, used - len(inflater.unused_data)


def _target_size(delta: bytes) -> int:
    """Return the second of the two sizes with which a delta begins."""
    place = value = 0
    for _ in range(2):
        value, shift = 0, 0
        while True:
            byte = delta[place]
            value |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if not byte & 128:
                break
    return value
