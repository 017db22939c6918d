"""What a run is made of, as frozen and validated values that go to TOML and back."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

Unknown = Literal["error", "skip", "replace"]


class ConfigError(ValueError):
    """A setting, a corpus or a checkpoint cannot work; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the decoder; nanoGPT's CPU model unless told otherwise.

    ``vocab_size=0`` means: as many as the corpus has characters. ``init_std`` is the spread of
    the first weights, times ``residual_scale`` for those that write to the residual stream.
    """

    vocab_size: int = 0
    block_size: int = 64
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0
    bias: bool = False
    init_std: float = 0.06
    residual_scale: float = 0.2

    def __post_init__(self) -> None:
        _check(self, at_least_1="block_size n_layers n_heads d_model", positive="init_std")
        if self.d_model % self.n_heads:
            raise ConfigError(f"d_model = {self.d_model}: make it a multiple of n_heads")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the decoder is trained; the defaults are the recipe of docs/reference/llm-recipe.md.

    One step sees ``batch_size * accumulation * devices`` windows. ``precision="auto"`` takes bf16
    where the machine multiplies it faster. Intervals are in steps; 0 means only at the end.
    After ``patience`` evaluations without a better validation loss (0: never), training stops;
    with patience, the best weights are the ones that stay.
    """

    max_steps: int = 800
    batch_size: int = 12
    accumulation: int = 1
    learning_rate: float = 5e-3
    warmup_fraction: float = 0.06
    schedule: Literal["linear", "cosine"] = "linear"
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    validation_fraction: float = 0.1
    validation_interval: int = 250
    patience: int = 0
    checkpoint_interval: int = 0
    log_interval: int = 10
    seed: int = 1337
    device: str = "auto"
    devices: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"

    def __post_init__(self) -> None:
        counts = "max_steps batch_size accumulation devices"
        _check(self, at_least_1=counts, positive="learning_rate clip_norm")
        if self.patience and not self.validation_interval:
            raise ConfigError("patience needs a validation_interval above 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run, as it stands in a TOML file: what to read, where to write, how to train."""

    corpus: str
    checkpoint: str = "artifacts/llm"
    unknown: Unknown = "error"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_toml(cls, text: str) -> RunConfig:
        """Read a run from TOML text; a bad key or value raises ``ConfigError``."""
        return from_dict(cls, tomllib.loads(text))

    def to_toml(self) -> str:
        """Write every setting, defaults included, so that the file alone repeats the run."""
        values = asdict(self)
        tables = {name: values.pop(name) for name in ("model", "training")}
        return _toml(values) + "".join(f"\n[{name}]\n{_toml(t)}" for name, t in tables.items())


_Config = TypeVar("_Config")


def from_dict(kind: type[_Config], values: dict[str, Any]) -> _Config:
    """Build a config from plain values; an unknown key is an error that lists the known ones."""
    hints = get_type_hints(kind)
    if unknown := [key for key in values if key not in hints]:
        raise ConfigError(f"unknown {kind.__name__} key {unknown[0]!r}; known: {', '.join(hints)}")
    tables = {k: v for k, v in values.items() if is_dataclass(hints[k]) and isinstance(v, dict)}
    try:
        return kind(**values | {k: from_dict(hints[k], v) for k, v in tables.items()})
    except TypeError as error:  # the constructor names the missing key
        raise ConfigError(str(error).replace("__init__() ", "")) from error


def _check(config: object, at_least_1: str = "", positive: str = "") -> None:
    """Check every field's type and range; a whole number will do for a float."""
    for name, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), get_args(hint)
        if hint is float and type(value) is int:
            object.__setattr__(config, name, value := float(value))
        if choices and value not in choices:
            raise ConfigError(f"{name} = {value!r}: make it one of {choices}")
        if not choices and type(value) is not hint:
            raise ConfigError(f"{name} = {value!r}: make it a value of type {hint.__name__}")
        low = 1 if name in at_least_1.split() else 1e-12 if name in positive.split() else 0
        high = 0.9999 if name.endswith(("dropout", "beta1", "beta2", "fraction")) else 1e12
        if hint in {int, float} and not low <= value <= high:
            raise ConfigError(f"{name} = {value!r}: make it at least {low} and at most {high}")


def _toml(values: dict[str, Any]) -> str:
    # JSON's strings, numbers and booleans are TOML's too, but for an unescaped DEL.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")
