"""`angelos status` and `angelos nodes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.common import Out, common, table, when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.core.api import NodeView, StatusView


@click.command()
@common
def status(out: Out) -> None:
    """Show the system at a glance."""
    view = out.ask(lambda angelos: angelos.status())
    out.show(view, _text(view))


@click.command()
@common
def nodes(out: Out) -> None:
    """List the nodes."""
    views = out.ask(lambda angelos: angelos.nodes())
    out.show({"nodes": views}, _nodes(views))


def _text(view: StatusView) -> str:
    lines = [
        f"AngelOS {view.version}, running since {when(view.started_at)}",
        (
            f"isolation {view.tier}, tasks running {view.tasks_running}, "
            f"waiting for a person {view.waiting}, policy {view.policy[:12]}"
        ),
        "",
        _nodes(view.nodes),
    ]
    if view.repos:
        rows = [(r.name, r.main[:12], r.dev[:12]) for r in view.repos]
        lines += ["", table(("repository", "main", "dev"), rows)]
    if view.banner:
        lines.insert(0, f"! {view.banner}")
    return "\n".join(lines)


def _nodes(views: Iterable[NodeView]) -> str:
    rows = [
        (
            view.id,
            view.role,
            "connected" if view.connected else "away",
            view.tier,
            view.running,
            ", ".join(f"{repo}@{rev[:12]}" for repo, rev in sorted(view.revisions.items())) or "-",
        )
        for view in views
    ]
    return table(("node", "role", "state", "isolation", "running", "checked out"), rows)
