"""What a run leaves behind: all that it needs to go on, and its loss curve.

A path that ends in ``.pt`` is exactly that one file, which ``torch.load(weights_only=True)`` reads.
Any other path is a folder: ``checkpoint.safetensors`` holds all, and ``checkpoint.json`` shows what
is no tensor to people. Both hold plain values and tensors only: no code is ever unpickled.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from msgspec import convert
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nan

from llm.config import ConfigError, ModelConfig, TrainingConfig
from llm.data import CharacterTokenizer
from llm.model import GPTDecoder

State = dict[str, Tensor]
TENSORS = ("model", "optimizer", "best")  # the parts of a checkpoint that are tensors


@dataclass(frozen=True)
class Point:
    """The losses, in nats a token, after ``step`` steps; None where none was measured."""

    step: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float


@dataclass
class Checkpoint:
    """A run as it stands after ``step`` steps, on a corpus of ``tokens`` tokens."""

    model_config: ModelConfig
    training_config: TrainingConfig
    tokenizer: dict[str, Any]  # CharacterTokenizer.to_dict
    tokens: int
    step: int = 0
    curve: list[Point] = field(default_factory=list)
    model: State = field(default_factory=dict)
    optimizer: State = field(default_factory=dict)  # by "parameter's index.name"
    best: State = field(default_factory=dict)  # with patience, the weights of the best validation

    def to_model(self) -> GPTDecoder:
        """Build the model, in evaluation mode, with its tokenizer."""
        model = GPTDecoder(self.model_config)
        model.load_state_dict(self.model)
        model.tokenizer = CharacterTokenizer(**self.tokenizer)
        return model.eval()

    def losses(self) -> list[float]:
        """Return the validation losses in the order in which they were measured."""
        return [p.validation_loss for p in self.curve if p.validation_loss is not None]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file that holds it appears whole or not at all."""
    values = asdict(checkpoint)
    target = path if path.suffix == ".pt" else path / "checkpoint.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    if target == path:
        torch.save(values, new)
    else:
        parts = {kind: values.pop(kind) for kind in TENSORS}
        flat = {f"{kind}.{name}": t for kind, part in parts.items() for name, t in part.items()}
        text = json.dumps(values, indent=1)
        save_file(flat, new, {"checkpoint": text})
        (path / "checkpoint.json").write_text(text, encoding="utf-8")
    new.replace(target)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint of either form; its tensors come to the CPU."""
    if not (path := Path(path)).exists():
        raise ConfigError(f"there is no checkpoint {path}: train one, or correct the path")
    try:
        if path.suffix == ".pt":
            return convert(torch.load(path, "cpu", weights_only=True), Checkpoint)
        with safe_open(path / "checkpoint.safetensors", framework="pt") as file:
            values = json.loads(file.metadata()["checkpoint"]) | {kind: {} for kind in TENSORS}
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                kind, _, name = key.partition(".")
                values[kind][name] = file.get_tensor(key)
        return convert(values, Checkpoint)
    except Exception as error:  # a strange file makes its readers raise whatever they like
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"{path} is no checkpoint that can be read ({reason})") from error


def save_curve(points: Sequence[Point], folder: Path) -> None:
    """Write ``loss.csv`` and ``loss.png`` into a folder; no display is needed."""
    from matplotlib.figure import Figure  # on use: it takes a second

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Point.__annotations__, *(vars(p).values() for p in points)])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats a character)")
    steps = [point.step for point in points]
    axes.plot(steps, [point.train_loss for point in points], label="training")
    axes.plot(steps, [point.validation_loss or nan for point in points], "o", label="validation")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=120)
