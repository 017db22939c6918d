"""Turns a run's bytes into text for facts, and keeps head and tail for the result. Pure.

>>> buffer = OutputBuffer()
>>> buffer.add("stdout", "é".encode()[:1])
>>> buffer.add("stdout", "é!".encode()[1:])
>>> buffer.take()
[('stdout', 'é!')]
"""

from __future__ import annotations

import codecs
from typing import Literal

StreamName = Literal["stdout", "stderr"]
CHUNK_CHARS = 65_536
EXCERPT_CHARS = 65_536
"""Of each stream, in the result: the first and the last half."""
FULL_CHARS = 262_144
"""With so much text waiting to be reported, the run has to wait."""


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


class OutputBuffer:
    """The output of one run that waits to be reported, and an excerpt of all of it."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": make("replace"), "stderr": make("replace")}
        self.excerpts: dict[StreamName, Excerpt] = {"stdout": Excerpt(), "stderr": Excerpt()}
        self._waiting: list[tuple[StreamName, str]] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Return whether the run has to wait until some output was reported."""
        return self._size >= FULL_CHARS

    def add(self, stream: StreamName, data: bytes, *, last: bool = False) -> None:
        """Append bytes as they arrive; a character may be split between two calls."""
        text = self._decoders[stream].decode(data, final=last)
        if not text:
            return
        self.excerpts[stream].add(text)
        self._size += len(text)
        if self._waiting and self._waiting[-1][0] == stream:
            text = self._waiting.pop()[1] + text
        self._waiting.append((stream, text))

    def end(self) -> None:
        """Close both streams: an incomplete character at the end becomes U+FFFD."""
        self.add("stdout", b"", last=True)
        self.add("stderr", b"", last=True)

    def take(self) -> list[tuple[StreamName, str]]:
        """Return and remove what waits, in order, in pieces of bounded size."""
        pieces: list[tuple[StreamName, str]] = [
            (stream, text[i : i + CHUNK_CHARS])
            for stream, text in self._waiting
            for i in range(0, len(text), CHUNK_CHARS)
        ]
        self._waiting.clear()
        self._size = 0
        return pieces
