"""Training: its decisions as pure functions, and the loop, which runs on Lightning Fabric."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from llm.checkpoint import Checkpoint, Point, State, load_checkpoint, save_checkpoint, save_curve
from llm.config import ConfigError, ModelConfig, TrainingConfig, Unknown
from llm.data import CharacterTokenizer, NextTokenDataset, read_corpus, split
from llm.model import GPTDecoder

FREE = {"device", "checkpoint_interval", "log_interval"}  # what a resumed run may change
RESIDENT = 4 << 30  # bytes of tokens that are kept on the device, which gathers its own windows


def train(  # noqa: PLR0913 - each option has a name of its own
    corpus: Sequence[str] | Path,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    *,
    block_size: int | None = None,
    checkpoint_path: Path | str | None = None,
    resume: bool = False,
    unknown: Unknown = "error",
    on_point: Callable[[Point], object] | None = None,
) -> GPTDecoder:
    """Train a model on texts, or the file of one, and return it with its tokenizer.

    ``block_size`` overrides that of the shape. ``checkpoint_path`` says where the run is saved (see
    ``llm.checkpoint``), and ``resume`` goes on from there with the losses of an unbroken run.
    ``unknown`` is the tokenizer's rule, ``on_point`` gets each point of the loss curve. After a
    ``ConfigError`` (settings, texts or checkpoint cannot work) nothing was written.
    """
    path, config = Path(checkpoint_path) if checkpoint_path else None, training_config
    tokens, tokenizer = read_corpus(corpus, None, unknown)
    shape = replace(model_config, vocab_size=model_config.vocab_size or tokenizer.vocab_size)
    shape = shape if block_size is None else replace(shape, block_size=block_size)
    if shape.vocab_size < tokenizer.vocab_size:
        raise ConfigError(f"vocab_size = {shape.vocab_size}: the corpus has more characters")
    with torch.random.fork_rng():  # the caller's random numbers go on as if nothing had happened
        run = Run(tokens, tokenizer, shape, config)
        if resume:
            run.restore(load_checkpoint(path or "checkpoint_path=None"))
        checkpoint, main = run.checkpoint, run.fabric.is_global_zero
        with tqdm(total=config.max_steps, initial=checkpoint.step, disable=not main or None) as bar:
            while not run.is_over():
                loss = run.advance()
                bar.update()
                validates = is_due(checkpoint.step, config.validation_interval, config)
                if validates or is_due(checkpoint.step, config.log_interval, config):
                    point = run.measure(loss, validates=validates)
                    bar.set_postfix(loss=f"{point.train_loss:.3f}", refresh=False)
                    if on_point and main:
                        on_point(point)
                if run.is_over() and checkpoint.best:
                    run.model.load_state_dict(checkpoint.best)
                due = run.is_over() or is_due(checkpoint.step, config.checkpoint_interval, config)
                if due and main and path:
                    run.save(path)
    if main and path and path.suffix != ".pt":
        save_curve(checkpoint.curve, path)
    return run.model.eval()


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step (from 0): a linear rise, then a linear or half-cosine fall to 0."""
    warmup = round(config.warmup_fraction * config.max_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, config.max_steps - warmup)  # 0 .. 1
    remaining = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * remaining


def batch_seed(config: TrainingConfig, step: int, part: int) -> int:
    """Return the seed of one part of a step: nothing else may influence which windows it draws."""
    return (
        config.seed * 1_000_003 + step * config.accumulation * config.devices * config.nodes + part
    )


def should_stop(losses: Sequence[float], patience: int) -> bool:
    """Return whether the last ``patience`` validation losses all failed to beat an earlier one."""
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def is_due(step: int, interval: int, config: TrainingConfig) -> bool:
    """Return whether something is due after ``step`` steps: at each interval, and at the end."""
    return step == config.max_steps or (interval > 0 and step % interval == 0)


