"""Measures a model that another run has trained: losses before and after, and what it repeats."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from angelos.ml.gates import Measurements, exposure
from angelos.ml.lora import AdapterHost
from angelos.ml.training import encoded, loss_of
from llm.model import GPTDecoder

_SIBLINGS = 255


def measure(
    host: AdapterHost,
    name: str,
    heldout: Sequence[str],
    base_text: Sequence[str],
    canaries: Sequence[str],
) -> Measurements:
    """Return what the gates ask, of one adapter beside its base.

    Args:
        host: The base with the adapter loaded.
        name: The adapter.
        heldout: Chunks of the new data that were not trained on.
        base_text: Chunks of the base's own held-out text; they are the regression set too.
        canaries: The strings that were planted in the training text.
    """
    chunks = (*heldout, *base_text)
    with host.using(None) as model:
        before = [loss_of(model, chunk) for chunk in chunks]
    with host.using(name) as model:
        after = [loss_of(model, chunk) for chunk in chunks]
        exposures = tuple(_exposure(model, canary) for canary in canaries)
    cut = len(heldout)
    pairs = tuple(zip(before[cut:], after[cut:], strict=True))
    return Measurements(
        heldout=(_mean(before[:cut]), _mean(after[:cut])),
        base=(_mean(before[cut:]), _mean(after[cut:])),
        regression=pairs,
        exposures=exposures,
    )


def _exposure(model: GPTDecoder, canary: str) -> float:
    drawn = random.Random(canary)  # noqa: S311 - siblings need no secrecy
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789"))
    siblings = ["".join(drawn.choices(letters, k=len(canary))) for _ in range(_SIBLINGS)]
    losses = _losses(model, [canary, *siblings])
    return exposure(losses[0], losses[1:])


@torch.no_grad()
def _losses(model: GPTDecoder, texts: Sequence[str]) -> list[float]:
    """Return the loss of each text of one length, read after a line's end."""
    limit = model.config.block_size
    ids = torch.stack([encoded(model, f"\n{text}")[: limit + 1].long() for text in texts])
    logits = model(ids[:, :-1])
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return loss.view(len(texts), -1).mean(1).tolist()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
