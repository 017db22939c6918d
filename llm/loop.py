"""The training loop: Lightning Fabric moves tensors and processes, the rest stands here."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from llm.checkpoint import Checkpoint, State, save_checkpoint, save_curve
from llm.config import ConfigError, ModelConfig, TrainingConfig
from llm.data import Corpus, NextTokenDataset, split
from llm.model import GPTDecoder
from llm.train import Point, Watcher, batch_seed, is_due, learning_rate, should_stop

FREE = {"device", "checkpoint_interval", "log_interval"}  # what a resumed run may change


class Run:
    """A run: what changes from step to step, and how it is measured and kept."""

    def __init__(self, corpus: Corpus, shape: ModelConfig, config: TrainingConfig) -> None:
        (tokens, tokenizer), block_size = corpus, shape.block_size
        part, held_out = split(tokens, config.validation_fraction, block_size)
        if config.patience and held_out is None:
            raise ConfigError("patience needs a validation part longer than a block: add text")
        self.dataset = NextTokenDataset(part, block_size)
        self.validation = None if held_out is None else NextTokenDataset(held_out, block_size)
        self.config, self.tokenizer, self.tokens = config, tokenizer, len(tokens)
        self.fabric = make_fabric(config)
        torch.manual_seed(config.seed)
        self.model = GPTDecoder(shape)
        self.model.tokenizer = tokenizer
        optimizer = make_optimizer(self.model, config)
        self.wrapped, self.optimizer = self.fabric.setup(self.model, optimizer)
        self.step, self.curve = 0, list[Point]()
        self.best: State = {}  # with patience, the weights of the best validation

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; refuse one that would not go on with the same losses."""
        asked = vars(self.model.config) | vars(self.config)
        for name, old in (vars(saved.model_config) | vars(saved.training_config)).items():
            if name not in FREE and asked[name] != old:
                raise ConfigError(f"{name} = {asked[name]!r}, but the checkpoint has {old!r}")
        if (saved.tokenizer.characters, saved.tokens) != (self.tokenizer.characters, self.tokens):
            raise ConfigError("the checkpoint was trained on another corpus: resume with the same")
        self.step, self.curve, self.best = saved.step, saved.curve, saved.best
        self.model.load_state_dict(saved.model)
        state = defaultdict[int, State](dict)
        for key, value in saved.optimizer.items():
            index, name = key.split(".")
            state[int(index)][name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def steps(self, path: Path | None, on_point: Watcher, *, progress: bool | None) -> None:
        """Take the steps that are left, or fewer if validation stops improving; keep them."""
        from tqdm.auto import tqdm

        config, main = self.config, self.fabric.is_global_zero
        hidden = (None if progress is None else not progress) if main else True
        with tqdm(total=config.max_steps, initial=self.step, disable=hidden, unit="step") as bar:
            while not self.is_over():
                rate = learning_rate(self.step, config)
                loss = self.advance(rate)
                self.step += 1
                bar.update()
                validates = is_due(self.step, config.validation_interval, config)
                if validates or is_due(self.step, config.log_interval, config):
                    self.curve.append(self._measure(loss, rate, validates=validates))
                    bar.set_postfix(loss=f"{self.curve[-1].train_loss:.3f}", refresh=False)
                    if on_point and main:
                        on_point(self.curve[-1])
                if self.is_over() and self.best:
                    self.model.load_state_dict(self.best)
                saves = self.is_over() or is_due(self.step, config.checkpoint_interval, config)
                if saves and main and path:
                    self._save(path)

    def advance(self, rate: float) -> Tensor:
        """Do one optimizer step and return the loss of its windows, as it was before."""
        config, fabric = self.config, self.fabric
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=fabric.device)
        for turn in range(config.accumulation):
            seed = batch_seed(config, self.step, turn * fabric.world_size + fabric.global_rank)
            generator = torch.Generator().manual_seed(seed)
            starts = torch.randint(len(self.dataset), (config.batch_size,), generator=generator)
            x, y = fabric.to_device(self.dataset[starts])  # 2 x (B, T)
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
        return total

    def validation_losses(self) -> list[float]:
        """Return the validation losses in the order in which they were measured."""
        return [p.validation_loss for p in self.curve if p.validation_loss is not None]

    def is_over(self) -> bool:
        """Say whether all steps are done or validation has stopped improving."""
        stops = should_stop(self.validation_losses(), self.config.patience)
        return stops or self.step >= self.config.max_steps

    def _measure(self, loss: Tensor, rate: float, *, validates: bool) -> Point:
        mean, found = float(self.fabric.all_reduce(loss, reduce_op="mean")), None
        if validates and self.validation:
            found = evaluate(self.model, self.validation, limit=256)
            if self.config.patience and found <= min(self.validation_losses(), default=found):
                self.best = _copy(self.model.state_dict())
        return Point(step=self.step, train_loss=mean, validation_loss=found, learning_rate=rate)

    def _save(self, path: Path) -> None:
        states = self.optimizer.state_dict()["state"].items()
        optimizer = _copy({f"{i}.{k}": v for i, state in states for k, v in state.items()})
        about = (self.step, self.model.config, self.config, self.tokenizer, self.tokens, self.curve)
        checkpoint = Checkpoint(*about, _copy(self.model.state_dict()), optimizer, self.best)
        save_checkpoint(path, checkpoint)
        if self.is_over() and path.suffix != ".pt":
            save_curve(self.curve, path)


def _copy(state: State) -> State:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


@torch.no_grad()
def evaluate(model: GPTDecoder, dataset: NextTokenDataset, limit: int | None = None) -> float:
    """Return the mean loss, in nats a token, over windows side by side, or ``limit`` of them."""
    device, was_training = model.norm.weight.device, model.training
    model.eval()
    starts = torch.arange(0, len(dataset), dataset.block_size)
    if limit and limit < len(starts):  # spread over the whole text
        starts = starts[torch.linspace(0, len(starts) - 1, limit).long()]
    parts = ((part, dataset[part]) for part in starts.split(64))
    total = sum(float(model(x.to(device), y.to(device))) * len(part) for part, (x, y) in parts)
    model.train(was_training)
    return total / len(starts)


def best_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16 where the hardware multiplies it faster (twice, on AVX-512 BF16), else fp32."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def make_fabric(config: TrainingConfig) -> Any:
    """Start Fabric: devices, processes and precision as the config says."""
    from lightning.fabric import Fabric

    where, precision = {"accelerator": config.device, "devices": config.devices}, config.precision
    try:
        if precision == "auto":
            precision = best_precision(Fabric(**where).device)
        fabric = Fabric(**where, precision=precision)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"Fabric cannot start {where}: {error}") from error
    fabric.launch()
    return fabric


def make_optimizer(model: GPTDecoder, config: TrainingConfig) -> torch.optim.AdamW:
    """Make AdamW (Loshchilov and Hutter 2017); only matrices and embeddings decay."""
    matrices: dict[str, Any] = {"params": [p for p in model.parameters() if p.dim() > 1]}
    vectors = {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}
    betas, decay, rate = (config.beta1, config.beta2), config.weight_decay, config.learning_rate
    return torch.optim.AdamW([matrices, vectors], rate, betas, weight_decay=decay, fused=True)
