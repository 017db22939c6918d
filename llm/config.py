"""What a run is made of, as frozen and validated values that go to TOML and back."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, Self, get_type_hints

import tomli_w
from msgspec import Meta, ValidationError, convert

Count = Annotated[int, Meta(ge=1, le=10**12)]
Whole = Annotated[int, Meta(ge=0, le=10**12)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Size = Annotated[float, Meta(ge=0, le=1e12)]
Rate = Annotated[float, Meta(gt=0, le=1e12)]
Unknown = Literal["error", "skip", "replace"]


class ConfigError(ValueError):
    """A setting, a corpus or a checkpoint cannot work."""


class _Config:
    def __post_init__(self) -> None:
        """Check every field's type and range; a whole number will do for a float."""
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            try:
                value = kind.from_dict(value) if isinstance(value, dict) else value
                value = convert(value, kind, strict=not isinstance(value, str))  # "4" means 4
            except ValidationError as error:
                choice = str(kind).removeprefix("typing.") if "Literal" in str(kind) else ""
                raise ConfigError(f"{name} = {value!r}: {error} {choice}") from error
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build it from plain values; an unknown key is an error that lists the known ones."""
        try:
            return cls(**values)
        except TypeError as error:  # the constructor names the key
            reason, known = str(error).replace(".__init__()", ""), ", ".join(get_type_hints(cls))
            raise ConfigError(f"{reason}; known: {known}") from error


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
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


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Config):
    """How the decoder is trained; the defaults are the recipe of docs/reference/llm-recipe.md.

    One step sees ``batch_size * accumulation * devices * nodes`` windows. ``precision="auto"``
    takes bf16 where the machine multiplies it faster. Intervals are in steps; 0 means only at the
    end. After ``patience`` evaluations that bring no better loss (0: never) it stops; the best
    weights stay.
    ``compile`` compiles the step's forward and backward, on a GPU into CUDA graphs. ``devices``
    are those of each of ``nodes`` machines.
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
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    nodes: Count = 1
    compile: bool = False
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Sampling(_Config):
    """How a token is drawn (at temperature 0 it is the likeliest), and what completes a text."""

    temperature: Size = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    stop: str | None = None
    seed: Whole | None = None


@dataclass(frozen=True, kw_only=True)
class RunConfig(_Config):
    """A run: what to read, where to write, how to train; ``from_dict(tomllib.loads(text))``."""

    corpus: str
    checkpoint: str = "artifacts/llm"
    unknown: Unknown = "error"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_toml(self) -> str:
        """Write every setting, defaults included, so that the file alone repeats the run."""
        return tomli_w.dumps(asdict(self))
