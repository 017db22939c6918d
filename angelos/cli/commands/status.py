"""`angelos status`: the system at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.commands.node import nodes_table
from angelos.cli.options import common
from angelos.cli.output import Out, table, when

if TYPE_CHECKING:
    from angelos.core.api import StatusView


@click.command()
@common
def status(out: Out) -> None:
    """Show the system at a glance."""
    view = out.ask(lambda angelos: angelos.status())
    out.show(view, _text(view))


def _text(view: StatusView) -> str:
    lines = [
        f"AngelOS {view.version}, running since {when(view.started_at)}",
        (
            f"isolation {view.tier}, tasks running {view.tasks_running}, "
            f"waiting for a person {view.waiting}, policy {view.policy[:12]}"
        ),
        "",
        nodes_table(view.nodes),
    ]
    if view.repos:
        rows = [(r.name, r.main[:12], r.dev[:12]) for r in view.repos]
        lines += ["", table(("repository", "main", "dev"), rows)]
    if view.banner:
        lines.insert(0, f"! {view.banner}")
    return "\n".join(lines)
