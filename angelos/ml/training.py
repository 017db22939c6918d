"""Small training runs without Lightning, which takes seconds to import: a loop over `llm`.

    model = make_model(ModelConfig(d_model=64), [text], seed=1)
    fit(model, model.parameters(), text, StepConfig(steps=200))
    body = model_body(model)               # safetensors: shape, vocabulary, weights

The same input gives the same bytes: nothing but the seed decides which windows are drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from torch import nn

from angelos.core.errors import InvalidInput
from llm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from llm.config import ConfigError, ModelConfig, TrainingConfig
from llm.data import CharacterTokenizer, NextTokenDataset
from llm.model import GPTDecoder
from llm.train import evaluate

PRINTABLE = "\t\n" + "".join(map(chr, range(32, 127)))
"""In every vocabulary, so that a later text has few characters that the model never met."""
_FILE = "checkpoint.safetensors"
_MAX_BLOCK = 4_096
"""Attention takes memory by its square."""


class StepConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how fast a run learns; the rate rises for a tenth and falls to 0."""

    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 5e-3
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 1


def make_model(shape: ModelConfig, texts: Sequence[str], seed: int) -> GPTDecoder:
    """Return a fresh model, whose vocabulary is that of the texts and all of `PRINTABLE`."""
    tokenizer = CharacterTokenizer([*texts, PRINTABLE], "replace")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = GPTDecoder(replace(shape, vocab_size=tokenizer.vocab_size))
    model.tokenizer = tokenizer
    return model


def fit(
    model: GPTDecoder, parameters: Iterable[nn.Parameter], text: str, config: StepConfig
) -> float:
    """Train some parameters of a model on a text, and return the loss of the last step in nats."""
    learning = list(parameters)
    dataset = NextTokenDataset(encoded(model, text), model.config.block_size)
    optimizer = torch.optim.AdamW(learning, config.rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(config.seed)
    warmup = max(1, config.steps // 10)
    loss = torch.zeros(())
    model.train()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.seed)  # dropout
        for step in range(config.steps):
            rise, fall = (step + 1) / warmup, (config.steps - step) / (config.steps - warmup + 1)
            for group in optimizer.param_groups:
                group["lr"] = config.rate * min(rise, fall, 1.0)
            starts = torch.randint(len(dataset), (config.batch,), generator=generator)
            loss = model(*dataset[starts])
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    model.eval()
    return float(loss.detach())


def encoded(model: GPTDecoder, text: str) -> torch.Tensor:
    """Return the tokens of a text, (N,)."""
    if model.tokenizer is None or not text:
        raise InvalidInput("There is no text to learn from, or no vocabulary.")
    return torch.tensor(model.tokenizer.encode(text), dtype=model.tokenizer.dtype)


def loss_of(model: GPTDecoder, text: str, limit: int | None = 256) -> float:
    """Return the mean loss of a text in nats a character, over at most `limit` windows."""
    return evaluate(model, encoded(model, text), limit)


def _fits(shape: ModelConfig, size: int) -> bool:
    """Return whether a file of so many bytes can hold a model: it is not made to find out."""
    numbers = (shape.vocab_size + shape.block_size) * shape.d_model
    numbers += 12 * shape.n_layers * shape.d_model**2
    return numbers <= size and shape.block_size <= _MAX_BLOCK


def model_body(model: GPTDecoder) -> bytes:
    """Return a base as safetensors."""
    if model.tokenizer is None:
        raise InvalidInput("A model without a vocabulary cannot be kept.")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    values = model.tokenizer.to_dict()
    checkpoint = Checkpoint(model.config, TrainingConfig(), values, 0, model=state)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), checkpoint)
        return (Path(folder) / _FILE).read_bytes()


def model_of(body: bytes) -> GPTDecoder:
    """Return the model of bytes that `model_body` made; raise `InvalidInput`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _FILE).write_bytes(body)
        try:
            checkpoint = load_checkpoint(folder)
            if not _fits(checkpoint.model_config, len(body)):
                raise InvalidInput("This model is larger than what holds it, or than is used here.")
            model = checkpoint.to_model()
        except (ConfigError, RuntimeError) as error:
            raise InvalidInput("This is no model that can be read.") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise InvalidInput("The model holds numbers that are not finite.")
    return model
