"""What a run is made of, as frozen and validated values that go to TOML and back."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Unknown = Literal["error", "skip", "replace"]
_Config = TypeVar("_Config")

# A number's type with the least and the greatest value that it may have.
Count = Annotated[int, 1, 10**12]
Whole = Annotated[int, 0, 10**12]
Share = Annotated[float, 0.0, 0.9999]
Size = Annotated[float, 0.0, 1e12]
Rate = Annotated[float, 1e-12, 1e12]  # above 0


class ConfigError(ValueError):
    """A setting, a corpus or a checkpoint cannot work."""


class _Checked:
    def __post_init__(self) -> None:
        """Check every field's type and range; a whole number will do for a float."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value, allowed = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal:
                fits, wish = value in allowed, f"one of {allowed}"
            else:
                kind, *limits = allowed or (hint,)
                if kind is float and type(value) is int:
                    object.__setattr__(self, name, value := float(value))
                wish = f"a value of type {kind.__name__}"
                fits = type(value) is kind
                if limits:
                    wish += f", at least {limits[0]} and at most {limits[1]}"
                    fits = fits and limits[0] <= value <= limits[1]
            if not fits:
                raise ConfigError(f"{name} = {value!r}: make it {wish}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
    """The shape of the decoder; nanoGPT's CPU model unless told otherwise.

    ``vocab_size=0`` means: as many as the corpus has characters. ``init_std`` is the spread of
    the first weights, times ``residual_scale`` for those that write to the residual stream.
    """

    vocab_size: Whole = 0
    block_size: Count = 64
    n_layers: Count = 4
    n_heads: Count = 4
    d_model: Count = 128
    dropout: Share = 0.0
    bias: bool = False
    init_std: Rate = 0.06
    residual_scale: Size = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.n_heads:
            raise ConfigError(f"d_model = {self.d_model}: make it a multiple of n_heads")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Checked):
    """How the decoder is trained; the defaults are the recipe of docs/reference/llm-recipe.md.

    One step sees ``batch_size * accumulation * devices`` windows. ``precision="auto"`` takes bf16
    where the machine multiplies it faster. Intervals are in steps; 0 means only at the end.
    After ``patience`` evaluations without a better validation loss (0: never), training stops;
    with patience, the best weights are the ones that stay.
    """

    max_steps: Count = 800
    batch_size: Count = 12
    accumulation: Count = 1
    learning_rate: Rate = 5e-3
    warmup_fraction: Share = 0.06
    schedule: Literal["linear", "cosine"] = "linear"
    beta1: Share = 0.9
    beta2: Share = 0.98
    weight_decay: Size = 0.1
    clip_norm: Rate = 1.0
    validation_fraction: Share = 0.1
    validation_interval: Whole = 250
    patience: Whole = 0
    checkpoint_interval: Whole = 100
    log_interval: Whole = 10
    seed: Whole = 1337
    device: str = "auto"
    devices: Count = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience and not self.validation_interval:
            raise ConfigError("patience needs a validation_interval above 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig(_Checked):
    """A whole run, as it stands in a TOML file: what to read, where to write, how to train."""

    corpus: str
    checkpoint: str = "artifacts/llm"
    unknown: Unknown = "error"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_toml(cls, text: str) -> RunConfig:
        """Read a run from TOML text; a bad key or value raises ``ConfigError``."""
        return from_dict(cls, tomllib.loads(text))

    def to_toml(self) -> str:
        """Write every setting, defaults included, so that the file alone repeats the run."""
        values = asdict(self)
        tables = {name: values.pop(name) for name in ("model", "training")}
        return _toml(values) + "".join(f"\n[{name}]\n{_toml(t)}" for name, t in tables.items())


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


def _toml(values: dict[str, Any]) -> str:
    # JSON's strings, numbers and booleans are TOML's too, but for an unescaped DEL.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")
