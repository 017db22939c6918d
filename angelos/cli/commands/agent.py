"""`angelos agent`: programs with an identity of their own; add, join, pause, shut out."""

from __future__ import annotations

import click

from angelos.cli.enrolment import dry_run, join, new_key, quarantine, release, show, show_token, ttl
from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out


@click.group(cls=NounGroup)
def agent() -> None:
    """Add agents, pause them, and shut them out."""


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
@dry_run
@common
def quarantine_agent(out: Out, *, name: str, reason: str, dry_run: bool) -> None:
    """Refuse agent NAME from now on.

    Its certificate, connections and grants are void at once.
    """
    quarantine(out, "agent", name, reason, dry_run=dry_run)


@agent.command("release")
@click.argument("name")
@new_key
@common
def release_agent(out: Out, *, name: str, new_key: bool) -> None:
    """Ask to end the quarantine of agent NAME; the second person who asks ends it.

    It goes on with the certificate that it has. For a day, everything that it proposes waits for a
    person. One person who works alone (review.solo) is enough.
    """
    release(out, "agent", name, new_key=new_key)


@agent.command("show")
@click.argument("name")
@common
def show_agent(out: Out, name: str) -> None:
    """Show how agent NAME stands, what it has changed, and what undoing that would meet."""
    show(out, "agent", name)


every = click.option("--all", "every", is_flag=True, help="Every agent.")


def _chosen(name: str | None, *, every: bool) -> str:
    if every == (name is not None):
        raise click.UsageError("Give NAME or --all.")
    return name or ""


@agent.command("pause")
@click.argument("name", required=False)
@every
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def pause_agent(out: Out, *, name: str | None, every: bool, reason: str) -> None:
    """Stop what runs for agent NAME where it is, within a second.

    Nothing of it starts until it is resumed. Its certificate stays valid.
    """
    chosen = _chosen(name, every=every)
    out.ask(lambda angelos: angelos.agents.pause(chosen, reason))
    out.show({"agent": chosen, "paused": True}, f"{chosen or 'Every agent'} is paused.")


@agent.command("resume")
@click.argument("name", required=False)
@every
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def resume_agent(out: Out, *, name: str | None, every: bool, reason: str) -> None:
    """Let agent NAME go on where it stopped.

    If it was paused for its budget, that begins anew.
    """
    chosen = _chosen(name, every=every)
    out.ask(lambda angelos: angelos.agents.resume(chosen, reason))
    out.show({"agent": chosen, "paused": False}, f"{chosen or 'Every agent'} goes on.")
