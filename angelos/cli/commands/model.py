"""`angelos model`: role models, from their data to the champion and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common, quiet
from angelos.cli.output import FAILED, Out, printable, table, when

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from angelos.client import Angelos
    from angelos.core.ids import Revision
    from angelos.core.models import (
        GateVerdict,
        ModelEvaluation,
        ModelView,
        NamedData,
        PromotionView,
        RunView,
        StepSettings,
    )

_WAIT_S = 60.0


@click.group(cls=NounGroup)
def model() -> None:
    """Tiny models, each for one role: train, judge, promote and roll back."""


@model.command("list")
@click.option("--role", default="", metavar="ROLE", help="Only of this role.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@quiet
@common
def list_models(out: Out, *, role: str, limit: int, quiet: bool) -> None:
    """List versions of role models, newest first."""
    models = out.ask(lambda angelos: angelos.models.list(role, limit))
    if quiet:
        out.ids(view.version.name for view in models)
        return
    rows = [
        (
            view.version.name,
            view.version.kind,
            ", ".join(view.aliases) or "-",
            when(view.version.at),
            f"{view.version.size:,}",
            printable(view.version.provenance.data)[:60],
        )
        for view in models
    ]
    head = ("model", "kind", "alias", "time", "bytes", "data")
    out.show({"models": models}, table(head, rows) if rows else "There are none.")


@model.command()
@click.argument("model", metavar="ROLE[:VERSION]")
@common
def show(out: Out, model: str) -> None:
    """Show a version in a few lines; of a role alone, its champion."""
    view = out.ask(lambda angelos: angelos.models.get(model))
    out.show(view, _describe(view))


@model.command()
@click.argument("model", metavar="ROLE[:VERSION]")
@common
def card(out: Out, model: str) -> None:
    """Print the card of a version: data, figures with intervals, gates, limits."""
    view = out.ask(lambda angelos: angelos.models.get(model))
    out.show(view, _card(view))


def _learning(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `train` and `adapt`."""
    options = (
        click.argument("role"),
        click.option("--repo", default="", metavar="NAME", help="Learn from its approved main."),
        click.option("--rev", metavar="REV", help="Of that main's history; by default its head."),
        click.option(
            "--data",
            "folder",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Learn from a file, or from a folder's text files, instead.",
        ),
        click.option("--name", default="", metavar="NAME", help="What that data set is called."),
        click.option("--steps", type=click.IntRange(1, 5_000), default=200, show_default=True),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True),
        click.option("--no-wait", is_flag=True, help="Only start it, and print its run."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@model.command()
@_learning
@click.option("--width", type=click.IntRange(16, 256), default=96, show_default=True)
@click.option("--layers", type=click.IntRange(1, 8), default=3, show_default=True)
@click.option("--block", type=click.IntRange(16, 512), default=128, show_default=True)
@common
def train(
    out: Out, *, role: str, width: int, layers: int, block: int, **options: Unpack[_Options]
) -> None:
    """Train a base for ROLE in a sandbox, and have the gates judge it.

    Exit code 1: a gate has stopped it, and which one is printed.
    """
    _learn(out, role, "base", {"width": width, "layers": layers, "block": block}, options)


@model.command()
@_learning
@click.option("--rank", type=click.IntRange(1, 64), default=8, show_default=True)
@common
def adapt(out: Out, *, role: str, rank: int, **options: Unpack[_Options]) -> None:
    """Adapt the base of ROLE's champion (LoRA) in a sandbox, and have the gates judge it.

    Exit code 1: a gate has stopped it, and which one is printed.
    """
    _learn(out, role, "adapter", {"rank": rank}, options)


@model.command("runs")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@quiet
@common
def list_runs(out: Out, *, limit: int, quiet: bool) -> None:
    """List training runs, newest first, and what stopped them."""
    runs = out.ask(lambda angelos: angelos.models.runs(limit))
    if quiet:
        out.ids(run.id for run in runs)
        return
    rows = [
        (r.id, r.role, r.kind, r.state, printable(r.reason or str(r.version or ""))[:60])
        for r in runs
    ]
    head = ("run", "role", "kind", "state", "result")
    out.show({"runs": runs}, table(head, rows) if rows else "There are none.")


@model.command("eval")
@click.argument("model", metavar="ROLE[:VERSION]")
@click.option("--repo", default="", metavar="NAME", help="On the approved main of this one.")
@click.option("--rev", metavar="REV", help="Of that main's history; by default its head.")
@click.option("--data", "folder", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--name", default="", metavar="NAME", help="What that data set is called.")
@common
def evaluate(
    out: Out, *, model: str, repo: str, rev: str | None, folder: Path | None, name: str
) -> None:
    """Measure a version again, by default on the texts that judged it.

    Exit code 1: on those, a gate would stop it now.
    """
    data = _data(folder, name)

    async def measure(angelos: Angelos) -> ModelEvaluation:
        revision = await _revision(angelos, repo, rev)
        return await angelos.models.evaluate(model, repo=repo, revision=revision, data=data)

    answer = out.ask(measure)
    rows = [
        (
            m.name,
            _figure(m.value),
            f"{_figure(m.low)} to {_figure(m.high)}",
            f"{m.peer} {_figure(m.baseline)}",
        )
        for m in answer.metrics
    ]
    text = f"{answer.role}:{answer.version} on {printable(answer.data)}\n"
    text += table(("metric", "value", "95 % interval", "beside"), rows)
    out.show(answer, text + ("\n" + _gates(answer.gates) if answer.gates else ""))
    if not all(verdict.passed for verdict in answer.gates):
        sys.exit(FAILED)


@model.command()
@click.argument("model", metavar="ROLE:VERSION")
@click.option("--approve", "digest", metavar="DIGEST", help="Approve it, as its card has it.")
@click.option("--reject", "reason", metavar="REASON", help="Reject it instead.")
@common
def promote(out: Out, *, model: str, digest: str | None, reason: str | None) -> None:
    """Propose a version as the champion, and print its whole card; or decide on it.

    Somebody who reviews, and who has not trained or proposed it, approves it with the digest that
    the card ends with. It answers beside the champion on the labs node then, and is the champion if
    it answers well. Exit code 1: it does not.
    """
    from angelos.core.errors import InvalidInput
    from angelos.core.models import parse_model

    role, version = parse_model(model)
    if version is None:
        raise InvalidInput(f"{role} is a role; name a version, as {role}:1.")
    if digest is not None and reason is not None:
        raise InvalidInput("Approve it or reject it: one of them.")

    async def decide(angelos: Angelos) -> tuple[PromotionView, ModelView]:
        if reason is not None:
            promotion = await _open_promotion(angelos, role, version)
            promotion = await angelos.models.reject(promotion.id, reason)
            return promotion, await angelos.models.get(model)
        promotion = await angelos.models.propose(role, version)
        if digest is not None:
            promotion = await angelos.models.approve(promotion.id, digest)
            while promotion.state == "canary":
                promotion = await angelos.models.promotion(promotion.id, wait=_WAIT_S)
        return promotion, await angelos.models.get(model)

    promotion, view = out.ask(decide)
    out.show({"promotion": promotion, "model": view}, _outcome(promotion, view))
    if promotion.state == "failed":
        sys.exit(FAILED)


@model.command()
@click.argument("role")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the log.")
@common
def rollback(out: Out, *, role: str, reason: str) -> None:
    """Move ROLE's champion back to the version before it."""
    view = out.ask(lambda angelos: angelos.models.rollback(role, reason))
    out.show(view, f"{view.version.name} is the champion again.")


class _Options(TypedDict):
    """What `train` and `adapt` both take."""

    repo: str
    rev: str | None
    folder: Path | None
    name: str
    steps: int
    seed: int
    no_wait: bool


def _learn(
    out: Out,
    role: str,
    kind: Literal["base", "adapter"],
    shape: dict[str, int],
    options: _Options,
) -> None:
    steps = {"steps": options["steps"], "seed": options["seed"]}
    settings = _settings(shape | steps)
    repo, data = options["repo"], _data(options["folder"], options["name"])

    async def learn(angelos: Angelos) -> RunView:
        revision = await _revision(angelos, repo, options["rev"])
        run = await angelos.models.start(
            role, kind, repo=repo, revision=revision, data=data, settings=settings
        )
        while not options["no_wait"] and run.state in {"training", "judging"}:
            run = await angelos.models.run(run.id, wait=_WAIT_S)
        return run

    run = out.ask(learn)
    out.show(run, _run(run))
    if run.state in {"refused", "failed"}:
        sys.exit(FAILED)


def _settings(values: dict[str, int]) -> StepSettings:
    import msgspec

    from angelos.core.errors import InvalidInput
    from angelos.core.models import StepSettings

    try:
        return msgspec.convert(values, StepSettings)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"These settings do not work: {error}.") from error


def _data(path: Path | None, name: str) -> NamedData | None:
    """Return the texts of a file or folder as a data set, None where there is no path."""
    import msgspec

    from angelos.core.errors import InvalidInput
    from angelos.core.models import NamedData

    if path is None:
        if name:
            raise InvalidInput("--name is what the data of --data is called.")
        return None
    files = [{"path": label, "text": text} for label, text in _texts(path)]
    called = {"name": name or path.absolute().name, "files": files}
    try:
        return msgspec.convert(called, NamedData)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path} is no data set: {error}.") from error


