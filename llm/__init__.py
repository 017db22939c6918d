"""A small GPT that can be read in an evening: ``llm.model``, ``data``, ``train``, ``generate``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llm.config import ConfigError, ModelConfig, RunConfig, TrainingConfig
from llm.train import train

if TYPE_CHECKING:
    from llm.checkpoint import load_checkpoint
    from llm.data import CharacterTokenizer
    from llm.model import GPTDecoder

__all__ = ["CharacterTokenizer", "ConfigError", "GPTDecoder", "ModelConfig", "RunConfig"]
__all__ += ["TrainingConfig", "load_checkpoint", "train"]

# What needs torch is loaded on first use (PEP 562), so that `python -m llm --help` is quick.
_LAZY = {"CharacterTokenizer": "data", "GPTDecoder": "model", "load_checkpoint": "checkpoint"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'llm' has no attribute {name!r}")
    return getattr(import_module(f"llm.{_LAZY[name]}"), name)
