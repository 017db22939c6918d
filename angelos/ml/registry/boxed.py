"""The program that trains, or answers, in a box: `python -m angelos.ml.registry.boxed train`.

It is sent with each task, all files of it (`programs`), so a node needs torch and peft and nothing
of ours, and what trained a model has a hash. It reads `/in` and leaves one file in `/tmp`. What it
prints decides nothing: an artefact is measured by the registry, from its safetensors alone.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from llm.model import GPTDecoder

PLAN, TEXT, BASE, ARTEFACT, ANSWERS = (
    "plan.json",
    "text.txt",
    "base.safetensors",
    "artefact.safetensors",
    "answers.json",
)
ADAPTER = "role"


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a box trains: the settings of the request."""

    steps: int
    batch: int
    rate: float
    seed: int
    rank: int
    width: int
    layers: int
    block: int
    adapter: bool


class AnswerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which inputs two models answer, one beside the other."""

    inputs: tuple[str, ...]
    beside: bool
    """Whether there is a champion."""


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Each model's answer to each input: the loss in nats a character, None if not finite."""

    challenger: tuple[float | None, ...]
    champion: tuple[float | None, ...] = ()


def train(source: Path, target: Path) -> None:
    """Train what the plan says on the text, and leave the artefact."""
    from angelos.ml.training import StepConfig, fit, make_model, model_body, model_of
    from llm.config import ModelConfig

    plan = msgspec.json.decode((source / PLAN).read_bytes(), type=TrainingPlan)
    text = (source / TEXT).read_text(encoding="utf-8")
    steps = StepConfig(steps=plan.steps, batch=plan.batch, rate=plan.rate, seed=plan.seed)
    if plan.adapter:
        from angelos.ml.lora import AdapterConfig, add_adapter, save_adapter  # 3 s of imports

        model, config = model_of((source / BASE).read_bytes()), AdapterConfig(rank=plan.rank)
        fit(model, add_adapter(model, ADAPTER, config, plan.seed), text, steps)
        body = save_adapter(model, ADAPTER, config)
    else:
        shape = ModelConfig(
            d_model=plan.width, n_layers=plan.layers, n_heads=4, block_size=plan.block
        )
        model = make_model(shape, [text], plan.seed)
        fit(model, model.parameters(), text, steps)
        body = model_body(model)
    (target / ARTEFACT).write_bytes(body)


def answer(source: Path, target: Path) -> None:
    """Let the challenger, and the champion if there is one, answer the same inputs."""
    plan = msgspec.json.decode((source / PLAN).read_bytes(), type=AnswerPlan)
    names = ("challenger", "champion") if plan.beside else ("challenger",)
    answers = {name: _answers(source / name, plan.inputs) for name in names}
    (target / ANSWERS).write_bytes(msgspec.json.encode(Answers(**answers)))


def _answers(folder: Path, inputs: tuple[str, ...]) -> tuple[float | None, ...]:
    from angelos.ml.training import model_of

    model = model_of((folder / BASE).read_bytes())
    if not (folder / ARTEFACT).exists():
        return tuple(_answer(model, text) for text in inputs)
    from angelos.ml.lora import AdapterHost

    host = AdapterHost(model)
    host.load(ADAPTER, (folder / ARTEFACT).read_bytes())
    with host.using(ADAPTER) as adapted:
        return tuple(_answer(adapted, text) for text in inputs)


def _answer(model: GPTDecoder, text: str) -> float | None:
    from angelos.ml.training import loss_of

    loss = loss_of(model, text)
    return loss if math.isfinite(loss) else None


def main() -> None:
    """Do what the first argument says."""
    import torch

    torch.set_num_threads(1)
    {"train": train, "answer": answer}[sys.argv[1]](Path("/in"), Path("/tmp"))  # noqa: S108


if __name__ == "__main__":
    main()
