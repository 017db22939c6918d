"""`angelos agent`: programs with an identity of their own; add one, join as one, shut one out."""

from __future__ import annotations

import click

from angelos.cli.enrolment import join, quarantine, release, show_token, ttl
from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out


@click.group(cls=NounGroup)
def agent() -> None:
    """Add agents, and shut them out."""


@agent.command("add")
@click.argument("name")
@ttl
@common
def add_agent(out: Out, name: str, ttl: int) -> None:
    """Print a single-use token for agent NAME.

    Where the agent runs: `angelos agent join - DIR`.
    """
    show_token(out, out.ask(lambda angelos: angelos.agents.add(name, ttl)))


@agent.command("join")
@click.argument("source", metavar="TOKEN_FILE")
@click.argument("folder", metavar="DIR")
@common
def join_agent(out: Out, source: str, folder: str) -> None:
    """Get a certificate into DIR with the token in TOKEN_FILE.

    With - the token is read from standard input; on a terminal it is asked for and not shown.
    """
    join(out, "agent", source, folder)


@agent.command("quarantine")
@click.argument("name")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def quarantine_agent(out: Out, name: str, reason: str) -> None:
    """Refuse agent NAME from now on.

    Its certificate, connections and grants are void at once.
    """
    quarantine(out, "agent", name, reason)


@agent.command("release")
@click.argument("name")
@common
def release_agent(out: Out, name: str) -> None:
    """End the quarantine of agent NAME.

    It has to join again with a new token.
    """
    release(out, "agent", name)
