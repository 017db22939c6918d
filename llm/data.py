"""Text to tokens to windows: a character tokenizer, a train/validation split, next-token windows.

A window is ``block_size + 1`` tokens in a row: the model reads all but the last, and is asked for
all but the first. **A text shorter than that is read as a circle**: its end joins its beginning,
so every rotation of the text is a window and the model learns to repeat it.
"""

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
        characters = set[str]().union(*corpus)
        if not characters:
            raise ConfigError("the corpus is empty: it must hold at least one character")
        extra = {REPLACEMENT} if unknown == "replace" else set[str]()
        self.characters = "".join(sorted(characters | extra))
        self.unknown: Unknown = unknown
        self.vocab_size = len(self.characters)
        self.dtype = torch.uint8 if self.vocab_size < 256 else torch.int32  # noqa: PLR2004
        self._ids = {character: i for i, character in enumerate(self.characters)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which ``CharacterTokenizer(**values)`` makes the same again."""
        return {"corpus": [self.characters], "unknown": self.unknown}

    def encode(self, text: str) -> list[int]:
        """Return one id a character; characters outside the vocabulary follow the rule."""
        unknown = self._ids[REPLACEMENT] if self.unknown == "replace" else None
        ids = [self._ids.get(character, unknown) for character in text]
        if self.unknown == "error" and None in ids:
            where = f"the corpus held no character {text[ids.index(None)]!r} at {ids.index(None)}"
            raise ValueError(f"{where}: leave it out, or make the tokenizer with unknown='replace'")
        return [i for i in ids if i is not None]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters of ids; an id outside the vocabulary is an error."""
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise ValueError(f"ids go from 0 to {self.vocab_size - 1}, but one is not among them")
        return "".join(self.characters[i] for i in ids)


class NextTokenDataset(Dataset[tuple[Tensor, Tensor]]):
    """All windows over tokens (N,): one for every token that a window can start at."""

    def __init__(self, tokens: Tensor, block_size: int) -> None:
        if not tokens.numel():
            raise ConfigError("there are no tokens to make windows of: give a longer text")
        if tokens.numel() <= block_size:  # a circle: every token starts a window
            turns = block_size // tokens.numel() + 2
            tokens = tokens.repeat(turns)[: tokens.numel() + block_size]
        self.block_size, self.device = block_size, tokens.device
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
) -> tuple[Tensor, CharacterTokenizer]:
    """Read texts, a text file, or (memory-mapped) a ``*.tokens`` file of ``tokenize_file``.

    Tokens (N,) are made by ``tokenizer``, or by one of these very texts with the rule ``unknown``.
    """
    if isinstance(source, Path) and source.suffix == ".tokens":
        own = CharacterTokenizer(**json.loads(source.with_suffix(".json").read_text("utf-8")))
        if tokenizer and tokenizer.characters != own.characters:
            raise ConfigError(f"{source} has another vocabulary: give the text itself")
        size = source.stat().st_size // own.dtype.itemsize
        return torch.from_file(str(source), size=size, dtype=own.dtype), own
    texts = list(_pieces(source)) if isinstance(source, Path) else source
    tokenizer = tokenizer or CharacterTokenizer(texts, unknown)
    ids = [i for text in texts for i in tokenizer.encode(text)]
    return torch.tensor(ids, dtype=tokenizer.dtype), tokenizer


def tokenize_file(text: Path, target: Path, unknown: Unknown = "error") -> None:
    """Write a large text's tokens to ``target`` (``*.tokens``), and its tokenizer beside it.

    The text is read twice, in pieces, and never held whole.
    """
    tokenizer = CharacterTokenizer(_pieces(text), unknown)
    with target.with_suffix(".tokens").open("wb") as file:
        parts = (read_corpus([piece], tokenizer)[0] for piece in _pieces(text))
        file.writelines(part.numpy().tobytes() for part in parts)
    target.with_suffix(".json").write_text(json.dumps(tokenizer.to_dict()), encoding="utf-8")


def _pieces(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from iter(lambda: file.read(1 << 20), "")
