"""What is said of a model: its figures with intervals, its data, its limits, what it is bad at.

>>> Metric(name="auc", value=0.9, low=0.85, high=0.94, baseline=0.8, peer="entropy").wins
True
>>> Metric(name="loss", value=1.8, low=1.7, high=1.9, baseline=1.85, less_is_better=True).wins
False
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from angelos.core.messages import Message


class Metric(Message, frozen=True, kw_only=True):
    """One figure of a model, with the ends of its 95 % interval, beside a simple thing's."""

    name: str
    value: float
    low: float
    high: float
    baseline: float | None = None
    """The figure of the simple thing on the same examples; of a difference it is 0."""
    peer: str = ""
    """The simple thing."""
    less_is_better: bool = False

    @property
    def wins(self) -> bool:
        """Whether the whole interval is better than the baseline."""
        if self.baseline is None:
            return False
        return self.high < self.baseline if self.less_is_better else self.low > self.baseline

    def __str__(self) -> str:
        """Return it as one phrase, for people to read."""
        beside = "" if self.baseline is None else f", {self.peer or 'baseline'} {self.baseline:.3f}"
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f}){beside}"


class Card(Message, frozen=True, kw_only=True):
    """A model's card."""

    role: str
    data: str
    """What it was trained on, for people to read."""
    data_hash: str
    """`hash_examples` of the training data."""
    hash: str
    """SHA-256 of the weights and the configuration."""
    parameters: int
    seed: int
    config: dict[str, Any]
    metrics: tuple[Metric, ...]
    limits: tuple[str, ...]
    bad_at: tuple[str, ...]

    def to_markdown(self) -> str:
        """Return the card as a page."""
        rows = [
            f"| {m.name} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {_beside(m)} |"
            for m in self.metrics
        ]
        parts = [
            f"# {self.role}",
            f"{self.parameters:,} parameters, seed {self.seed}, `{self.hash[:16]}`.",
            f"Trained on {self.data} (`{self.data_hash[:16]}`).",
            "\n".join(["| metric | value | 95 % interval | beside |", "|---|---|---|---|", *rows]),
            "## Limits\n\n" + _listed(self.limits),
            "## Bad at\n\n" + _listed(self.bad_at),
        ]
        return "\n\n".join(parts) + "\n"


def hash_values(*values: Any) -> str:
    """Return the SHA-256 of plain values; the order of keys does not count."""
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


def _beside(metric: Metric) -> str:
    return "" if metric.baseline is None else f"{metric.peer or 'baseline'} {metric.baseline:.3f}"


def _listed(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
