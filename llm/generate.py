"""Drawing a token from logits: pure functions. The loop over tokens is ``GPTDecoder.stream``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Generator, Tensor


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
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k}: make it at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p}: make it above 0 and at most 1")


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


def choose(logits: Tensor, sampling: Sampling, generator: Generator | None) -> Tensor:
    """Draw one token a row, (B,), from logits (B, V); the likeliest at temperature 0."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    rates = narrow(logits, sampling).softmax(-1)
    # Whose exponential wait is over first is a draw: torch.multinomial's own way, less its checks.
    return (rates / torch.empty_like(rates).exponential_(generator=generator)).argmax(-1)
