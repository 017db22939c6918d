"""All that a run needs to go on, as plain values and tensors: no code is ever unpickled.

A path that ends in ``.pt`` is exactly that one file, which ``torch.load(weights_only=True)`` reads.
Any other path is a folder: ``model.safetensors``, ``training.safetensors`` (the optimizer's state
and, with patience, the best weights) and ``checkpoint.json`` with all the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from llm.config import ConfigError, ModelConfig, TrainingConfig, from_dict
from llm.curve import Point
from llm.data import CharacterTokenizer
from llm.model import GPTDecoder

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
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(values, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        return
    from safetensors.torch import save

    path.mkdir(parents=True, exist_ok=True)
    mark = {"step": str(checkpoint.step)}  # tells the files of different saves apart
    model, optimizer, best = (values.pop(kind) for kind in ("model", "optimizer", "best"))
    training = {f"optimizer.{k}": v for k, v in optimizer.items()}
    training |= {f"best.{k}": v for k, v in best.items()}
    files = {"model.safetensors": save(model, mark), "training.safetensors": save(training, mark)}
    files["checkpoint.json"] = json.dumps(values, indent=1).encode()
    for name, content in files.items():
        (path / f"{name}.new").write_bytes(content)
        (path / f"{name}.new").replace(path / name)


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
    except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, LookupError) as error:
        raise ConfigError(f"{path} is no checkpoint that can be read: {error}") from error


def _read_folder(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    values = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    states: dict[str, State] = {"model": {}, "optimizer": {}, "best": {}}
    for name in ("model", "training"):
        with safe_open(path / f"{name}.safetensors", framework="pt") as file:
            if file.metadata()["step"] != str(values["step"]):
                raise ConfigError(f"{name}.safetensors is of another step: a save was cut off")
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                kind, rest = ("model", key) if name == "model" else key.split(".", 1)
                states[kind][rest] = file.get_tensor(key)
    return values | states
