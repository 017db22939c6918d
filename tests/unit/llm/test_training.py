"""A run can be repeated, broken off, resumed and kept, and comes to the same losses each time."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402

from llm import CharacterTokenizer, GPTDecoder, ModelConfig, TrainingConfig, train  # noqa: E402
from llm.checkpoint import load_checkpoint  # noqa: E402
from llm.config import ConfigError, RunConfig  # noqa: E402
from llm.data import NextTokenDataset, read_corpus, split  # noqa: E402
from llm.train import Run, evaluate, make_fabric  # noqa: E402
from tests.absent import skip_absent  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PLAY = [(ROOT / "benchmarks/data/tinyshakespeare.txt").read_text(encoding="utf-8")[:20_000]]
SHAPE = ModelConfig(block_size=16, n_layers=2, n_heads=2, d_model=16)
SHORT = TrainingConfig(
    max_steps=12,
    batch_size=4,
    device="cpu",
    precision="32-true",
    log_interval=1,
    validation_interval=4,
)


class BrokenOff(Exception):
    """Raised by a test in the middle of a run."""


def curve(config, shape=SHAPE, corpus=PLAY, **options):
    points = []
    train(corpus, shape, config, on_point=points.append, **options)
    return points


@pytest.mark.slow
def test_the_sketch_of_the_task_learns_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = ["angelos is online\n"]
    tokenizer = CharacterTokenizer(corpus)
    model_config = ModelConfig(vocab_size=tokenizer.vocab_size)
    train_config = TrainingConfig(max_steps=500, device="cpu")
    model = train(
        corpus, model_config, train_config, block_size=64, checkpoint_path="artifacts/llm.pt"
    )
    assert isinstance(model, GPTDecoder)
    assert [path.name for path in Path("artifacts").iterdir()] == ["llm.pt"]
    ids = model.generate(torch.tensor([tokenizer.encode("a")]), 89, seed=0)
    assert tokenizer.decode(ids[0].tolist()) == corpus[0] * 5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_seed_gives_the_same_losses_to_the_last_bit(precision):
    config = replace(SHORT, precision=precision)
    first = curve(config)
    torch.rand(7)  # the caller's random numbers play no part
    assert curve(config) == first
    assert curve(replace(config, seed=1)) != first
    assert first[-1].train_loss < first[0].train_loss


def test_the_callers_random_numbers_go_on_undisturbed():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    curve(replace(SHORT, max_steps=1))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["run.pt", "run"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path, name, dropout):
    shape = replace(SHAPE, dropout=dropout)
    config = replace(SHORT, checkpoint_interval=5, accumulation=2, patience=9)
    unbroken = curve(config, shape)

    def break_off(point):
        if point.step == 7:
            raise BrokenOff

    path = tmp_path / name
    with pytest.raises(BrokenOff):
        train(PLAY, shape, config, checkpoint_path=path, on_point=break_off)
    assert load_checkpoint(path).step == 5
    rest = curve(config, shape, checkpoint_path=path, resume=True)
    assert rest == unbroken[5:]
    kept = load_checkpoint(path)
    assert kept.curve == unbroken
    assert curve(config, shape, checkpoint_path=path, resume=True) == []


def test_two_turns_of_accumulation_equal_one_larger_batch_in_gradient(tmp_path):
    """Two turns see twice the windows, so their loss is the mean of the two turns' losses."""
    config = replace(SHORT, max_steps=1)
    two = curve(replace(config, accumulation=2))[0].train_loss
    run_seed = SHORT.seed * 1_000_003
    tokens, tokenizer = read_corpus(PLAY, None)
    dataset = NextTokenDataset(split(tokens, 0.1, 16)[0], 16)
    torch.manual_seed(SHORT.seed)
    model = GPTDecoder(replace(SHAPE, vocab_size=tokenizer.vocab_size))
    losses = []
    for part in (0, 1):
        generator = torch.Generator().manual_seed(run_seed + part)
        losses.append(model(*dataset[torch.randint(len(dataset), (4,), generator=generator)]))
    assert two == pytest.approx(sum(loss.item() for loss in losses) / 2, abs=1e-6)


