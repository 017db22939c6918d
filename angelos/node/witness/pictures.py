"""Whether two PNG pictures look alike: a difference hash of 64 bits, by the standard library.

The picture is reduced to 9 x 8 grey areas; each bit says whether an area is brighter than the next
(http://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html). PNG is read as in
https://www.w3.org/TR/png-3/, without interlacing and with 8 bits a channel, as libraries write it.
"""

from __future__ import annotations

import struct
import zlib

MAX_PIXELS = 20_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLUMNS, _ROWS = 9, 8


class NotAPicture(ValueError):
    """The bytes are no PNG that this reads."""


def distance(first: bytes, second: bytes) -> int:
    """Return in how many of 64 bits the hashes of two pictures differ.

    Raises:
        NotAPicture: One of them cannot be read, or their sizes differ.
    """
    (size, one), (other_size, other) = hashed(first), hashed(second)
    if size != other_size:
        raise NotAPicture("their sizes differ")
    return (one ^ other).bit_count()


def hashed(body: bytes) -> tuple[tuple[int, int], int]:
    """Return the size of a picture and its difference hash."""
    width, height, rows = _grey_rows(body)
    sums = [[0] * _COLUMNS for _ in range(_ROWS)]
    counts = [[0] * _COLUMNS for _ in range(_ROWS)]
    bounds = [column * width // _COLUMNS for column in range(_COLUMNS + 1)]
    for y, row in enumerate(rows):
        line = min(y * _ROWS // height, _ROWS - 1)
        for column in range(_COLUMNS):
            part = row[bounds[column] : bounds[column + 1]]
            sums[line][column] += sum(part)
            counts[line][column] += len(part)
    value = 0
    for line in range(_ROWS):
        means = [s / max(n, 1) for s, n in zip(sums[line], counts[line], strict=True)]
        for column in range(_COLUMNS - 1):
            # A margin keeps areas of one colour from being decided by noise.
            value = value << 1 | (means[column] > means[column + 1] + 0.5)
    return (width, height), value


def _grey_rows(body: bytes) -> tuple[int, int, list[bytes]]:
    """Return width, height and one byte of brightness for each pixel, row by row."""
    width, height, channels, colours, packed = _chunks(body)
    try:
        raw = zlib.decompressobj().decompress(packed, height * (width * channels + 1))
    except zlib.error as error:
        raise NotAPicture(str(error)) from error
    stride = width * channels
    if len(raw) != height * (stride + 1):
        raise NotAPicture("it is cut off")
    rows: list[bytes] = []
    previous = bytearray(stride)
    for y in range(height):
        start = y * (stride + 1)
        line = bytearray(raw[start + 1 : start + 1 + stride])
        _unfilter(raw[start], line, previous, channels)
        rows.append(_grey(line, channels, colours))
        previous = line
    return width, height, rows


def _chunks(body: bytes) -> tuple[int, int, int, bytes, bytes]:
    if not body.startswith(_SIGNATURE):
        raise NotAPicture("it is no PNG")
    at, header, colours, packed = len(_SIGNATURE), b"", b"", b""
    while at + 8 <= len(body):
        size, kind = struct.unpack(">I4s", body[at : at + 8])
        content = body[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = content
        elif kind == b"PLTE":
            colours = content
        elif kind == b"IDAT":
            packed += content
        at += size + 12
    try:
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    except struct.error as error:
        raise NotAPicture("it has no header") from error
    if depth != 8 or interlaced or colour not in _CHANNELS:  # noqa: PLR2004
        raise NotAPicture("it is written in another way")
    if not 0 < width * height <= MAX_PIXELS:
        raise NotAPicture("it is too large")
    return width, height, _CHANNELS[colour], colours if colour == 3 else b"", packed  # noqa: PLR2004


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undo one row's filter in place (section 9 of the specification)."""
    if kind == 1:
        for i in range(step, len(line)):
            line[i] = (line[i] + line[i - step]) & 255
    elif kind == 2:  # noqa: PLR2004
        line[:] = bytes((a + b) & 255 for a, b in zip(line, above, strict=True))
    elif kind == 3:  # noqa: PLR2004
        for i in range(len(line)):
            left = line[i - step] if i >= step else 0
            line[i] = (line[i] + (left + above[i]) // 2) & 255
    elif kind == 4:  # noqa: PLR2004
        for i in range(len(line)):
            left, corner = (line[i - step], above[i - step]) if i >= step else (0, 0)
            line[i] = (line[i] + _paeth(left, above[i], corner)) & 255
    elif kind:
        raise NotAPicture("a row has an unknown filter")


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if by_left <= by_above and by_left <= by_corner:
        return left
    return above if by_above <= by_corner else corner


def _grey(line: bytearray, channels: int, colours: bytes) -> bytes:
    if colours:
        table = bytes(
            (colours[i] + colours[i + 1] + colours[i + 2]) // 3
            for i in range(0, len(colours) - 2, 3)
        )
        return bytes(line.translate(table.ljust(256, b"\0")))
    if channels in (1, 2):
        return bytes(line[::channels])
    parts = zip(line[0::channels], line[1::channels], line[2::channels], strict=True)
    return bytes((red + green + blue) // 3 for red, green, blue in parts)
