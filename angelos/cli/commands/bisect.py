"""`angelos repo bisect`: find the commit that broke something, by tasks in the sandbox."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from angelos.cli.lookup import only_repo
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, when

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.client.bisect import Bisected


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--good", metavar="REV", required=True, help="Where it still worked.")
@click.option("--bad", metavar="REV", default="main", help="Where it does not [main].")
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@common
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True)
def bisect(out: Out, good: str, bad: str, repo: str | None, command: tuple[str, ...]) -> None:
    """Find the first commit after --good at which COMMAND fails.

    COMMAND runs in a sandbox, in a checkout of each commit that is tried: half of those that are
    left each time. Where it cannot be told apart, because a run took too long or too much memory,
    the commit is skipped.
    """

    async def search(angelos: Angelos) -> Bisected:
        from angelos.client.bisect import bisect as run

        name = await only_repo(angelos, repo)

        def say(text: str) -> None:
            click.echo(f"angelos: {text}", err=True)

        return await run(angelos, name, command, good=good, bad=bad, on_step=say)

    done = out.ask(search)
    if done.first is None:
        out.show(done, f"It is one of these: {', '.join(c.id[:12] for c in done.candidates)}.")
        sys.exit(FAILED)
    commit = done.first
    text = f"{commit.id} is the first bad one\n  {when(commit.at / 1000)}, by {commit.authors[0]}: "
    out.show(done, text + commit.message)
