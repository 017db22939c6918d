"""Settings of memory."""

from __future__ import annotations

import msgspec


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How memories are found, and when two say the same."""

    candidates: int = 60
    """How many of each way are looked at before they are fused."""
    search_width: int = 200
    """`hnsw.ef_search`: how many neighbours the index keeps in sight; more finds more."""
    half_life_s: float = 180 * 86_400.0
    """After this time without a confirmation a memory weighs three quarters, in the end half."""
    same: float = 0.97
    """Cosine similarity from which texts with the same figures and negations say the same."""
    similar: float = 0.80
    """Cosine similarity from which a text may contradict another: the answer names it."""
    purge_every_s: float = 60.0
    purge_batch: int = 500
