"""`angelos node`: the machines that run code; add one, list them, shut one out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from angelos.cli.enrolment import dry_run, join, new_key, quarantine, release, show, show_token, ttl
from angelos.cli.groups import NounGroup
from angelos.cli.options import common, log_format
from angelos.cli.output import Out, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.core.api import NodeView
    from angelos.core.node_profile import NodeProfile


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

    On its machine: `angelos node join - DIR`, then `angelos node run DIR`.
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


@node.command("run")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--slots", type=click.IntRange(1, 1024), help="Tasks at once [the cores].")
@click.option("--label", "labels", multiple=True, metavar="WORD", help="May be repeated.")
@click.option("--once", is_flag=True, help="End when a task has ended and no other runs.")
@click.option(
    "--allow-unsandboxed",
    is_flag=True,
    help="Run trusted code even where no box can be made [env: ANGELOS_ALLOW_UNSANDBOXED].",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve /metrics, /healthz and /readyz there [env: ANGELOS_NODE_METRICS].",
)
@common
@log_format
def run_node(
    out: Out,
    *,
    folder: Path,
    slots: int | None,
    labels: tuple[str, ...],
    once: bool,
    allow_unsandboxed: bool,
    metrics: str | None,
) -> None:
    """Run the node that has joined in DIR, until Ctrl-C or SIGTERM.

    It waits for the hub as long as it takes. Exit code 1 when the hub refuses it.
    """
    from angelos.core.errors import InvalidInput
    from angelos.core.node_profile import MAX_LABELS, is_label
    from angelos.wiring import node as wiring
    from angelos.wiring.settings import load_log

    if len(labels) > MAX_LABELS or not all(map(is_label, labels)):
        raise InvalidInput(f"At most {MAX_LABELS} labels are allowed, each name or name=value.")
    wiring.run_node(
        wiring.config_of(
            folder,
            slots=slots or 0,
            labels=labels,
            once=once,
            allow_unsandboxed=allow_unsandboxed,
            metrics=metrics or "",
        ),
        load_log(log_format=out.log_format),
    )


@node.command("quarantine")
@click.argument("name")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@dry_run
@common
def quarantine_node(out: Out, *, name: str, reason: str, dry_run: bool) -> None:
    """Refuse node NAME from now on.

    Its certificate, connections and grants are void at once.
    """
    quarantine(out, "node", name, reason, dry_run=dry_run)


@node.command("release")
@click.argument("name")
@new_key
@common
def release_node(out: Out, *, name: str, new_key: bool) -> None:
    """Ask to end the quarantine of node NAME; the second person who asks ends it.

    It goes on with the certificate that it has. For a day, everything that it proposes waits for a
    person. One person who works alone (review.solo) is enough.
    """
    release(out, "node", name, new_key=new_key)


@node.command("show")
@click.argument("name")
@common
def show_node(out: Out, name: str) -> None:
    """Show how node NAME stands, what it has changed, and what undoing that would meet."""
    show(out, "node", name)


def nodes_table(views: Iterable[NodeView]) -> str:
    """Return nodes as a table."""
    rows = [
        (
            view.id,
            view.role,
            "connected" if view.connected else "away",
            view.tier,
            view.running,
            _machine(view.profile),
            ", ".join(f"{repo}@{rev[:12]}" for repo, rev in sorted(view.revisions.items())) or "-",
        )
        for view in views
    ]
    return table(("node", "role", "state", "isolation", "running", "machine", "checked out"), rows)


def _machine(profile: NodeProfile) -> str:
    """Return in one cell what a node says of its machine."""
    gib = profile.memory_bytes / 2**30
    parts = [f"{profile.cores} cores, {gib:.0f} GiB" if profile.cores else "-"]
    parts += [*profile.gpus, *profile.labels]
    return ", ".join(parts)
