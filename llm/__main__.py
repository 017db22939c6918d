"""``python -m llm train|generate|eval|plot``: the package from a shell.

Settings come from a TOML file (``--config``, see ``llm.config.RunConfig``); options override it.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from llm.config import ConfigError, RunConfig


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 2, or 130 after Ctrl-C, and say why if it cannot work."""
    parser = argparse.ArgumentParser(prog="python -m llm", description="A small GPT.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {_train: "train a model and keep it", _generate: "continue a prompt"}
    helps |= {_eval: "measure the loss", _plot: "write loss.csv and loss.png"}
    options = {}
    for run, text in helps.items():
        command = commands.add_parser(run.__name__[1:], help=text)
        command.set_defaults(run=run)
        options[run] = command.add_argument
        options[run]("--config", type=Path, help="a TOML file; options override it")
        options[run]("--checkpoint", help="a file *.pt, or a folder")
    options[_train]("--corpus", help="a text, or a *.tokens file")
    options[_train]("--max-steps", type=int)
    options[_train]("--resume", action="store_true", help="go on from the checkpoint")
    options[_eval]("--corpus", help="a text; default: what the run did not train on")
    options[_generate]("--prompt", default="\n")
    options[_generate]("--tokens", type=int, default=500, help="how many, at most")
    options[_generate]("--temperature", type=float, default=0.8)
    for name, kind in {"top-k": int, "top-p": float, "stop": str, "seed": int}.items():
        options[_generate](f"--{name}", type=kind)
    options[_plot]("--to", type=Path, help="a folder; default: by the checkpoint")
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments, _run_config(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        reason, code = "interrupted; train --resume goes on from the last checkpoint", 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        advice = ": pip install 'angelos[ml]'" if isinstance(error, ModuleNotFoundError) else ""
        reason, code = f"{error}{advice}", 2
    else:
        return 0
    try:
        sys.stdout.flush()
    except OSError:  # what cannot be written must not fail once more at the interpreter's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stderr.write(f"llm {arguments.command}: {reason}\n")
    return code


def _run_config(arguments: argparse.Namespace) -> RunConfig:
    """Return the config file's run, or a default one, with what the options override."""
    run = RunConfig(corpus="")
    if arguments.config:
        run = RunConfig.from_toml(arguments.config.read_text(encoding="utf-8"))
    options = {name: getattr(arguments, name, None) for name in ("corpus", "checkpoint")}
    run = replace(run, **{name: value for name, value in options.items() if value})
    if not run.corpus and "corpus" in arguments:
        raise ConfigError("give --corpus, or a --config that names one")
    if (steps := getattr(arguments, "max_steps", None)) is not None:
        return replace(run, training=replace(run.training, max_steps=steps))
    return run


def _train(arguments: argparse.Namespace, run: RunConfig) -> None:
    from llm.train import train

    path, options = Path(run.checkpoint), {"resume": arguments.resume, "unknown": run.unknown}
    train(Path(run.corpus), run.model, run.training, checkpoint_path=path, **options)
    if path.suffix != ".pt":
        (path / "run.toml").write_text(run.to_toml(), encoding="utf-8")
    sys.stdout.write(f"trained; the checkpoint is {path}\n")


def _generate(arguments: argparse.Namespace, run: RunConfig) -> None:
    import torch

    from llm.checkpoint import load_checkpoint

    checkpoint, names = load_checkpoint(run.checkpoint), ("top_k", "top_p", "stop", "seed")
    options = {name: getattr(arguments, name) for name in ("temperature", *names)}
    ids = torch.tensor([checkpoint.tokenizer.encode(arguments.prompt)], dtype=torch.long)
    new = checkpoint.to_model().stream(ids, arguments.tokens, **options)
    sys.stdout.write(arguments.prompt)
    for token in new:
        sys.stdout.write(checkpoint.tokenizer.decode(token.tolist()))
        sys.stdout.flush()
    sys.stdout.write("\n")


def _eval(arguments: argparse.Namespace, run: RunConfig) -> None:
    from llm.checkpoint import load_checkpoint
    from llm.data import NextTokenDataset, read_corpus, split
    from llm.loop import evaluate

    checkpoint = load_checkpoint(run.checkpoint)
    tokens, _ = read_corpus(Path(run.corpus), checkpoint.tokenizer)
    block_size = checkpoint.model_config.block_size
    if not arguments.corpus:  # the run's own text: only the part that it did not train on
        tokens = split(tokens, checkpoint.training_config.validation_fraction, block_size)[1]
    if tokens is None:
        raise ConfigError("the run held nothing out for validation: give --corpus")
    loss = evaluate(checkpoint.to_model(), NextTokenDataset(tokens, block_size))
    sys.stdout.write(f"loss {loss:.4f} nats a character, after {checkpoint.step} steps\n")


def _plot(arguments: argparse.Namespace, run: RunConfig) -> None:
    from llm.checkpoint import load_checkpoint, save_curve

    path = Path(run.checkpoint)
    folder = arguments.to or (path.parent if path.suffix == ".pt" else path)
    save_curve(load_checkpoint(path).curve, folder)
    sys.stdout.write(f"{folder / 'loss.csv'} {folder / 'loss.png'}\n")


if __name__ == "__main__":
    sys.exit(main())
