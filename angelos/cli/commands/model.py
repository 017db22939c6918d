"""`angelos model`: role models, from their data to the champion and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common, quiet
from angelos.cli.output import Out, printable, table, when

if TYPE_CHECKING:
    from angelos.core.models import ModelView


@click.group(cls=NounGroup)
def model() -> None:
    """Tiny models, each for one role."""


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
    from angelos.core.models import card_of

    view = out.ask(lambda angelos: angelos.models.get(model))
    out.show(view, "\n".join(printable(line) for line in card_of(view).splitlines()))


@model.command()
@click.argument("role")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the log.")
@common
def rollback(out: Out, *, role: str, reason: str) -> None:
    """Move ROLE's champion back to the version before it."""
    view = out.ask(lambda angelos: angelos.models.rollback(role, reason))
    out.show(view, f"{view.version.name} is the champion again.")


def _describe(view: ModelView) -> str:
    version = view.version
    lines = [
        f"{version.name}  {version.kind}  {', '.join(view.aliases) or 'no alias'}",
        f"  {version.sha256}  {version.size:,} bytes, {version.parameters:,} parameters",
        f"  {when(version.at)}, asked for by {version.provenance.by}",
        f"  {printable(version.provenance.data)}",
        "  gates: "
        + ", ".join(f"{v.gate} {'passed' if v.passed else 'STOPPED'}" for v in version.gates),
        f"  digest {view.digest}",
    ]
    return "\n".join(lines)
