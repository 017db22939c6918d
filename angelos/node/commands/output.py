"""Turns a run's bytes into text for facts, and keeps head and tail for the result. Pure.

>>> buffer = OutputBuffer()
>>> buffer.add("stdout", "é".encode()[:1])
>>> buffer.add("stdout", "é!".encode()[1:])
>>> [piece.text for piece in buffer.take()]
['é!']
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

StreamName = Literal["stdout", "stderr"]
CHUNK_CHARS = 65_536
EXCERPT_CHARS = 65_536
"""Of each stream, in the result: the first and the last half."""
FULL_CHARS = 262_144
"""With so much text waiting to be reported, the run has to wait."""


_LEAD, _FOLLOWS = 0xC0, 0x80
"""The bits by which a byte inside a character is known, and their value (RFC 3629)."""
TAIL_BYTES = 65_536
"""Of each stream, when there is more output than may be reported as it comes."""


class Excerpt:
    """The first and the last part of one stream's text."""

    def __init__(self) -> None:
        self._head = ""
        self._tail = ""
        self.total = 0

    def add(self, text: str) -> None:
        """Append the next piece."""
        self.total += len(text)
        room = EXCERPT_CHARS // 2 - len(self._head)
        self._head += text[:room]
        self._tail = (self._tail + text[room:])[-EXCERPT_CHARS // 2 :]

    @property
    def truncated(self) -> bool:
        """Return whether something in the middle was left out."""
        return self.total > len(self._head) + len(self._tail)

    def text(self) -> str:
        """Return both parts, with the number of characters left out between them."""
        if not self.truncated:
            return self._head + self._tail
        omitted = self.total - len(self._head) - len(self._tail)
        return f"{self._head}\n... {omitted} characters left out ...\n{self._tail}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one stream that can be reported."""

    stream: StreamName
    text: str
    raw: bytes = b""
    """The bytes themselves, where they are no UTF-8."""
    omitted: int = 0
    """Bytes of the stream that were left out right before it."""

    def parts(self) -> Iterator[Piece]:
        """Yield it in parts of bounded size."""
        if not self.raw:
            for i in range(0, len(self.text), CHUNK_CHARS):
                omitted = self.omitted if i == 0 else 0
                yield Piece(self.stream, self.text[i : i + CHUNK_CHARS], omitted=omitted)
            return
        for i in range(0, len(self.raw), CHUNK_CHARS):
            part = self.raw[i : i + CHUNK_CHARS]
            omitted = self.omitted if i == 0 else 0
            yield Piece(self.stream, part.decode(errors="replace"), part, omitted)


class _Tail:
    """The end of one stream, after the part that is reported as it comes."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        self._kept += data
        if len(self._kept) > 2 * TAIL_BYTES:
            del self._kept[:-TAIL_BYTES]

    def piece(self, stream: StreamName) -> Piece | None:
        """Return what is kept, from the beginning of a character on."""
        kept = bytes(self._kept[-TAIL_BYTES:])
        if not kept:
            return None
        if self._total > len(kept):
            starts = (byte & _LEAD != _FOLLOWS for byte in kept[:4])
            kept = kept[next((i for i, first in enumerate(starts) if first), 0) :]
        text, raw, _ = _decode(kept, last=True)
        return Piece(stream, text, raw, self._total - len(kept))


class OutputBuffer:
    """The output of one run that waits to be reported, and an excerpt of all of it."""

    def __init__(self, limit: int = 1 << 62) -> None:
        """Report the first `limit` bytes of both streams as they come, then the end of each."""
        self._room = limit
        self.excerpts: dict[StreamName, Excerpt] = {"stdout": Excerpt(), "stderr": Excerpt()}
        self._halves: dict[StreamName, bytes] = {"stdout": b"", "stderr": b""}
        self._tails: dict[StreamName, _Tail] = {"stdout": _Tail(), "stderr": _Tail()}
        self._waiting: list[Piece] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Return whether the run has to wait until some output was reported."""
        return self._size >= FULL_CHARS

    def add(self, stream: StreamName, data: bytes, *, last: bool = False) -> None:
        """Append bytes as they arrive; a character may be split between two calls."""
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        if rest:
            self._tails[stream].add(rest)
            self.excerpts[stream].add(rest.decode(errors="replace"))
        text, raw, self._halves[stream] = _decode(
            self._halves[stream] + head, last=last or bool(rest)
        )
        if text:
            self.excerpts[stream].add(text)
            self._append(Piece(stream, text, raw))

    def _append(self, piece: Piece) -> None:
        self._size += max(len(piece.text), len(piece.raw))
        last = self._waiting[-1] if self._waiting else None
        same = last is not None and last.stream == piece.stream and not piece.omitted
        if last is not None and same and bool(last.raw) == bool(piece.raw):
            self._waiting[-1] = Piece(
                last.stream, last.text + piece.text, last.raw + piece.raw, last.omitted
            )
        else:
            self._waiting.append(piece)

    def end(self) -> None:
        """Close both streams: an incomplete character at the end becomes U+FFFD."""
        for stream in self._halves:
            self.add(stream, b"", last=True)
        for stream, tail in self._tails.items():
            if (piece := tail.piece(stream)) is not None:
                self._append(piece)

    def take(self) -> list[Piece]:
        """Return and remove what waits, in order, in pieces of bounded size."""
        pieces = [part for piece in self._waiting for part in piece.parts()]
        self._waiting.clear()
        self._size = 0
        return pieces


def _decode(data: bytes, *, last: bool) -> tuple[str, bytes, bytes]:
    """Return the text of bytes, the bytes if they are no UTF-8, and the half character left."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", last)
    except UnicodeDecodeError:
        text, used = codecs.utf_8_decode(data, "replace", last)
        return text, data[:used], data[used:]
    return text, b"", data[used:]
