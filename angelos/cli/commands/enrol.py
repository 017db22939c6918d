"""`angelos enrol|agent|quarantine|release`: how nodes and agents come and go."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from angelos.cli.common import Out, common, when


@click.group()
def enrol() -> None:
    """Make a token by which a node or an agent joins."""


@enrol.command("node")
@click.argument("name")
@click.option("--role", type=click.Choice(["execution", "labs"]), default="execution")
@click.option(
    "--ttl", type=click.IntRange(1, 86_400), default=600, show_default=True, help="Seconds."
)
@common
def enrol_node(out: Out, name: str, role: str, ttl: int) -> None:
    """Print a single-use token for node NAME.

    Start it with `python -m angelos.wiring.node --name NAME --dir DIR --enrol TOKEN`.
    """
    labs = role == "labs"
    view = out.ask(
        lambda angelos: angelos.enrol_token("node", name, "labs" if labs else "execution", ttl)
    )
    out.show(view, view.token)
    if not out.as_json:
        click.echo(f"Usable once, until {when(view.expires_at)}.", err=True)


@enrol.command("agent")
@click.argument("name")
@click.option(
    "--ttl", type=click.IntRange(1, 86_400), default=600, show_default=True, help="Seconds."
)
@common
def enrol_agent(out: Out, name: str, ttl: int) -> None:
    """Print a single-use token for agent NAME, for `angelos agent enrol TOKEN DIR`."""
    view = out.ask(lambda angelos: angelos.enrol_token("agent", name, ttl_s=ttl))
    out.show(view, view.token)
    if not out.as_json:
        click.echo(f"Usable once, until {when(view.expires_at)}.", err=True)


@click.group()
def agent() -> None:
    """What an agent does itself."""


@agent.command("enrol")
@click.argument("token")
@click.argument("folder", metavar="DIR")
@common
def agent_enrol(out: Out, token: str, folder: str) -> None:
    """Use TOKEN (- to read it from standard input) to get a certificate into DIR."""
    from angelos.adapters.identity.enrolment import enrol as get_certificate

    word = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - no secret
    identity = asyncio.run(get_certificate(word, Path(folder)))
    done = {"id": identity.id, "hub_url": identity.hub_url, "folder": folder}
    out.show(done, f"{identity.id} is enrolled; its key and certificate are in {folder}.")


@click.command()
@click.argument("principal", metavar="agent/NAME|node/NAME")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def quarantine(out: Out, principal: str, reason: str) -> None:
    """Refuse a node or agent from now on: certificate, connections and grants are void."""
    _check(principal)
    out.ask(lambda angelos: angelos.quarantine(principal, reason))
    out.show({"ok": True, "principal": principal}, f"{principal} is quarantined.")


@click.command()
@click.argument("principal", metavar="agent/NAME|node/NAME")
@common
def release(out: Out, principal: str) -> None:
    """End a quarantine; a new certificate has to be enrolled."""
    _check(principal)
    out.ask(lambda angelos: angelos.release(principal))
    out.show({"ok": True, "principal": principal}, f"{principal} is released; enrol it anew.")


def _check(principal: str) -> None:
    from angelos.core.errors import InvalidInput
    from angelos.core.ids import is_principal

    if not is_principal(principal) or not principal.startswith(("agent/", "node/")):
        raise InvalidInput(f"{principal!r} is not an agent or node.", hint="Write agent/NAME.")
