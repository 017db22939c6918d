"""The `llm` package against nanoGPT's CPU recipe, transformers' generate and a bare loop.

    python benchmarks/llm.py [--quick] [--json] [--rounds 3] [--threads 2] [--nanogpt PATH]

Everything is measured interleaved in one process, on two threads (where other work loads the
machine, one thread gives truer ratios: two wait for each other). Without a checkout, the peer is
a reference written here after the recipe that nanoGPT publishes for a CPU: 4 layers, 4 heads, 128
wide, block 64, batch 12, dropout 0, AdamW at 1e-3, 2,000 steps. Tiny Shakespeare, first 90 % train.
A ratio above 1 means that we are better, whatever the unit. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this script's own folder would make `import llm` find this very file

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from llm.config import ModelConfig, TrainingConfig  # noqa: E402
from llm.data import NextTokenDataset, read_corpus, split  # noqa: E402
from llm.loop import Run, evaluate, make_optimizer  # noqa: E402
from llm.model import GPTDecoder  # noqa: E402
from llm.train import train  # noqa: E402

CORPUS = ROOT / "benchmarks/data/tinyshakespeare.txt"
BATCH, BLOCK, STEPS = 12, 64, 2000
SEEDS = (20_101, 20_202, 20_303, 20_404, 20_505)  # fresh: tuning used 0, 1 and 2
Row = dict[str, Any]


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

    def loss(self, validation: NextTokenDataset) -> float:
        starts, total = torch.arange(0, len(validation), BLOCK), 0.0
        with torch.no_grad():
            for part in starts.split(64):
                x, y = validation[part]
                total += float(self.model(x, y.contiguous())[1]) * len(part)
        return total / len(starts)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def interleave(rounds: int, *works: Callable[[], Any], warm_up: int = 2) -> list[float]:
    """Return the median seconds of each work; they take turns, in changing order."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(-warm_up, rounds):
        for i in range(len(works)) if turn % 2 else reversed(range(len(works))):
            spent = seconds(works[i])[0]
            if turn >= 0:
                times[i].append(spent)
    return [statistics.median(spent) for spent in times]


def row(work: str, unit: str, ours: float, peer: str, theirs: float | None, least: float) -> Row:
    """Make a row; of seconds fewer are better, of tokens/s more."""
    ratio = None if theirs is None else (theirs / ours if unit == "s" else ours / theirs)
    numbers = (ours, theirs, ratio)
    rounded = [None if n is None else round(n, 3 if n < 100 else 1) for n in numbers]
    return {"work": work, "unit": unit, "ours": rounded[0], "peer": peer, "theirs": rounded[1],
            "ratio": rounded[2], "at_least": least}  # fmt: skip


