"""Drawing new tokens: a pure filter over logits, and the loop that feeds the model its own words.

While the text fits in the block, a new token costs one row of work: the keys and values of the
earlier ones are cached. Past the block every learned position shifts, so the last ``block_size``
tokens are recomputed for each new one, as in nanoGPT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from llm.model import GPTDecoder


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn, and the string after which a text is complete."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf:
            raise ValueError(f"temperature {self.temperature}: make it 0 (greedy) or positive")
        if (self.top_k is not None and self.top_k < 1) or not 0 < (
            1 if self.top_p is None else self.top_p
        ) <= 1:
            raise ValueError("make top_k at least 1, and top_p above 0 and at most 1")


def narrow(logits: Tensor, sampling: Sampling) -> Tensor:
    """Divide logits (B, V) by the temperature and set those ruled out to minus infinity.

    ``top_k`` keeps the k largest; ``top_p`` (Holtzman et al. 2019) keeps the fewest whose
    probabilities reach p, and always the largest.
    """
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.size(-1):
        kth = logits.topk(sampling.top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -inf)
    if sampling.top_p is not None:
        ordered, order = logits.sort(descending=True)  # (B, V)
        mass = ordered.softmax(-1)
        kept = ordered.masked_fill(mass.cumsum(-1) - mass >= sampling.top_p, -inf)
        logits = kept.gather(1, order.argsort())
    return logits


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Draw one token a row, (B,), from logits (B, V); the likeliest at temperature 0."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = narrow(logits, sampling).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def stream(model: GPTDecoder, ids: Tensor, count: int, sampling: Sampling) -> Iterator[Tensor]:
    """Yield up to ``count`` tokens (B,) that follow ids (B, T), each as it is drawn."""
    (B, T), block_size = ids.shape, model.config.block_size
    if not T or ids.min() < 0 or ids.max() >= model.config.vocab_size or count < 0:
        raise ValueError("give at least one id, all of the vocabulary, and a count of 0 or more")
    if sampling.stop and not model.tokenizer:
        raise ValueError("a stop string needs the tokenizer: set model.tokenizer")
    stop = model.tokenizer.encode(sampling.stop) if sampling.stop and model.tokenizer else []
    generator = None
    if sampling.seed is not None:
        generator = torch.Generator(ids.device).manual_seed(sampling.seed)
    text = torch.cat([ids, ids.new_zeros(B, count)], dim=1)  # (B, T + count)
    ended = [False] * B
    with torch.inference_mode():
        past, start, was_training = model.new_past(B), 0, model.training
    model.eval()
    try:
        for end in range(T, T + count):
            with torch.inference_mode():  # not across the yield, where the caller's code runs
                if end <= block_size:
                    logits = model.decode(text[:, start:end], past, start)
                else:
                    logits = model(text[:, end - block_size : end])[:, -1]
                text[:, end], start = choose(logits, sampling, generator), end
            if stop:  # a row that has ended waits for the others, repeating its last character
                text[torch.tensor(ended), end] = stop[-1]
                tails = text[:, max(T, end + 1 - len(stop)) : end + 1].tolist()
                ended = [old or tail == stop for old, tail in zip(ended, tails, strict=True)]
            yield text[:, end]
            if all(ended):
                break
    finally:
        model.train(was_training)