def _texts(path: Path) -> list[tuple[str, str]]:
    from angelos.core.errors import InvalidInput

    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    texts: list[tuple[str, str]] = []
    for file in files:
        relative = file.relative_to(path) if path.is_dir() else Path(file.name)
        if any(part.startswith(".") for part in relative.parts):
            continue
        try:
            texts.append((relative.as_posix(), file.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{file} is no text in UTF-8.") from error
    if not texts:
        raise InvalidInput(f"{path} holds no text files.")
    return texts


def _card(view: ModelView) -> str:
    from angelos.core.models import card_of

    return "\n".join(printable(line) for line in card_of(view).splitlines())


def _describe(view: ModelView) -> str:
    version = view.version
    lines = [
        f"{version.name}  {version.kind}  {', '.join(view.aliases) or 'no alias'}",
        f"  {version.sha256}  {version.size:,} bytes, {version.parameters:,} parameters",
        f"  {when(version.at)}, asked for by {version.provenance.by}",
        f"  {printable(version.provenance.data)}",
        f"  gates: {', '.join(v.gate for v in version.gates)} passed",
        f"  digest {view.digest}",
    ]
    return "\n".join(lines)


def _run(run: RunView) -> str:
    lines = [f"{run.id}  {run.role}  {run.kind}  {run.state}", f"  {printable(run.data)}"]
    if run.gates:
        lines.append(_gates(run.gates))
    if run.version is not None:
        lines.append(f"It is {run.role}:{run.version}; `angelos model promote` proposes it.")
    elif run.reason:
        lines.append(printable(run.reason))
    return "\n".join(lines)


def _gates(gates: tuple[GateVerdict, ...]) -> str:
    rows = [
        (
            v.gate,
            "passed" if v.passed else "STOPPED",
            _figure(v.measured),
            _figure(v.limit),
            printable(v.detail)[:60],
        )
        for v in gates
    ]
    return table(("gate", "verdict", "measured", "limit", "detail"), rows)


def _outcome(promotion: PromotionView, view: ModelView) -> str:
    name = view.version.name
    if promotion.state == "waiting":
        return (
            f"{_card(view)}\n{promotion.id} waits for somebody who reviews:\n"
            f"angelos model promote {name} --approve {view.digest}"
        )
    lines = [f"{name}  {promotion.state}  {printable(promotion.reason)}".rstrip()]
    if promotion.shadow is not None:
        shadow = promotion.shadow
        beside = "no champion" if shadow.beside is None else f"{view.version.role}:{shadow.beside}"
        lines.append(
            f"  {shadow.answered} of {shadow.inputs} inputs answered beside {beside}, "
            f"{shadow.differing} differing by more than {shadow.tolerance:g}"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


async def _revision(angelos: Angelos, repo: str, rev: str | None) -> Revision | None:
    """Return the whole revision of a repository that a beginning of it names."""
    from angelos.cli.lookup import full_revision
    from angelos.core.errors import InvalidInput
    from angelos.core.ids import Revision

    if rev is None or (repo and rev == "main"):
        return None
    if not repo:
        raise InvalidInput("--rev is a revision of --repo.")
    return Revision(await full_revision(angelos, repo, rev))


async def _open_promotion(angelos: Angelos, role: str, version: int) -> PromotionView:
    from angelos.core.errors import NotFound

    for promotion in await angelos.models.promotions(role):
        if promotion.version == version and promotion.state == "waiting":
            return promotion
    raise NotFound(f"No promotion of {role}:{version} waits.")
