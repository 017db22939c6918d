"""A small GPT that can be read in an evening: ``llm.model``, ``data``, ``train``, ``generate``."""

from llm.checkpoint import load_checkpoint
from llm.config import ConfigError, ModelConfig, RunConfig, TrainingConfig
from llm.data import CharacterTokenizer
from llm.model import GPTDecoder
from llm.train import train

__all__ = ["CharacterTokenizer", "ConfigError", "GPTDecoder", "ModelConfig", "RunConfig"]
__all__ += ["TrainingConfig", "load_checkpoint", "train"]
