"""What nodes and agents have in common: how they are added, join, and are shut out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from angelos.cli.output import Out, table, when
from angelos.cli.reading import read_secret

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.client.admin import AgentCollection, NodeCollection
    from angelos.core.api import EnrolmentView

Peer = Literal["node", "agent"]


def ttl(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that makes a token `--ttl`."""
    return click.option(
        "--ttl",
        type=click.IntRange(1, 86_400),
        default=600,
        show_default=True,
        metavar="S",
        help="Seconds for which the token can be used.",
    )(command)


def show_token(out: Out, view: EnrolmentView) -> None:
    """Print a single-use token, and until when it can be used."""
    out.show(view, view.token)
    if not out.as_json:
        click.echo(f"Usable once, until {when(view.expires_at)}.", err=True)


def join(out: Out, kind: Peer, source: str, folder: str) -> None:
    """Use a token to get a certificate into a folder."""
    from angelos.adapters.identity.enrolment import enrol
    from angelos.core.errors import InvalidInput

    if kind == "node":
        _check_exposure(folder)
    identity = asyncio.run(enrol(read_secret(source), Path(folder)))
    if not identity.id.startswith(f"{kind}/"):
        raise InvalidInput(
            f"The token was that of {identity.id}, which is no {kind}.",
            hint=f"It is used up, and the certificate is in {folder}.",
        )
    view = {"id": identity.id, "hub_url": identity.hub_url, "folder": folder}
    out.show(view, f"{identity.id} has joined; its key and certificate are in {folder}.")


def _check_exposure(folder: str) -> None:
    """Refuse a folder that every task may read, before the token is used."""
    from angelos.core.errors import InvalidInput
    from angelos.node.sandbox.layout import exposed, system_binds, this_interpreter

    if readable := exposed(Path(folder), (*system_binds(), *this_interpreter().binds)):
        raise InvalidInput(
            f"{folder} lies in {readable}, which every task may read, and with it the node's"
            " private key.",
            hint="Choose another DIR; the token was not used.",
        )


dry_run = click.option(
    "--dry-run", is_flag=True, help="Only show what it has changed; nothing is shut out."
)
new_key = click.option(
    "--new-key", is_flag=True, help="Its certificate stays void: it has to join again."
)


def quarantine(out: Out, kind: Peer, name: str, reason: str, *, dry_run: bool) -> None:
    """Refuse a node or agent from now on, and show what it has changed."""
    principal = _principal(kind, name)
    if dry_run:
        show(out, kind, name)
        return
    out.ask(lambda angelos: _peers(angelos, kind).quarantine(name, reason))
    hint = f"`angelos {kind} show {name}` lists what it has changed."
    out.show({"ok": True, "principal": principal}, f"{principal} is quarantined. {hint}")


def show(out: Out, kind: Peer, name: str) -> None:
    """Show how a node or agent stands, and what undoing its changes would meet."""
    _principal(kind, name)
    view = out.ask(lambda angelos: _peers(angelos, kind).quarantine_view(name))
    lines = [f"{view.principal}: {'quarantined' if view.quarantined else 'not quarantined'}"]
    if view.reason:
        lines.append(f"because: {view.reason}")
    if view.release_asked_by:
        lines.append(f"{view.release_asked_by} asked for its release; a second person has to")
    if view.probation_until:
        lines.append(f"on probation until {when(view.probation_until)}")
    lines.append(f"open tasks: {view.tasks_open}")
    rows = [
        (c.proposal, c.repo, c.state, c.undo or "not merged", " ".join(c.paths[:3]))
        for c in (*view.merged, *view.unmerged)
    ]
    head = ("proposal", "repository", "state", "undoing", "paths")
    lines.append(table(head, rows) if rows else "It has changed nothing.")
    if any(change.undo == "clean" for change in view.merged):
        lines.append("`angelos proposal revert ID` proposes to undo one.")
    out.show(view, "\n".join(lines))


def release(out: Out, kind: Peer, name: str, *, new_key: bool) -> None:
    """Ask to end a quarantine, or end the one that somebody else asked to end."""
    principal = _principal(kind, name)
    view = out.ask(lambda angelos: _peers(angelos, kind).release(name, new_key=new_key))
    if not view.released:
        text = f"Asked. {principal} is released when a second person asks for the same."
    else:
        until = when(view.probation_until or 0.0)
        text = f"{principal} is released, on probation until {until}."
        if new_key:
            text += f" It joins again with a token of `angelos {kind} add {name}`."
    out.show(view, text)


def _peers(angelos: Angelos, kind: Peer) -> NodeCollection | AgentCollection:
    return angelos.nodes if kind == "node" else angelos.agents


def _principal(kind: Peer, name: str) -> str:
    """Return `agent/ada` for `ada`; raise `InvalidInput`."""
    from angelos.core.errors import InvalidInput
    from angelos.core.ids import is_principal

    principal = f"{kind}/{name}"
    if not is_principal(principal):
        raise InvalidInput(f"{name!r} is not the name of a {kind}.", hint="Write it alone: ada.")
    return principal