class Run:
    """A run: the model and its optimizer, as Fabric wraps them, and what is saved of them."""

    def __init__(
        self, tokens: Tensor, tokenizer: CharacterTokenizer, shape: ModelConfig, c: TrainingConfig
    ) -> None:
        part, self.held_out = split(tokens, c.validation_fraction, shape.block_size)
        if c.patience and (self.held_out is None or not c.validation_interval):
            raise ConfigError("patience needs text to validate on, and a validation_interval")
        self.fabric = make_fabric(c)
        near = self.fabric.device if part.nbytes < RESIDENT else "cpu"
        self.dataset = NextTokenDataset(part.to(near), shape.block_size)
        torch.manual_seed(c.seed)
        self.model = GPTDecoder(shape)
        self.model.tokenizer = tokenizer
        optimizer = make_optimizer(self.model, c)
        module = torch.compile(self.model, mode="reduce-overhead") if c.compile else self.model
        self.wrapped, self.optimizer = self.fabric.setup(module, optimizer)
        self.config, self.checkpoint = c, Checkpoint(shape, c, tokenizer.to_dict(), len(tokens))

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; refuse one that would not go on with the same losses."""
        present, saved_values = (
            {"text": (c.tokenizer, c.tokens)} | vars(c.model_config) | vars(c.training_config)
            for c in (self.checkpoint, saved)
        )
        for name in sorted(present.keys() - FREE):
            if (new := present[name]) != (old := saved_values[name]):
                raise ConfigError(f"{name} = {new!r}, but the checkpoint has {old!r}")
        self.checkpoint = replace(saved, training_config=self.config)
        self.model.load_state_dict(saved.model)
        state: dict[int, State] = {}
        for key, value in saved.optimizer.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    def save(self, path: Path) -> None:
        """Write all that the run needs to go on."""
        states = self.optimizer.state_dict()["state"].items()
        flat = {f"{i}.{name}": value for i, state in states for name, value in state.items()}
        save_checkpoint(
            path, replace(self.checkpoint, model=self.model.state_dict(), optimizer=flat)
        )

    def is_over(self) -> bool:
        """Return whether all steps are done or validation has stopped improving."""
        stops = should_stop(self.checkpoint.losses(), self.config.patience)
        return stops or self.checkpoint.step >= self.config.max_steps

    def advance(self) -> Tensor:
        """Do one optimizer step and return the loss of its windows, as it was before."""
        config, fabric, step = self.config, self.fabric, self.checkpoint.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        total = torch.zeros((), device=fabric.device)
        for turn in range(config.accumulation):
            seed = batch_seed(config, step, turn * fabric.world_size + fabric.global_rank)
            generator = torch.Generator().manual_seed(seed)
            starts = torch.randint(len(self.dataset), (config.batch_size,), generator=generator)
            x, y = fabric.to_device(self.dataset[starts.to(self.dataset.device)])  # 2 x (B, T)
            if config.compile:
                torch.compiler.cudagraph_mark_step_begin()
            if self.model.config.dropout:
                torch.manual_seed(seed)
            last = turn == config.accumulation - 1  # processes exchange gradients only then
            with nullcontext() if last else fabric.no_backward_sync(self.wrapped):
                loss = self.wrapped(x, y) / config.accumulation
                fabric.backward(loss)
            total += loss.detach()
        fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.checkpoint.step += 1
        return total

    def measure(self, loss: Tensor, *, validates: bool) -> Point:
        """Add a point to the curve; with patience, keep the weights of the best validation."""
        checkpoint, mean, validation_loss = (
            self.checkpoint,
            self.fabric.all_reduce(loss, reduce_op="mean"),
            None,
        )
        if validates and self.held_out is not None:
            validation_loss = evaluate(self.model, self.held_out, limit=256)
            best = min(checkpoint.losses(), default=math.inf)
            if self.config.patience and validation_loss <= best:
                checkpoint.best = deepcopy(self.model.state_dict())
        rate = learning_rate(checkpoint.step - 1, self.config)
        checkpoint.curve.append(Point(checkpoint.step, float(mean), validation_loss, rate))
        return checkpoint.curve[-1]


@torch.no_grad()
def evaluate(model: GPTDecoder, tokens: Tensor, limit: int | None = None) -> float:
    """Return the mean loss, in nats a token, over windows side by side, or ``limit`` of them."""
    dataset = NextTokenDataset(tokens, model.config.block_size)
    device, was_training = model.norm.weight.device, model.training
    model.eval()
    starts = torch.arange(0, len(dataset), dataset.block_size)
    if limit and limit < len(starts):  # spread over the whole text
        starts = starts[torch.linspace(0, len(starts) - 1, limit).long()]
    parts = ((part, dataset[part]) for part in starts.split(64))
    total = sum(float(model(x.to(device), y.to(device))) * len(part) for part, (x, y) in parts)
    model.train(was_training)
    return total / len(starts)


def make_fabric(config: TrainingConfig) -> Any:
    """Start Fabric; precision "auto" is bf16 where the hardware multiplies it faster, else fp32."""
    from lightning.fabric import Fabric  # on use: it takes seconds

    where: dict[str, Any] = {"accelerator": config.device, "devices": config.devices}
    where, precision = where | {"num_nodes": config.nodes}, config.precision
    if precision == "auto":
        kind, able = Fabric(**where).device.type, torch.cpu.get_capabilities()
        fast = able.get("avx512_bf16") or able.get("amx_bf16")
        fast = torch.cuda.is_bf16_supported() if kind == "cuda" else fast and kind == "cpu"
        precision = "bf16-mixed" if fast else "32-true"
    fabric = Fabric(**where, precision=precision)
    fabric.launch()
    return fabric


def make_optimizer(model: GPTDecoder, config: TrainingConfig) -> torch.optim.AdamW:
    """Make AdamW (Loshchilov and Hutter 2017); only matrices and embeddings decay."""
    matrices: dict[str, Any] = {"params": [p for p in model.parameters() if p.dim() > 1]}
    vectors = {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}
    options = {"betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
    return torch.optim.AdamW([matrices, vectors], config.learning_rate, fused=True, **options)
