"""What every role is: how it is trained, measured and described.

Torch is imported on use only; a state is a dictionary of tensors, as in safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from angelos.core.messages import Message
from angelos.ml.cards import Card, Metric, hash_values

State = dict[str, Any]
"""Tensors by name."""


class Example(Message, frozen=True, kw_only=True):
    """One text to learn from or to be measured on."""

    text: str
    label: str = ""
    """The answer, where the role has one: the agent of a task, the subject of a commit."""
    source: str = ""
    """Where it comes from: a path, a commit; parts are told apart by it."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model as data: tensors, and plain values from which it is built again."""

    role: str
    state: State
    config: dict[str, Any]
    seed: int
    data_hash: str

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(tensor.numel() for tensor in self.state.values())

    @property
    def hash(self) -> str:
        """SHA-256 of configuration and weights."""
        digest = hashlib.sha256(hash_values(self.role, self.config).encode())
        for name, tensor in sorted(self.state.items()):
            digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class ModelRole(Protocol):
    """One job for a tiny model."""

    name: str
    describes: str
    """The job, in one sentence."""
    limits: tuple[str, ...]
    bad_at: tuple[str, ...]

    def train(self, data: Sequence[Example], config: Mapping[str, Any], seed: int) -> TrainedModel:
        """Return a model of these examples; the same seed gives the same on one machine.

        Args:
            data: What to learn from, and nothing that it is measured on.
            config: Settings of the role that differ from its own.
            seed: Of every random number.

        Raises:
            InvalidInput: The data or a setting cannot work.
        """
        ...

    def evaluate(self, model: TrainedModel, held_out: Sequence[Example]) -> tuple[Metric, ...]:
        """Return its figures on examples that it has not seen, beside the simple thing's."""
        ...


def hash_examples(data: Sequence[Example]) -> str:
    """Return the SHA-256 of examples, in order."""
    return hashlib.sha256(msgspec.json.encode(list(data))).hexdigest()


def make_card(role: ModelRole, model: TrainedModel, data: str, metrics: Sequence[Metric]) -> Card:
    """Return the card of a model.

    Args:
        role: Its job.
        model: It.
        data: What it was trained on, for people to read.
        metrics: What `evaluate` returned.
    """
    return Card(
        role=role.name,
        data=data,
        data_hash=model.data_hash,
        hash=model.hash,
        parameters=model.parameters,
        seed=model.seed,
        config=model.config,
        metrics=tuple(metrics),
        limits=role.limits,
        bad_at=role.bad_at,
    )
