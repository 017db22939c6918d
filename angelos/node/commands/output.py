"""Turns a run's bytes into text for facts, and keeps head and tail for the result. Pure.

>>> feed = Feed()
>>> feed.add("stdout", "é".encode()[:1])
>>> feed.add("stdout", "é!".encode()[1:])
>>> feed.take()
[('stdout', 'é!')]
"""

from __future__ import annotations

import codecs
from typing import Literal

StreamName = Literal["stdout", "stderr"]
CHUNK_CHARS = 65_536
KEPT_CHARS = 65_536
"""Of each stream, in the result: the first and the last half."""
FULL_CHARS = 262_144
"""So much text waiting to be told makes the run wait."""


class Kept:
    """The first and last part of one stream's text."""

    def __init__(self) -> None:
        """Start empty."""
        self._head = ""
        self._tail = ""
        self.total = 0

    def add(self, text: str) -> None:
        """Take the next piece."""
        self.total += len(text)
        room = KEPT_CHARS // 2 - len(self._head)
        self._head += text[:room]
        self._tail = (self._tail + text[room:])[-KEPT_CHARS // 2 :]

    @property
    def truncated(self) -> bool:
        """Tell whether something in the middle was left out."""
        return self.total > len(self._head) + len(self._tail)

    def text(self) -> str:
        """Return what was kept, saying how much was not."""
        if not self.truncated:
            return self._head + self._tail
        left_out = self.total - len(self._head) - len(self._tail)
        return f"{self._head}\n... {left_out} characters left out ...\n{self._tail}"


class Feed:
    """What waits to be told of one run."""

    def __init__(self) -> None:
        """Start empty."""
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": make("replace"), "stderr": make("replace")}
        self.kept: dict[StreamName, Kept] = {"stdout": Kept(), "stderr": Kept()}
        self._waiting: list[tuple[StreamName, str]] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Tell whether the run has to wait until some was told."""
        return self._size >= FULL_CHARS

    def add(self, stream: StreamName, data: bytes, *, last: bool = False) -> None:
        """Take bytes as they came; a character may be split between two calls."""
        text = self._decoders[stream].decode(data, final=last)
        if not text:
            return
        self.kept[stream].add(text)
        self._size += len(text)
        if self._waiting and self._waiting[-1][0] == stream:
            text = self._waiting.pop()[1] + text
        self._waiting.append((stream, text))

    def end(self) -> None:
        """Say that nothing more comes: half a character becomes U+FFFD."""
        self.add("stdout", b"", last=True)
        self.add("stderr", b"", last=True)

    def take(self) -> list[tuple[StreamName, str]]:
        """Return what waits, in order, in pieces of bounded size."""
        pieces: list[tuple[StreamName, str]] = [
            (stream, text[i : i + CHUNK_CHARS])
            for stream, text in self._waiting
            for i in range(0, len(text), CHUNK_CHARS)
        ]
        self._waiting.clear()
        self._size = 0
        return pieces
