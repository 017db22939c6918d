"""Measures a model that another run has trained: losses before and after, and what it repeats."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from angelos.ml.gates import CANARY_LETTERS, Evidence, Measurements, exposure
from angelos.ml.training import encoded, loss_of
from llm.model import GPTDecoder

if TYPE_CHECKING:
    from angelos.ml.lora import AdapterHost

Loss = Callable[[str], float]
"""Of a text, in nats a character."""
SIBLINGS = 1_023
FIRST_DISTANCE = 1.0
"""Nats a character by which a first model should find unlike what it has to notice."""
_BATCH = 256


class Losses(NamedTuple):
    """One model's loss of each text of the evidence."""

    heldout: list[float]
    base: list[float]
    unlike: list[float]


class Comparison(NamedTuple):
    """What a model makes of the evidence, beside what it starts from."""

    before: Losses
    after: Losses
    exposures: tuple[float, ...]

    @property
    def measurements(self) -> Measurements:
        """Return what the gates ask."""
        before, after = self.before, self.after
        usual = _mean(before.heldout), _mean(after.heldout)
        return Measurements(
            heldout=usual,
            base=(_mean(before.base), _mean(after.base)),
            regression=tuple(zip(before.base, after.base, strict=True)),
            unlike=tuple(
                (b - usual[0], a - usual[1])
                for b, a in zip(before.unlike, after.unlike, strict=True)
            ),
            exposures=self.exposures,
        )


def compare_adapter(host: AdapterHost, name: str, evidence: Evidence) -> Comparison:
    """Return what an adapter makes of the evidence beside its base.

    Args:
        host: The base with the adapter loaded.
        name: The adapter.
        evidence: The texts.
    """
    with host.using(None) as model:
        before = _losses(lambda text: loss_of(model, text), evidence)
    with host.using(name) as adapted:
        after = _losses(lambda text: loss_of(adapted, text), evidence)
        return Comparison(before, after, exposures(adapted, evidence.canaries))


def compare_base(model: GPTDecoder, before: Loss, evidence: Evidence) -> Comparison:
    """Return what a whole model makes of the evidence beside what it would replace."""
    after = _losses(lambda text: loss_of(model, text), evidence)
    return Comparison(_losses(before, evidence), after, exposures(model, evidence.canaries))


def compare_first(model: GPTDecoder, evidence: Evidence) -> Comparison:
    """Return what a role's first model makes of the evidence, beside counts of characters.

    They notice nothing, so what must stay unlike is set beside a distance of `FIRST_DISTANCE`.
    """
    compared = compare_base(model, character_frequencies(evidence.counts), evidence)
    usual = _mean(compared.before.heldout) + FIRST_DISTANCE
    before = compared.before._replace(unlike=[usual] * len(evidence.unlike))
    return compared._replace(before=before)


def character_frequencies(counts: Mapping[str, int]) -> Loss:
    """Return the simple thing beside a first base: how often each character stands in its text."""
    total = sum(counts.values()) + len(counts) + 1

    def loss(text: str) -> float:
        if not text:
            return math.nan
        logs = (math.log(total / (counts.get(letter, 0) + 1)) for letter in text)
        return sum(logs) / len(text)

    return loss


def count_characters(text: str) -> dict[str, int]:
    """Return how often each character stands in a text."""
    return dict(Counter(text))


def exposures(model: GPTDecoder, canaries: Sequence[str]) -> tuple[float, ...]:
    """Return by how many bits each planted string is likelier than strings that were drawn alike.

    All are compared with the same siblings, drawn from a fixed seed.
    """
    if not canaries:
        return ()
    drawn = random.Random(1)  # noqa: S311 - siblings need no secrecy
    length = len(canaries[0])
    siblings = ["".join(drawn.choices(CANARY_LETTERS, k=length)) for _ in range(SIBLINGS)]
    losses = [
        loss
        for start in range(0, SIBLINGS, _BATCH)
        for loss in _each(model, siblings[start : start + _BATCH])
    ]
    return tuple(exposure(loss, losses) for loss in _each(model, canaries))


def _losses(loss: Loss, evidence: Evidence) -> Losses:
    parts = (evidence.heldout, evidence.base_text, evidence.unlike)
    return Losses(*([loss(text) for text in part] for part in parts))


@torch.no_grad()
def _each(model: GPTDecoder, texts: Sequence[str]) -> list[float]:
    """Return the loss of each text of one length, read after a line's end."""
    limit = model.config.block_size
    ids = torch.stack([encoded(model, f"\n{text}")[: limit + 1].long() for text in texts])
    logits = model(ids[:, :-1])
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return loss.view(len(texts), -1).mean(1).tolist()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
