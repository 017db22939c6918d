"""`angelos node`: the machines that run code; add one, list them, shut one out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from angelos.cli.enrolment import join, quarantine, release, show_token, ttl
from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.core.api import NodeView


@click.group(cls=NounGroup)
def node() -> None:
    """Add, list and shut out the machines that run code."""


@node.command("list")
@common
def list_nodes(out: Out) -> None:
    """List the nodes."""
    views = out.ask(lambda angelos: angelos.nodes.list())
    out.show({"nodes": views}, nodes_table(views))


@node.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["execution", "labs"]), default="execution")
@ttl
@common
def add_node(out: Out, name: str, role: Literal["execution", "labs"], ttl: int) -> None:
    """Print a single-use token for node NAME.

    On its machine: `angelos node join - DIR`, then
    `python -m angelos.wiring.node --name NAME --dir DIR`.
    """
    show_token(out, out.ask(lambda angelos: angelos.nodes.add(name, role, ttl)))


@node.command("join")
@click.argument("source", metavar="TOKEN_FILE")
@click.argument("folder", metavar="DIR")
@common
def join_node(out: Out, source: str, folder: str) -> None:
    """Get a certificate into DIR with the token in TOKEN_FILE.

    With - the token is read from standard input; on a terminal it is asked for and not shown.
    """
    join(out, "node", source, folder)


@node.command("quarantine")
@click.argument("name")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def quarantine_node(out: Out, name: str, reason: str) -> None:
    """Refuse node NAME from now on.

    Its certificate, connections and grants are void at once.
    """
    quarantine(out, "node", name, reason)


@node.command("release")
@click.argument("name")
@common
def release_node(out: Out, name: str) -> None:
    """End the quarantine of node NAME.

    It has to join again with a new token.
    """
    release(out, "node", name)


def nodes_table(views: Iterable[NodeView]) -> str:
    """Return nodes as a table."""
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
