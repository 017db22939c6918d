"""The `llm` package against nanoGPT's CPU recipe, transformers' generate and a bare loop.

    python benchmarks/llm.py [--quick] [--json] [--rounds 3] [--threads 2] [--nanogpt PATH]
                             [--muon | --muon-tune STEPS]

Everything is measured interleaved in one process, on two threads (where other work loads the
machine, one thread gives truer ratios: two wait for each other). The peer's recipe stands in
``benchmarks/peers/nanogpt.py``. Tiny Shakespeare, first 90 % train. A ratio above 1 means that we
are better, whatever the unit. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this script's own folder would make `import llm` find this very file

import torch  # noqa: E402

from benchmarks import muon  # noqa: E402
from benchmarks.peers.nanogpt import BATCH, BLOCK, STEPS, Peer, PeerRun  # noqa: E402
from llm.config import ModelConfig, TrainingConfig  # noqa: E402
from llm.data import read_corpus, split  # noqa: E402
from llm.model import GPTDecoder  # noqa: E402
from llm.train import Run, evaluate, make_optimizer, train  # noqa: E402

CORPUS = ROOT / "benchmarks/data/tinyshakespeare.txt"
SEEDS = (20_101, 20_202, 20_303, 20_404, 20_505)  # fresh: tuning used 0, 1 and 2
Row = dict[str, Any]


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
    array = part.numpy().astype("uint16")
    steps, our_steps, turns = round(STEPS * share), round(TrainingConfig().max_steps * share), 40
    recipe = {"device": "cpu", "max_steps": our_steps, "log_interval": our_steps // turns}
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    loss: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in SEEDS[:rounds]:
        run = PeerRun(peer, array, tokenizer.vocab_size, steps, seed)
        config = TrainingConfig(**recipe, validation_interval=0, seed=seed)
        start = time.perf_counter()
        model = train(
            CORPUS, ModelConfig(), config, on_point=lambda _, run=run: run.advance(steps // turns)
        )
        spent["ours"].append(time.perf_counter() - start - run.seconds)
        spent["theirs"].append(run.seconds)
        assert run.done == steps
        loss["ours"].append(evaluate(model, held_out))
        loss["theirs"].append(run.loss(held_out))
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
        return Run(tokens, tokenizer, ModelConfig(vocab_size=tokenizer.vocab_size), config)

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

    times = interleave(rounds, theirs, plain.advance, auto.advance, bare_step)
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
    parser.add_argument("--muon", action="store_true", help="the trial of a Muon recipe alone")
    parser.add_argument("--muon-tune", type=int, metavar="STEPS", help="its rates, on a split")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    quick, peer = arguments.quick, Peer(arguments.nanogpt)

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    if arguments.muon or arguments.muon_tune:
        if steps := arguments.muon_tune:
            rows = muon.tune(CORPUS, steps, say)
        else:
            rounds = min(arguments.rounds or (1 if quick else 3), len(muon.SEEDS))
            rows = muon.trial(CORPUS, peer, rounds, 0.05 if quick else 1.0, say)
        print(json.dumps({"benchmark": "llm muon", "machine": machine(), "rows": rows}))
        return
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
