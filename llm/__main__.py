"""``python -m llm train|generate|eval|plot``: the package from a shell.

Settings come from a TOML file (``--config``, see ``llm.config.RunConfig``); options override it.
"""

import argparse
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from signal import SIG_DFL, SIGPIPE, signal

import torch

from llm.checkpoint import load_checkpoint, save_curve
from llm.config import ConfigError, RunConfig, Sampling
from llm.data import CharacterTokenizer, read_corpus, split
from llm.train import evaluate, train


def _train(args: argparse.Namespace, run: RunConfig) -> str:
    path, options = Path(run.checkpoint), {"resume": args.resume, "unknown": run.unknown}
    if args.max_steps is not None:
        run = replace(run, training=replace(run.training, max_steps=args.max_steps))
    train(Path(run.corpus), run.model, run.training, checkpoint_path=path, **options)
    if path.suffix != ".pt":
        (path / "run.toml").write_text(run.to_toml(), encoding="utf-8")
    return f"trained; the checkpoint is {path}"


def _generate(args: argparse.Namespace, run: RunConfig) -> str:
    checkpoint = load_checkpoint(run.checkpoint)
    tokenizer = CharacterTokenizer(**checkpoint.tokenizer)
    ids = torch.tensor([tokenizer.encode(args.prompt)], dtype=torch.long)
    options = {f.name: getattr(args, f.name) for f in fields(Sampling) if f.name in args}
    sampling = Sampling(**options)  # a bad setting is refused before anything is written
    new = checkpoint.to_model().stream(ids, args.tokens, **vars(sampling))
    sys.stdout.write(args.prompt)
    for token in new:
        sys.stdout.write(tokenizer.decode(token.tolist()))
        sys.stdout.flush()
    return ""


def _eval(args: argparse.Namespace, run: RunConfig) -> str:
    checkpoint = load_checkpoint(run.checkpoint)
    model, part = checkpoint.to_model(), checkpoint.training_config.validation_fraction
    tokens, _ = read_corpus(Path(run.corpus), model.tokenizer)
    if not args.corpus:  # the run's own text: only the part that it did not train on
        tokens = split(tokens, part, checkpoint.model_config.block_size)[1]
    if tokens is None:
        raise ConfigError("the run held nothing out for validation: give --corpus")
    loss = evaluate(model, tokens)
    return f"loss {loss:.4f} nats a character, after {checkpoint.step} steps"


def _plot(args: argparse.Namespace, run: RunConfig) -> str:
    path = Path(run.checkpoint)
    folder = args.to or (path.parent if path.suffix == ".pt" else path)
    save_curve(load_checkpoint(path).curve, folder)
    return f"{folder / 'loss.csv'} {folder / 'loss.png'}"


def main(argv: list[str] | None = None) -> None:
    """Run one command; end with code 2, and say why, if it cannot work."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, help="a TOML file; options override it")
    shared.add_argument("--checkpoint", help="a file *.pt, or a folder")
    parser = argparse.ArgumentParser(prog="python -m llm", description="A small GPT.")
    parsers, option = parser.add_subparsers(dest="command", required=True), {}
    helps = {_train: "train a model and save it", _generate: "continue a prompt"}
    helps |= {_eval: "measure the loss", _plot: "write loss.csv and loss.png"}
    for run, text in helps.items():
        command = parsers.add_parser(run.__name__[1:], help=text, parents=[shared])
        command.set_defaults(run=run)
        option[run] = command.add_argument
    option[_train]("--corpus", help="a text, or a *.tokens file")
    option[_train]("--max-steps", type=int)
    option[_train]("--resume", action="store_true", help="go on from the checkpoint")
    option[_eval]("--corpus", help="a text; default: what the run did not train on")
    option[_generate]("--prompt", default="\n")
    option[_generate]("--tokens", type=int, default=500, help="how many, at most")
    for field in fields(Sampling):
        option[_generate](f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS)
    option[_plot]("--to", type=Path, help="a folder; default: by the checkpoint")
    args = parser.parse_args(argv)
    try:
        values = tomllib.loads(args.config.read_text("utf-8")) if args.config else {"corpus": ""}
        values |= {k: v for k, v in vars(args).items() if v and k in {"corpus", "checkpoint"}}
        run = RunConfig.from_dict(values)
        if "corpus" in args and not run.corpus:
            raise ConfigError("give --corpus, or a --config that names one")
        sys.stdout.write(args.run(args, run) + "\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; train --resume goes on from the last checkpoint\n")
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(2, f"llm {args.command}: {error}\n")


if __name__ == "__main__":
    signal(SIGPIPE, SIG_DFL)  # a reader that goes away ends the writer, without a word
    main()
