"""The four commands, from a shell's point of view."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

from llm.__main__ import main  # noqa: E402

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
    main(["train", "--config", str(config), "--max-steps", "10"])
    assert name in capsys.readouterr().out
    main(["eval", "--config", str(config)])
    assert "after 10 steps" in capsys.readouterr().out
    main(["generate", "--config", str(config), "--prompt", "to", "--tokens", "30", "--top-k", "2"])
    assert len(capsys.readouterr().out) == len("to") + 30 + 1
    main(["plot", "--config", str(config), "--to", str(tmp_path / "plots")])
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"loss.csv", "loss.png"}


def test_a_folder_repeats_its_run(tmp_path, capsys):
    (tmp_path / "play.txt").write_text("to be or not to be\n" * 40, encoding="utf-8")
    config = tmp_path / "play.toml"
    config.write_text(TOML.format(tmp_path, "run"), encoding="utf-8")
    main(["train", "--config", str(config)])
    first = (tmp_path / "run/loss.csv").read_text()
    again = ["train", "--config", str(tmp_path / "run/run.toml"), "--checkpoint"]
    main([*again, str(tmp_path / "again")])
    assert (tmp_path / "again/loss.csv").read_text() == first
    main([*again, str(tmp_path / "again"), "--resume"])
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
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path):
    (tmp_path / "play.txt").write_text("to be or not to be\n" * 40, encoding="utf-8")
    (tmp_path / "play.toml").write_text(TOML.format(tmp_path, "run"), encoding="utf-8")
    main(["train", "--config", str(tmp_path / "play.toml"), "--max-steps", "1"])
    command = [sys.executable, "-m", "llm", "generate", "--config", str(tmp_path / "play.toml")]
    with subprocess.Popen(
        [*command, "--tokens", "100000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.read(1)
        writer.stdout.close()
        assert writer.stderr.read() == b""
        assert writer.wait() == -signal.SIGPIPE


def test_ctrl_c_says_how_to_go_on(tmp_path):
    (tmp_path / "play.txt").write_text("to be or not to be\n" * 40, encoding="utf-8")
    config = TOML.format(tmp_path, "run").replace("max_steps = 20", "max_steps = 1000000")
    (tmp_path / "play.toml").write_text(config, encoding="utf-8")
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from llm.__main__ import main; main(sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "train", "--config", str(tmp_path / "play.toml")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        while not (tmp_path / "run/checkpoint.json").exists():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, error = run.communicate()
    assert run.returncode == 130
    assert error.endswith("interrupted; train --resume goes on from the last checkpoint\n")


def test_help_names_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "llm", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "{train,generate,eval,plot}" in done.stdout
