"""`angelos repo gc`: delete what nothing reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.lookup import only_repo
from angelos.cli.options import common
from angelos.cli.output import Out

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.history import CollectionReport


@click.command("gc")
@click.argument("name", metavar="NAME", required=False)
@click.option("--delete", is_flag=True, help="Delete it; without this it is only counted.")
@click.option(
    "--keep-days",
    type=click.IntRange(1, 3650),
    default=14,
    show_default=True,
    help="What is younger stays.",
)
@common
def collect(out: Out, *, name: str | None, delete: bool, keep_days: int) -> None:
    """Count what nothing in the repository NAME reaches any more, and with --delete delete it.

    Commits of no branch, proposal or earlier main, the files and blobs of these alone, and what the
    log of live documents holds twice. Everything that has a name can be restored as before.
    """
    report = out.ask(lambda angelos: _collect(angelos, name, delete, keep_days))
    done = "to be deleted (--delete)" if report.dry_run else "deleted"
    size = (report.object_bytes + report.blob_bytes) / 1e6
    out.show(
        report,
        f"{report.repo}: {report.commits} commits, {report.objects} objects and {report.blobs} "
        f"blobs ({size:.1f} MB), {report.updates} updates and {report.streams} streams {done}.",
    )


async def _collect(
    angelos: Angelos,
    name: str | None,
    delete: bool,  # noqa: FBT001 - the command's own option
    keep_days: int,
) -> CollectionReport:
    repo = await only_repo(angelos, name)
    return await angelos.repos[repo].collect(keep_days=keep_days, dry_run=not delete)
