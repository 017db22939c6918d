"""What a run leaves behind: all that it needs to go on, and its loss curve.

A path that ends in ``.pt`` is exactly that one file, which ``torch.load(weights_only=True)`` reads.
Any other path is a folder: ``model.safetensors``, ``training.safetensors`` (the optimizer's state
and, with patience, the best weights) and ``checkpoint.json`` with all the rest. Both hold plain
values and tensors only: no code is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llm.config import ConfigError, ModelConfig, TrainingConfig, from_dict
from llm.data import CharacterTokenizer
from llm.model import GPTDecoder
from llm.train import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A run as it stood after ``step`` steps, on a corpus of ``tokens`` tokens."""

    step: int
    model_config: ModelConfig
    training_config: TrainingConfig
    tokenizer: CharacterTokenizer
    tokens: int
    curve: list[Point]
    model: State
    optimizer: State
    best: State

    def to_model(self) -> GPTDecoder:
        """Build the model, in evaluation mode, with its tokenizer."""
        model = GPTDecoder(self.model_config)
        model.load_state_dict(self.model)
        model.tokenizer = self.tokenizer
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; each file appears whole or not at all."""
    values = dict(vars(checkpoint))
    values["model_config"] = asdict(checkpoint.model_config)
    values["training_config"] = asdict(checkpoint.training_config)
    values["tokenizer"] = checkpoint.tokenizer.to_dict()
    values["curve"] = [asdict(point) for point in checkpoint.curve]
    if path.suffix == ".pt":
        torch.save(values, buffer := io.BytesIO())
        files = {path: buffer.getvalue()}
    else:
        from safetensors.torch import save

        mark = {"step": str(checkpoint.step)}  # tells the files of different saves apart
        files = {path / "model.safetensors": save(values.pop("model"), mark)}
        states = {kind: values.pop(kind) for kind in ("optimizer", "best")}
        flat = {f"{kind}.{k}": v for kind, state in states.items() for k, v in state.items()}
        files[path / "training.safetensors"] = save(flat, mark)
        files[path / "checkpoint.json"] = json.dumps(values, indent=1).encode()
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.new")
        new.write_bytes(content)
        new.replace(file)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint of either form; its tensors come to the CPU."""
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"there is no checkpoint {path}: train one, or correct the path")
    try:
        values = _read_folder(path) if path.is_dir() else torch.load(path, "cpu", weights_only=True)
        values["model_config"] = from_dict(ModelConfig, values["model_config"])
        values["training_config"] = from_dict(TrainingConfig, values["training_config"])
        values["tokenizer"] = CharacterTokenizer(**values["tokenizer"])
        values["curve"] = [Point(**point) for point in values["curve"]]
        return Checkpoint(**values)
    except Exception as error:  # a strange file makes its readers raise whatever they like
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"{path} is no checkpoint that can be read ({reason})") from error


def _read_folder(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    values = json.loads((path / "checkpoint.json").read_bytes())
    values |= {"model": {}, "optimizer": {}, "best": {}}
    for name, prefix in {"model": "model.", "training": ""}.items():
        with safe_open(path / f"{name}.safetensors", framework="pt") as file:
            if file.metadata()["step"] != str(values["step"]):
                raise ConfigError(f"{name}.safetensors is of another step: a save was cut off")
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                kind, _, rest = (prefix + key).partition(".")
                values[kind][rest] = file.get_tensor(key)
    return values


def figure(points: Sequence[Point]) -> Figure:
    """Draw both losses over the steps; no display is needed."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 4), layout="constrained")
    axes = drawing.add_subplot(xlabel="step", ylabel="loss (nats a character)")
    axes.plot([p.step for p in points], [p.train_loss for p in points], label="training")
    checked = [(p.step, p.validation_loss) for p in points if p.validation_loss is not None]
    axes.plot([s for s, _ in checked], [v for _, v in checked], "o-", label="validation")
    axes.legend()
    return drawing


def save_curve(points: Sequence[Point], folder: Path) -> None:
    """Write ``loss.csv`` and ``loss.png`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        rows = (vars(point).values() for point in points)
        csv.writer(file, lineterminator="\n").writerows([Point.__annotations__, *rows])
    figure(points).savefig(folder / "loss.png", dpi=120)