def time_to_loss(peer: Peer, rounds: int, share: float, say: Callable[[str], None]) -> Row:
    """Train both with each seed: ours by `train`, and at each of its points the peer goes on too.

    So the two take turns of a fortieth of their way, and the machine's other load meets both.
    """
    tokens, tokenizer = read_corpus(CORPUS, None)
    part, held_out = split(tokens, 0.1, BLOCK)
    assert held_out is not None
    array, validation = part.numpy().astype("uint16"), NextTokenDataset(held_out, BLOCK)
    steps, our_steps, turns = round(STEPS * share), round(TrainingConfig().max_steps * share), 40
    recipe = {"device": "cpu", "max_steps": our_steps, "log_interval": our_steps // turns}
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    loss: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in SEEDS[:rounds]:
        run = PeerRun(peer, array, tokenizer.vocab_size, steps, seed)
        config = TrainingConfig(**recipe, validation_interval=0, seed=seed)
        start = time.perf_counter()
        model = train(
            CORPUS, ModelConfig(), config, progress=False,
            on_point=lambda _, run=run: run.advance(steps // turns),
        )  # fmt: skip
        spent["ours"].append(time.perf_counter() - start - run.seconds)
        spent["theirs"].append(run.seconds)
        assert run.done == steps
        loss["ours"].append(evaluate(model, validation))
        loss["theirs"].append(run.loss(validation))
        for name in spent:
            say(f"seed {seed}, {name}: {spent[name][-1]:.1f} s, loss {loss[name][-1]:.4f}")
    times = {name: statistics.median(values) for name, values in spent.items()}
    ours, theirs = statistics.median(loss["ours"]), statistics.median(loss["theirs"])
    say(f"median validation loss: ours {ours:.4f}, {peer.name} {theirs:.4f}")
    work = f"train to nanoGPT's validation loss ({steps} of its steps, {our_steps} of ours)"
    if share < 1:
        work = (
            f"{steps} of nanoGPT's steps, {our_steps} of ours (losses compare at full length only)"
        )
    made = row(work, "s", times["ours"], peer.name, times["theirs"], 2.0)
    if ours > theirs and share == 1:
        made["ratio"] = 0.0  # the loss was not reached: no time counts
    return made


def training_speed(peer: Peer, rounds: int) -> list[Row]:
    tokens, tokenizer = read_corpus(CORPUS, None)
    array = tokens.numpy().astype("uint16")
    model = peer.build(tokenizer.vocab_size)
    optimizer = peer.optimizer(model)

    def run(precision: Any) -> Run:
        config = TrainingConfig(device="cpu", precision=precision)
        return Run((tokens, tokenizer), ModelConfig(vocab_size=tokenizer.vocab_size), config)

    plain, auto, bare = run("32-true"), run("auto"), run("32-true")
    optimizer_2 = make_optimizer(bare.model, bare.config)

    def bare_step() -> None:
        starts = torch.randint(len(bare.dataset), (BATCH,))
        bare.model(*bare.dataset[starts]).backward()
        torch.nn.utils.clip_grad_norm_(bare.model.parameters(), 1.0)
        optimizer_2.step()
        optimizer_2.zero_grad()

    def theirs() -> None:
        peer.step(model, optimizer, array)

    times = interleave(
        rounds, theirs, lambda: plain.advance(1e-3), lambda: auto.advance(1e-3), bare_step
    )
    speed = [BATCH * BLOCK / spent for spent in times]
    same, mixed = (
        "training, equal sizes, eager, fp32",
        "training, equal sizes, eager, precision auto",
    )
    return [
        row(same, "tokens/s", speed[1], peer.name, speed[0], 0.95),
        row(mixed, "tokens/s", speed[2], peer.name, speed[0], 0.95),
        row("a step under Fabric, fp32", "s", times[1], "a bare loop", times[3], 0.95),
    ]


def generation_speed(peer: Peer, rounds: int, count: int) -> list[Row]:
    torch.manual_seed(0)
    start, vocab_size, block = torch.zeros(1, 1, dtype=torch.long), 65, 1024
    model, theirs = (
        GPTDecoder(ModelConfig(vocab_size=vocab_size, block_size=block)),
        peer.build(65, block),
    )
    works: list[Callable[[], Any]] = [
        lambda: model.generate(start, count),
        lambda: theirs.eval().generate(start, count),
    ]
    other = "transformers (not installed)"
    if importlib.util.find_spec("transformers"):
        import transformers

        other = f"transformers {transformers.__version__}"
        shape = {"vocab_size": vocab_size, "n_positions": block, "n_embd": 128, "n_layer": 4}
        config = transformers.GPT2Config(**shape, n_head=4, bos_token_id=None, eos_token_id=None)
        gpt2 = transformers.GPT2LMHeadModel(config).eval()
        options = {"max_new_tokens": count, "do_sample": True, "pad_token_id": 0, "top_k": 0}
        mask = torch.ones_like(start)
        works.append(lambda: gpt2.generate(start, attention_mask=mask, **options))
    speed = [count / spent for spent in interleave(rounds, *works, warm_up=0)]
    work = f"generate {count} tokens, block {block}"
    return [
        row(work, "tokens/s", speed[0], peer.name, speed[1], 12.0),
        row(work, "tokens/s", speed[0], other, speed[2] if len(speed) > 2 else None, 2.5),
    ]


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    able = torch.cpu.get_capabilities()
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "bf16": bool(able.get("avx512_bf16")),
            "system": platform.system(), "python": platform.python_version(),
            "torch": torch.__version__}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute; smaller works")
    parser.add_argument("--json", action="store_true", help="print the line of JSON only")
    parser.add_argument("--rounds", type=int, help="seeds of the training row; default 3, quick 1")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT; default: a reference")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    quick, peer = arguments.quick, Peer(arguments.nanogpt)

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    rows = training_speed(peer, 15 if quick else 100)
    rows += generation_speed(peer, 1 if quick else 5, 1000)
    rounds = min(arguments.rounds or (1 if quick else 3), len(SEEDS))
    rows.insert(0, time_to_loss(peer, rounds, 0.1 if quick else 1.0, say))
    for found in rows:
        theirs, ratio = found["theirs"] or "-", found["ratio"] or "-"
        say(f"{found['work']}: {found['ours']} {found['unit']}, {found['peer']}: {theirs}, "
            f"ratio {ratio} (at least {found['at_least']})")  # fmt: skip
    print(json.dumps({"benchmark": "llm", "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
