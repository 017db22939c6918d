"""nanoGPT's CPU recipe as a peer: a checkout's own model, or a reference written after it.

The recipe, as nanoGPT's README publishes it for a CPU: 4 layers, 4 heads, 128 wide, block 64,
batch 12, dropout 0, AdamW at 1e-3 with betas 0.9 and 0.99, 2,000 steps.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

BATCH, BLOCK, STEPS = 12, 64, 2000


class ReferenceBlock(nn.Module):
    """A GPT-2 block as nanoGPT lays it out: pre-norm, no biases, exact GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.attn_c_proj = nn.Linear(width, width, bias=False)
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.mlp_c_proj = nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q = q.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        k = k.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        v = v.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(batch, length, width)
        x = x + self.drop(self.attn_c_proj(y))
        return x + self.drop(self.mlp_c_proj(F.gelu(self.c_fc(self.ln_2(x)))))


class Reference(nn.Module):
    """The peer's model with the calls that a nanoGPT checkout offers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, layers = config.n_embd, config.n_layer
        self.block_size = config.block_size
        self.wte = nn.Embedding(config.vocab_size, width)
        self.wpe = nn.Embedding(config.block_size, width)
        self.drop = nn.Dropout(0.0)
        self.h = nn.ModuleList(ReferenceBlock(width, config.n_head) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                std = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
                nn.init.normal_(weight, 0, std)

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.drop(self.wte(ids) + self.wpe(torch.arange(ids.size(1))))
        for block in self.h:
            x = block(x)
        x = self.ln_f(x)
        if targets is None:
            return F.linear(x[:, [-1]], self.wte.weight), None
        logits = F.linear(x, self.wte.weight)
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))

    @torch.no_grad()
    def generate(self, ids: Tensor, max_new_tokens: int) -> Tensor:
        for _ in range(max_new_tokens):
            logits = self(ids[:, -self.block_size :])[0][:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
        return ids

    def configure_optimizers(
        self, weight_decay: float, learning_rate: float, betas: tuple[float, float], _device: str
    ) -> torch.optim.Optimizer:
        matrices = [p for p in self.parameters() if p.dim() > 1]
        vectors = [p for p in self.parameters() if p.dim() < 2]
        decayed = {"params": matrices, "weight_decay": weight_decay}
        groups = [decayed, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


class Peer:
    """nanoGPT: a checkout's own model, or the reference above."""

    def __init__(self, checkout: Path | None) -> None:
        self.name, self.model, self.config = "nanoGPT's recipe (reference)", Reference, None
        if checkout:
            spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
            if spec is None or spec.loader is None:
                raise SystemExit(f"{checkout} holds no model.py: give a checkout of nanoGPT")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            self.name, self.model, self.config = "nanoGPT (checkout)", module.GPT, module.GPTConfig

    def build(self, vocab_size: int, block_size: int = BLOCK) -> Any:
        shape = {"n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0, "bias": False}
        shape |= {"vocab_size": vocab_size, "block_size": block_size}
        return self.model((self.config or SimpleNamespace)(**shape))

    @staticmethod
    def optimizer(model: Any) -> torch.optim.Optimizer:
        return model.configure_optimizers(1e-1, 1e-3, (0.9, 0.99), "cpu")

    @staticmethod
    def batch(tokens: Any) -> tuple[Tensor, Tensor]:
        """Draw windows one by one from an array of 16-bit ids, as nanoGPT's get_batch does."""
        starts = torch.randint(len(tokens) - BLOCK, (BATCH,))
        x = torch.stack([torch.from_numpy(tokens[i : i + BLOCK].astype("int64")) for i in starts])
        y = torch.stack(
            [torch.from_numpy(tokens[i + 1 : i + 1 + BLOCK].astype("int64")) for i in starts]
        )
        return x, y

    def step(self, model: Any, optimizer: torch.optim.Optimizer, tokens: Any) -> None:
        loss = model(*self.batch(tokens))[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class PeerRun:
    """The published recipe, a few steps at a time, with random numbers of its own."""

    def __init__(self, peer: Peer, tokens: Any, vocab_size: int, steps: int, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = peer.build(vocab_size)
            self.random = torch.get_rng_state()
        self.peer, self.tokens, self.steps, self.done = peer, tokens, steps, 0
        self.optimizer, self.seconds = peer.optimizer(self.model), 0.0

    def advance(self, count: int) -> None:
        with torch.random.fork_rng():
            torch.set_rng_state(self.random)
            start = time.perf_counter()
            for _ in range(count):
                self._step()
            self.seconds += time.perf_counter() - start
            self.random = torch.get_rng_state()

    def _step(self) -> None:
        warmup = self.steps // 20
        share = (self.done - warmup) / (self.steps - warmup)
        rate = 1e-4 + (1 + math.cos(math.pi * share)) / 2 * 9e-4
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * (self.done + 1) / (warmup + 1) if self.done < warmup else rate
        self.peer.step(self.model, self.optimizer, self.tokens)
        self.done += 1

    @torch.no_grad()
    def loss(self, held_out: Tensor) -> float:
        """Return the mean loss over windows side by side, as ``llm.train.evaluate`` does."""
        count = (len(held_out) - 1) // BLOCK
        x = held_out[: count * BLOCK].long().view(count, BLOCK)
        y = held_out[1 : count * BLOCK + 1].long().view(count, BLOCK)
        parts = zip(x.split(64), y.split(64), strict=True)
        return sum(float(self.model(i, j)[1]) * len(i) for i, j in parts) / count