def test_a_pt_file_is_plain_and_complete(tmp_path):
    model = train(PLAY, SHAPE, SHORT, checkpoint_path=tmp_path / "llm.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["llm.pt"]
    values = torch.load(tmp_path / "llm.pt", weights_only=True)
    assert values["model_config"]["block_size"] == 16
    assert values["training_config"]["max_steps"] == 12
    GPTDecoder(ModelConfig(**values["model_config"])).load_state_dict(values["model"])
    again = load_checkpoint(tmp_path / "llm.pt").to_model()
    ids = torch.zeros(1, 3, dtype=torch.long)
    assert torch.equal(again(ids), model(ids))
    assert again.tokenizer is not None
    assert model.tokenizer is not None
    assert again.tokenizer.characters == model.tokenizer.characters


def test_a_folder_holds_safetensors_json_and_the_curve(tmp_path):
    from safetensors.torch import load_file

    model = train(PLAY, SHAPE, SHORT, checkpoint_path=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "checkpoint.safetensors", "checkpoint.json", "loss.csv", "loss.png",
    }  # fmt: skip
    state = load_file(tmp_path / "run/checkpoint.safetensors")
    assert all(
        torch.equal(state[f"model.{name}"], value) for name, value in model.state_dict().items()
    )
    assert json.loads((tmp_path / "run/checkpoint.json").read_text())["step"] == 12
    with (tmp_path / "run/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if row["validation_loss"]] == ["4", "8", "12"]
    assert (tmp_path / "run/loss.png").read_bytes().startswith(b"\x89PNG")


def test_training_stops_early_and_keeps_the_best_weights(tmp_path):
    config = replace(
        SHORT, max_steps=200, learning_rate=0.3, validation_interval=2, patience=2, log_interval=0
    )
    points = []
    model = train(PLAY, SHAPE, config, on_point=points.append, checkpoint_path=tmp_path / "run.pt")
    losses = [point.validation_loss for point in points]
    assert points[-1].step < 200
    assert min(losses) < min(losses[-2:])
    tokens, _ = read_corpus(PLAY, None)
    held_out = split(tokens, 0.1, 16)[1]
    assert held_out is not None
    assert evaluate(model, held_out, 256) == pytest.approx(min(losses), abs=1e-6)
    assert torch.equal(
        load_checkpoint(tmp_path / "run.pt").to_model().norm.weight, model.norm.weight
    )


def test_evaluation_covers_a_text_once():
    """Windows side by side: their mean is that over all their tokens."""
    torch.manual_seed(0)
    model, tokens = GPTDecoder(replace(SHAPE, vocab_size=9)), torch.arange(100) % 9
    x, y = tokens[:96].view(6, 16), tokens[1:97].view(6, 16)
    assert evaluate(model, tokens) == pytest.approx(model(x, y).item(), abs=1e-6)
    assert model.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 1.0}, "learning_rate = 1.0, but the checkpoint has 0.005"),
        ({"max_steps": 99}, "max_steps = 99"),
    ],
)
def test_a_run_that_would_not_go_on_the_same_is_not_resumed(tmp_path, change, words):
    path = tmp_path / "a.pt"
    train(PLAY, SHAPE, SHORT, checkpoint_path=path)
    with pytest.raises(ConfigError, match=words):
        train(PLAY, SHAPE, replace(SHORT, **change), checkpoint_path=path, resume=True)
    with pytest.raises(ConfigError, match="text = "):
        train([PLAY[0][:-1]], SHAPE, SHORT, checkpoint_path=path, resume=True)


def test_what_is_cut_off_while_it_is_saved_leaves_the_save_before_it(tmp_path, monkeypatch):
    for name in ("run", "run.pt"):
        kept = train(PLAY, SHAPE, replace(SHORT, max_steps=1), checkpoint_path=tmp_path / name)
        with monkeypatch.context() as context:
            context.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(BrokenOff))
            with pytest.raises(BrokenOff):
                train(PLAY, SHAPE, replace(SHORT, max_steps=2), checkpoint_path=tmp_path / name)
        found = load_checkpoint(tmp_path / name)
        assert found.step == 1
        assert torch.equal(found.to_model().norm.weight, kept.norm.weight)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x02K\x01."])
