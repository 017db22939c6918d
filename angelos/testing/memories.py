"""Memories for tests, and an embedding model that needs no wheel."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from angelos.core.ids import PrincipalId
from angelos.core.memories import SHARED, MemoryHit, MemoryView, new_memory_id

_DIMENSIONS = 384


class WordEmbedder:
    """Vectors by hashed words: texts with the same words are near, and nothing else is known."""

    name = "words"
    dimensions = _DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector of length one for each text."""
        return [_vector(text) for text in texts]


def hit(text: str, score: float = 1.0) -> MemoryHit:
    """Return a recalled memory of this text."""
    view = MemoryView(
        id=new_memory_id(),
        namespace=SHARED,
        text=text,
        by=PrincipalId("agent/ada"),
        at=1.0,
        confirmed_at=1.0,
    )
    return MemoryHit(memory=view, score=score, vector_rank=1)


def _vector(text: str) -> list[float]:
    vector = [0.0] * _DIMENSIONS
    for word in re.findall(r"\w+", text.casefold()) or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % _DIMENSIONS] += 1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]
