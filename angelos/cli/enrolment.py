"""What nodes and agents have in common: how they are added, join, and are shut out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from angelos.cli.output import Out, when
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


def quarantine(out: Out, kind: Peer, name: str, reason: str) -> None:
    """Refuse a node or agent from now on."""
    principal = _principal(kind, name)
    out.ask(lambda angelos: _peers(angelos, kind).quarantine(name, reason))
    out.show({"ok": True, "principal": principal}, f"{principal} is quarantined.")


def release(out: Out, kind: Peer, name: str) -> None:
    """End a quarantine."""
    principal = _principal(kind, name)
    out.ask(lambda angelos: _peers(angelos, kind).release(name))
    text = f"{principal} is released; it joins again with a token of `angelos {kind} add {name}`."
    out.show({"ok": True, "principal": principal}, text)


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