def test_a_file_that_is_no_checkpoint_is_refused_in_words(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(ConfigError, match="no checkpoint that can be read"):
        load_checkpoint(tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "missing")


@pytest.mark.parametrize(
    ("corpus", "shape", "config", "words"),
    [
        ([""], SHAPE, SHORT, "empty"),
        (PLAY, replace(SHAPE, vocab_size=5), SHORT, "vocab_size = 5: the corpus has more"),
        (["short"], SHAPE, replace(SHORT, patience=1), "text to validate on"),
        (PLAY, SHAPE, replace(SHORT, patience=1, validation_interval=0), "validation_interval"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path, corpus, shape, config, words
):
    with pytest.raises(ConfigError, match=words):
        train(corpus, shape, config, checkpoint_path=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_cpu_takes_low_precision_only_where_it_multiplies_it(monkeypatch):
    for able, expected in (({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        fabric = make_fabric(replace(SHORT, precision="auto"))
        with fabric.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "starter", [[], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]]
)
def test_two_processes_train_as_one_with_two_turns(tmp_path, starter):
    """DDP over gloo on loopback: two CPU processes come to the losses of one with accumulation."""
    (tmp_path / "play.txt").write_text(PLAY[0], encoding="utf-8")
    run = RunConfig(
        corpus=str(tmp_path / "play.txt"),
        checkpoint=str(tmp_path / "run.pt"),
        model=SHAPE,
        training=replace(SHORT, max_steps=5, devices=2),
    )
    (tmp_path / "run.toml").write_text(run.to_toml(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *starter, "-m", "llm", "train", "--config", str(tmp_path / "run.toml")],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    alone = curve(replace(SHORT, max_steps=5, accumulation=2))
    together = load_checkpoint(tmp_path / "run.pt").curve
    for one, two in zip(alone, together, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, abs=1e-5)
        assert two.validation_loss == pytest.approx(one.validation_loss, abs=1e-4)


def test_lightning_shards_on_a_gpu_alone():
    """So FSDP is not offered: without a card nothing would show that it works."""
    from lightning.fabric import Fabric

    with pytest.raises(ValueError, match="FSDP is only available on GPU"):
        Fabric(accelerator="cpu", devices=2, strategy="fsdp")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_a_compiled_run_has_the_losses_of_a_plain_one(monkeypatch):
    """By a compiler that only traces: what it makes of the graph is torch's business."""
    asked, compiled = [], torch.compile

    def trace(model, **options):
        asked.append(options)
        return compiled(model, backend="eager")

    monkeypatch.setattr(torch, "compile", trace)
    plain = curve(replace(SHORT, max_steps=3))
    traced = curve(replace(SHORT, max_steps=3, compile=True))

    assert asked[0]["mode"] == "reduce-overhead"
    assert [p.train_loss for p in traced] == pytest.approx([p.train_loss for p in plain], abs=1e-5)


def test_windows_are_gathered_where_the_tokens_are(monkeypatch):
    """Tokens that are kept near give the batches of those that stay on the host."""
    near = Run(*read_corpus(PLAY, None), replace(SHAPE, vocab_size=99), SHORT)
    monkeypatch.setitem(Run.__init__.__globals__, "RESIDENT", 0)
    far = Run(*read_corpus(PLAY, None), replace(SHAPE, vocab_size=99), SHORT)

    assert near.dataset.device == near.fabric.device
    assert far.dataset.device == torch.device("cpu")
    assert [near.advance().item() for _ in range(3)] == [far.advance().item() for _ in range(3)]


def test_a_gpu_trains_by_the_recipe_of_the_docs():
    page = (ROOT / "docs/reference/llm-recipe.md").read_text(encoding="utf-8")
    run = RunConfig.from_dict(tomllib.loads(page.partition("```toml\n")[2].partition("```")[0]))
    assert (run.model.n_layers, run.model.d_model, run.model.block_size) == (6, 384, 256)
    assert run == RunConfig.from_dict(tomllib.loads(run.to_toml()))
    if not torch.cuda.is_available():
        skip_absent("gpu")
    points = []
    train(PLAY, run.model, replace(run.training, max_steps=20), on_point=points.append)
    assert points[-1].train_loss < points[0].train_loss
