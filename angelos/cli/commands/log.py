"""`angelos log`: the revisions of a branch, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from angelos.cli.commands.review import only_repo
from angelos.cli.common import Out, common, when

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.api import RevisionView


@click.command()
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@click.option("--branch", type=click.Choice(["main", "dev"]), default="main", show_default=True)
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@common
def log(out: Out, repo: str | None, branch: Literal["main", "dev"], limit: int) -> None:
    """List the revisions of main (or dev), newest first: what to roll back to."""

    async def asked(angelos: Angelos) -> list[RevisionView]:
        name = await only_repo(angelos, repo)
        found = await angelos.log(name, branch, limit=limit)
        return [await angelos.revision(name, revision) for revision in found]

    views = out.ask(asked)
    rows = [
        (v.revision[:12], when(v.at / 1000), v.author, v.tree[:12], v.message[:60]) for v in views
    ]
    out.table(("revision", "time", "author", "tree", "message"), rows, {"revisions": views})
