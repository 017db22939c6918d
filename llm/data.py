"""Text to tokens to windows: a character tokenizer, a train/validation split, next-token windows.

A window is ``block_size + 1`` tokens in a row: the model reads the first ``block_size`` and is
asked for the last ``block_size``. **A text shorter than one window is read as a circle**: its end
joins its beginning, so every rotation of the text is a window and the model learns to repeat it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from llm.config import ConfigError, Unknown

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class CharacterTokenizer:
    """One token a character, numbered in code point order: the same corpus gives the same ids.

    A character that the corpus did not hold follows the rule ``unknown``: ``"error"`` refuses the
    text, ``"skip"`` leaves the character out, ``"replace"`` reads it as U+FFFD, which has an id.
    """

    def __init__(self, corpus: Iterable[str], unknown: Unknown = "error") -> None:
        if isinstance(corpus, str):
            raise ConfigError("the corpus is a list of texts: write [text], not text")
        found = set[str]().union(*corpus)
        if not found:
            raise ConfigError("the corpus is empty: it must hold at least one character")
        self.characters = "".join(sorted(found | {REPLACEMENT} if unknown == "replace" else found))
        self.unknown: Unknown = unknown
        self.vocab_size = len(self.characters)
        self.dtype = torch.uint8 if self.vocab_size < 256 else torch.int32  # noqa: PLR2004
        self._ids = {character: i for i, character in enumerate(self.characters)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which ``CharacterTokenizer(**values)`` makes the same again."""
        return {"corpus": [self.characters], "unknown": self.unknown}

    def encode(self, text: str) -> list[int]:
        """Return one id a character; characters outside the vocabulary follow the rule."""
        ids = [self._ids.get(character) for character in text]
        if self.unknown == "error" and None in ids:
            where = f"{text[ids.index(None)]!r} at {ids.index(None)}"
            advice = "leave it out, or make the tokenizer with unknown='replace'"
            raise ValueError(f"the corpus held no character {where}: {advice}")
        if self.unknown == "replace":
            ids = [self._ids[REPLACEMENT] if i is None else i for i in ids]
        return [i for i in ids if i is not None]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters of ids; an id outside the vocabulary is an error."""
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise ValueError(f"ids go from 0 to {self.vocab_size - 1}, but one is not among them")
        return "".join(self.characters[i] for i in ids)

    def to_tensor(self, text: str) -> Tensor:
        """Return the ids as a tensor (N,), of one byte each or, above 255 characters, of four."""
        return torch.tensor(self.encode(text), dtype=self.dtype)


Corpus = tuple[Tensor, CharacterTokenizer]  # tokens (N,) and what made them


class NextTokenDataset(Dataset[tuple[Tensor, Tensor]]):
    """All windows over tokens (N,): one for every token that a window can start at."""

    def __init__(self, tokens: Tensor, block_size: int) -> None:
        if not tokens.numel():
            raise ConfigError("there are no tokens to make windows of: give a longer text")
        if tokens.numel() <= block_size:  # a circle: every token starts a window
            turns = block_size // tokens.numel() + 2
            tokens = tokens.repeat(turns)[: tokens.numel() + block_size]
        self.block_size = block_size
        self._windows = tokens.unfold(0, block_size + 1, 1)  # (windows, block_size + 1), a view

    def __len__(self) -> int:
        return self._windows.size(0)

    def __getitem__(self, starts: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (T,) for one start and (B, T) for starts (B,)."""
        windows = self._windows[starts].long()
        return windows[..., :-1], windows[..., 1:]


def split(tokens: Tensor, fraction: float, block_size: int) -> tuple[Tensor, Tensor | None]:
    """Cut the last ``fraction`` off for validation; None if a part would not fill one window."""
    cut = int(tokens.numel() * (1 - fraction))
    if min(cut, tokens.numel() - cut) <= block_size:
        return tokens, None
    return tokens[:cut], tokens[cut:]


def read_corpus(
    source: Sequence[str] | Path, tokenizer: CharacterTokenizer | None, unknown: Unknown = "error"
) -> Corpus:
    """Read texts, a text file, or (memory-mapped) a ``*.tokens`` file of ``tokenize_file``.

    Texts are read by ``tokenizer``, or by one made from them with the rule ``unknown``.
    """
    if isinstance(source, Path) and source.suffix == ".tokens":
        own = CharacterTokenizer(**json.loads(source.with_suffix(".json").read_text("utf-8")))
        if tokenizer and tokenizer.characters != own.characters:
            raise ConfigError(f"{source} has another vocabulary: give the text itself")
        size = source.stat().st_size // own.dtype.itemsize
        return torch.from_file(str(source), size=size, dtype=own.dtype), own
    texts = list(_pieces(source)) if isinstance(source, Path) else source
    tokenizer = tokenizer or CharacterTokenizer(texts, unknown)
    return torch.cat([tokenizer.to_tensor(text) for text in texts]), tokenizer


def tokenize_file(text: Path, target: Path, unknown: Unknown = "error") -> None:
    """Write a large text's tokens to ``target`` (``*.tokens``), and its tokenizer beside it.

    The text is read twice, in pieces, and never held whole.
    """
    tokenizer = CharacterTokenizer(_pieces(text), unknown)
    with target.with_suffix(".tokens").open("wb") as file:
        file.writelines(tokenizer.to_tensor(piece).numpy().tobytes() for piece in _pieces(text))
    target.with_suffix(".json").write_text(json.dumps(tokenizer.to_dict()), encoding="utf-8")


def _pieces(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            while piece := file.read(1 << 20):
                yield piece
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: {error}") from error
