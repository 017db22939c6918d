"""`angelos repo verify`: whether a repository can still be read back, all of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from angelos.cli.lookup import only_repo
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, table

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.history import VerifyPage


@click.command()
@click.argument("name", metavar="NAME", required=False)
@common
def verify(out: Out, name: str | None) -> None:
    """Read all of the repository NAME back, and say what is damaged.

    Every commit with its signature, every file and blob of every revision, and the snapshot of
    every live document is compared with its hash. Exit code 1: something is missing or was changed.
    """
    repo, pages = out.ask(lambda angelos: _read_back(angelos, name))
    damage = [item for page in pages for item in page.damage]
    totals = {
        "commits": sum(page.commits for page in pages),
        "contents": sum(page.contents for page in pages),
        "documents": sum(page.documents for page in pages),
    }
    read = ", ".join(f"{count} {noun}" for noun, count in totals.items())
    rows = [(d.kind, d.hash[:12], d.revision[:12] or "live", d.path, d.detail) for d in damage]
    text = table(("what", "hash", "revision", "path", "damage"), rows) + "\n" if damage else ""
    verdict = f"{len(damage)} damaged" if damage else "nothing is damaged"
    out.show(
        {"repo": repo, "ok": not damage, **totals, "damage": damage},
        f"{text}{repo}: {read} read back, {verdict}.",
    )
    if damage:
        sys.exit(FAILED)


async def _read_back(angelos: Angelos, name: str | None) -> tuple[str, list[VerifyPage]]:
    """Return what was read, counting on a terminal how far it has come."""
    repo = await only_repo(angelos, name)
    pages: list[VerifyPage] = []
    async for page in angelos.repos[repo].verify():
        pages.append(page)
        if sys.stderr.isatty():
            end = "commits read" if page.next else "\r\x1b[K"
            commits = sum(page.commits for page in pages)
            click.echo(f"\r{commits} {end}", nl=False, err=True)
    return repo, pages
