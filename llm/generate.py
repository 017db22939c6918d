"""Drawing a token from logits: pure functions. The loop over tokens is ``GPTDecoder.stream``."""

from torch import Generator, Tensor, empty_like, inf

from llm.config import Sampling


def narrow(logits: Tensor, how: Sampling) -> Tensor:
    """Divide logits (B, V) by the temperature and set those ruled out to minus infinity.

    ``top_k`` keeps the k largest; ``top_p`` (Holtzman et al. 2019) keeps the fewest whose
    probabilities reach p, and always the largest.
    """
    logits = logits if how.temperature == 1 else logits / how.temperature
    if how.top_k is not None:
        kth = logits.topk(min(how.top_k, logits.size(-1))).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -inf)
    if how.top_p is not None:
        ordered, order = logits.sort(descending=True)  # (B, V)
        mass = ordered.softmax(-1)
        masked = ordered.masked_fill(mass.cumsum(-1) - mass >= how.top_p, -inf)
        logits = masked.gather(1, order.argsort())
    return logits


def choose(logits: Tensor, how: Sampling, generator: Generator | None) -> Tensor:
    """Draw one token a row, (B,), from logits (B, V); the likeliest at temperature 0."""
    if how.temperature == 0:
        return logits.argmax(-1)
    rates = narrow(logits, how).softmax(-1)
    # The first of exponential waiting times is a draw: as torch.multinomial does, less its checks.
    return (rates / empty_like(rates).exponential_(generator=generator)).argmax(-1)
