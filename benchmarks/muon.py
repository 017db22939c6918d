"""The trial of a Muon recipe for `llm`: `python benchmarks/llm.py --muon` and `--muon-tune`.

It stays out of the package unless it wins: a quarter of nanoGPT's time to its loss, with seeds that
nothing was tuned on, all of them reaching the loss. Matrices of the layers learn by Muon (Jordan
2024, `torch.optim.Muon`, its rate matched to AdamW's as Liu et al. 2025 do), embeddings and norms
by AdamW. Architecture, data and schedule are those of the recipe.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.nanogpt import STEPS, Peer, PeerRun
from llm.config import ModelConfig, TrainingConfig
from llm.data import read_corpus, split
from llm.model import GPTDecoder
from llm.train import evaluate

SEEDS = (30_101, 30_202, 30_303)
TURNS = 25
_training: Any = import_module("llm.train")  # `llm.train` is its function
_Optimizer: Any = torch.optim.Optimizer  # torch leaves its types out


@dataclass(frozen=True)
class MuonRecipe:
    """What was tuned, on a split of the training part."""

    steps: int = 450
    rate: float = 1e-2
    momentum: float = 0.95
    decay: float = 0.1


class MuonWithAdamW(_Optimizer):
    """Two optimizers that step together, each with the rate that their groups are given."""

    def __init__(self, model: GPTDecoder, config: TrainingConfig, recipe: MuonRecipe) -> None:
        inner = [p for p in model.layers.parameters() if p.dim() == 2]
        own = {id(p) for p in inner}
        outer = [p for p in model.parameters() if id(p) not in own]
        super().__init__([{"params": inner}, {"params": outer}], {"lr": recipe.rate})
        self.muon = torch.optim.Muon(
            inner,
            recipe.rate,
            momentum=recipe.momentum,
            weight_decay=recipe.decay,
            adjust_lr_fn="match_rms_adamw",
        )
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(outer, recipe.rate, betas, weight_decay=0.0, fused=True)
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, closure: Any = None) -> None:
        """Do one step of both."""
        del closure
        self.muon.step()
        self.adamw.step()


@contextmanager
def optimized(recipe: MuonRecipe | None) -> Iterator[None]:
    """Let `llm.train` use Muon meanwhile, or its own optimizer."""
    own = _training.make_optimizer
    if recipe is not None:
        _training.make_optimizer = lambda model, config: MuonWithAdamW(model, config, recipe)
    try:
        yield
    finally:
        _training.make_optimizer = own


def tune(corpus: Path, steps: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return losses on the last tenth of the training part, of models of its first nine."""
    tokens, tokenizer = read_corpus(corpus, None)
    part, _ = split(tokens, 0.1, ModelConfig().block_size)
    text, rows = tokenizer.decode(part.tolist()), []
    for rate, decay, seed in product((5e-3, 1e-2, 2e-2), (0.1,), (0,)):
        recipe = MuonRecipe(steps=steps, rate=rate, decay=decay)
        spent, loss = _train(text, recipe, seed)
        rows.append({"steps": steps, "rate": rate, "decay": decay, "seed": seed, "loss": loss})
        say(f"{recipe}, seed {seed}: loss {loss:.4f} in {spent:.1f} s")
    return rows


def _train(text: str, recipe: MuonRecipe, seed: int) -> tuple[float, float]:
    config = TrainingConfig(
        device="cpu",
        max_steps=recipe.steps,
        learning_rate=recipe.rate,
        validation_interval=0,
        log_interval=0,
        seed=seed,
    )
    points: list[Any] = []
    start = time.perf_counter()
    with optimized(recipe):
        _training.train([text], ModelConfig(), config, on_point=points.append)
    return time.perf_counter() - start, points[-1].validation_loss


def trial(
    corpus: Path, peer: Peer, rounds: int, share: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train nanoGPT's recipe, ours and ours with Muon in turns, with each fresh seed.

    Args:
        corpus: The text; its last tenth judges.
        peer: nanoGPT.
        rounds: How many seeds.
        share: Of the steps of each; below 1 nothing is proved.
        say: Takes a line for people.
    """
    tokens, tokenizer = read_corpus(corpus, None)
    part, held_out = split(tokens, 0.1, ModelConfig().block_size)
    assert held_out is not None
    recipes = {"adamw": None, "muon": MuonRecipe()}
    spent: dict[str, list[float]] = {name: [] for name in ("peer", *recipes)}
    loss: dict[str, list[float]] = {name: [] for name in spent}
    steps = {"peer": round(STEPS * share)}
    for seed in SEEDS[:rounds]:
        array = part.numpy().astype("uint16")
        run = PeerRun(peer, array, tokenizer.vocab_size, steps["peer"], seed)
        for name, recipe in recipes.items():
            count = recipe.steps if recipe else TrainingConfig().max_steps
            steps[name] = max(TURNS, round(count * share))
            rate = recipe.rate if recipe else TrainingConfig().learning_rate
            half = steps["peer"] // (2 * TURNS)
            config = TrainingConfig(
                device="cpu",
                max_steps=steps[name],
                learning_rate=rate,
                validation_interval=0,
                log_interval=steps[name] // TURNS,
                seed=seed,
            )
            before, start = run.seconds, time.perf_counter()
            with optimized(recipe):
                model = _training.train(
                    corpus,
                    ModelConfig(),
                    config,
                    on_point=lambda _, run=run, n=half: run.advance(n),
                )
            spent[name].append(time.perf_counter() - start - (run.seconds - before))
            loss[name].append(evaluate(model, held_out))
        run.advance(steps["peer"] - run.done)
        spent["peer"].append(run.seconds)
        loss["peer"].append(run.loss(held_out))
        for name in spent:
            say(f"seed {seed}, {name}: {spent[name][-1]:.1f} s, loss {loss[name][-1]:.4f}")
    goal = statistics.median(loss["peer"])
    return [_row(name, spent, loss, goal, whole=share == 1) for name in recipes]


def _advance(run: PeerRun, total: int, steps: int, _: object) -> None:
    """Let the peer take its turn."""
    run.advance(max(0, min(steps, total - run.done)))


def _row(
    name: str,
    spent: dict[str, list[float]],
    loss: dict[str, list[float]],
    goal: float,
    *,
    whole: bool,
) -> dict[str, Any]:
    ours, theirs = statistics.median(spent[name]), statistics.median(spent["peer"])
    reached = sum(value <= goal for value in loss[name])
    return {
        "work": f"train to nanoGPT's median loss {goal:.4f}, {name}",
        "unit": "s",
        "ours": round(ours, 1),
        "peer": "nanoGPT's recipe",
        "theirs": round(theirs, 1),
        "ratio": round(theirs / ours, 2) if reached == len(loss[name]) and whole else 0.0,
        "at_least": 4.0 if name == "muon" else 2.0,
        "part": round(ours / theirs, 3),
        "losses": [round(value, 4) for value in loss[name]],
        "reached": f"{reached} of {len(loss[name])}",
    }
