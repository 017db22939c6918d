"""A character model of texts: what sentinel and completer share, on the `llm` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from angelos.core.errors import InvalidInput
from angelos.ml.roles.base import Example, TrainedModel, hash_examples

if TYPE_CHECKING:
    from llm.model import GPTDecoder

_BATCH = 64
SHAPE = {"block_size": 128, "n_layers": 3, "n_heads": 4, "d_model": 96}
TRAINING = {"max_steps": 600, "batch_size": 16, "learning_rate": 5e-3}
FIXED = {"device": "cpu", "validation_fraction": 0.0, "validation_interval": 0, "log_interval": 0}
"""The held-out part is the caller's; nothing of the training part is validated on."""


def train_language(
    role: str, data: Sequence[Example], config: Mapping[str, Any], seed: int
) -> TrainedModel:
    """Train a character model of examples' texts.

    Args:
        role: Whose it is.
        data: Texts; each begins after a line end of its own.
        config: Fields of `llm.config.ModelConfig` and `TrainingConfig`.
        seed: Of the first weights and the windows.

    Raises:
        InvalidInput: There is no text, or a setting is unknown or cannot work.
    """
    from llm.config import ConfigError, ModelConfig, TrainingConfig
    from llm.train import train

    shape = SHAPE | {k: v for k, v in config.items() if k in ModelConfig.__annotations__}
    training = TRAINING | {k: v for k, v in config.items() if k not in ModelConfig.__annotations__}
    texts = [example.text + "\n" for example in data if example.text]
    try:
        model = train(
            texts,
            ModelConfig.from_dict(shape),
            TrainingConfig.from_dict(training | FIXED | {"seed": seed}),
            unknown="replace",
        )
    except ConfigError as error:
        raise InvalidInput(f"The model of {role} cannot be trained: {error}.") from error
    tokenizer = model.tokenizer
    plain = {"model": asdict(model.config), "tokenizer": tokenizer.to_dict() if tokenizer else {}}
    return TrainedModel(
        role=role,
        state={name: tensor.detach() for name, tensor in model.state_dict().items()},
        config=plain | {"training": training},
        seed=seed,
        data_hash=hash_examples(data),
    )


def to_decoder(model: TrainedModel) -> GPTDecoder:
    """Return the model as a module, in evaluation mode, with its tokenizer."""
    from llm.config import ModelConfig
    from llm.data import CharacterTokenizer
    from llm.model import GPTDecoder

    decoder = GPTDecoder(ModelConfig(**model.config["model"]))
    decoder.load_state_dict(model.state)
    decoder.tokenizer = CharacterTokenizer(**model.config["tokenizer"])
    return decoder.eval()


def character_losses(decoder: GPTDecoder, texts: Sequence[str]) -> list[list[float]]:
    """Return the loss of each character of each text, in nats.

    Each text is read from a line end, in windows that overlap by half a block, so every character
    past the first block is predicted from at least half a block.
    """
    import torch
    from torch.nn import functional

    tokenizer, block = decoder.tokenizer, decoder.config.block_size
    if tokenizer is None:
        raise InvalidInput("The model has no tokenizer.")
    rows: list[tuple[int, list[int], int]] = []  # (text, ids, how many of them were counted before)
    for number, text in enumerate(texts):
        ids = tokenizer.encode("\n" + text)
        for start in range(0, max(1, len(ids) - 1), max(1, block // 2)):
            old = block - block // 2 if start else 0
            if len(ids) - 1 - start > old:
                rows.append((number, ids[start : start + block + 1], old))
    losses: list[list[float]] = [[] for _ in texts]
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            width = max(len(ids) for _, ids, _ in batch)
            padded = torch.tensor([ids + [0] * (width - len(ids)) for _, ids, _ in batch])
            logits = decoder(padded[:, :-1])
            values = functional.cross_entropy(
                logits.flatten(0, 1), padded[:, 1:].flatten(), reduction="none"
            ).view(len(batch), -1)
            for (number, ids, old), row in zip(batch, values.tolist(), strict=True):
                losses[number] += row[old : len(ids) - 1]
    return losses


def mean_losses(decoder: GPTDecoder, texts: Sequence[str]) -> list[float]:
    """Return the mean loss of each text, in nats a character; an empty text has 0."""
    return [sum(row) / len(row) if row else 0.0 for row in character_losses(decoder, texts)]
