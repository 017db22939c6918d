"""The four commands, from a shell's point of view."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm.__main__ import main
from tests.unit.llm.needs import need

need("torch", "lightning", "safetensors", "matplotlib", "tqdm")

ROOT = Path(__file__).resolve().parents[3]
TOML = """
corpus = "{0}/play.txt"
checkpoint = "{0}/{1}"
[model]
block_size = 16
n_layers = 1
n_heads = 2
d_model = 16
[training]
max_steps = 20
device = "cpu"
log_interval = 5
"""


@pytest.mark.parametrize("name", ["run", "run.pt"])
def test_train_eval_generate_plot(tmp_path, capsys, name):
    (tmp_path / "play.txt").write_text("to be or not to be\n" * 40, encoding="utf-8")
    config = tmp_path / "play.toml"
    config.write_text(TOML.format(tmp_path, name), encoding="utf-8")
    assert main(["train", "--config", str(config), "--max-steps", "10"]) == 0
    assert name in capsys.readouterr().out
    assert main(["eval", "--config", str(config)]) == 0
    assert "after 10 steps" in capsys.readouterr().out
    assert main(["generate", "--config", str(config), "--prompt", "to", "--tokens", "30"]) == 0
    assert len(capsys.readouterr().out) == len("to") + 30 + 1
    assert main(["plot", "--config", str(config), "--to", str(tmp_path / "plots")]) == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"loss.csv", "loss.png"}


def test_a_folder_repeats_its_run(tmp_path, capsys):
    (tmp_path / "play.txt").write_text("to be or not to be\n" * 40, encoding="utf-8")
    config = tmp_path / "play.toml"
    config.write_text(TOML.format(tmp_path, "run"), encoding="utf-8")
    assert main(["train", "--config", str(config)]) == 0
    first = (tmp_path / "run/loss.csv").read_text()
    again = ["train", "--config", str(tmp_path / "run/run.toml"), "--checkpoint"]
    assert main([*again, str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/loss.csv").read_text() == first
    assert main([*again, str(tmp_path / "again"), "--resume"]) == 0
    assert "trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "give --corpus"),
        (["train", "--corpus", "nowhere.txt"], "nowhere.txt"),
        (["eval", "--config", "nowhere.toml"], "nowhere.toml"),
        (["generate", "--checkpoint", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["plot", "--checkpoint", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
    ],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_and_the_public_names_need_no_torch():
    code = (
        "import sys, llm, llm.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "import llm.train\n"
        "from llm import train\n"
        "assert callable(train)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "{train,generate,eval,plot}" in done.stdout
