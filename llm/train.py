"""The entry to training, and its decisions as pure functions; the loop itself is ``llm.loop``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llm.config import ConfigError, ModelConfig, TrainingConfig, Unknown

if TYPE_CHECKING:
    from llm.model import GPTDecoder


@dataclass(frozen=True, kw_only=True)
class Point:
    """The losses, in nats a token, after ``step`` steps; None where none was measured."""

    step: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float


Watcher = Callable[[Point], None] | None


def train(  # noqa: PLR0913 - each option has a name of its own
    corpus: Sequence[str] | Path,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    *,
    block_size: int | None = None,
    checkpoint_path: Path | str | None = None,
    resume: bool = False,
    unknown: Unknown = "error",
    on_point: Watcher = None,
    progress: bool | None = None,
) -> GPTDecoder:
    """Train a model on texts, or the file of one, and return it with its tokenizer.

    ``block_size`` overrides that of the shape. ``checkpoint_path`` says where the run is kept (see
    ``llm.checkpoint``), and ``resume`` goes on from there with the losses of an unbroken run.
    ``unknown`` is the tokenizer's rule. ``on_point`` gets each point of the loss curve as it is
    measured; ``progress=None`` shows a bar on a terminal. A ``ConfigError`` means that settings,
    texts or checkpoint cannot work, and that nothing was written.
    """
    import torch

    from llm.checkpoint import load_checkpoint
    from llm.data import read_corpus
    from llm.loop import Run

    path = Path(checkpoint_path) if checkpoint_path else None
    tokens = read_corpus(corpus, None, unknown)
    found, asked = tokens[1].vocab_size, model_config.vocab_size
    if 0 < asked < found:
        raise ConfigError(f"vocab_size = {asked}, but the corpus has {found} characters")
    block_size = model_config.block_size if block_size is None else block_size
    model_config = replace(model_config, vocab_size=asked or found, block_size=block_size)
    with torch.random.fork_rng():  # the caller's random numbers go on as if nothing had happened
        run = Run(tokens, model_config, training_config)
        if resume:
            run.restore(load_checkpoint(path or "checkpoint_path=None"))
        run.steps(path, on_point, progress=progress)
    return run.model.eval()


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step (from 0): a linear rise, then a linear or half-cosine fall to 0."""
    warmup = round(config.warmup_fraction * config.max_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, config.max_steps - warmup)  # 0 .. 1
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * left


def batch_seed(config: TrainingConfig, step: int, part: int) -> int:
    """Return the seed of one part of a step's batch, be it a turn of accumulation or a device's.

    Nothing else drives the choice of windows and dropout: a resumed run needs no random state,
    and two devices draw what one device draws in two turns.
    """
    return config.seed * 1_000_003 + step * config.accumulation * config.devices + part


def should_stop(losses: Sequence[float], patience: int) -> bool:
    """Say whether the last ``patience`` validation losses all failed to beat an earlier one."""
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def is_due(step: int, interval: int, config: TrainingConfig) -> bool:
    """Say whether something is due after ``step`` steps: at each interval, and at the end."""
    return step == config.max_steps or (interval > 0 and step % interval == 0)
