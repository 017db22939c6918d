"""`angelos propose`: a new text of a file, or a patch, against the revision it was made from."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.commands.review import describe, full_revision, only_repo
from angelos.cli.common import FAILED, Out, common, read_text

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.api import ProposalView
    from angelos.core.repository import Edit

_BAD = frozenset({"rejected", "refused", "rolled-back"})


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--base", metavar="REV", required=True, help="What FILE was made from: main or a revision."
)
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@click.option(
    "--path", metavar="PATH", help="The path in the repository that FILE is a new text of."
)
@click.option("-m", "--message", metavar="TEXT", help="What the change is for.")
@click.option(
    "--wait", type=click.FloatRange(0, 3600), default=0, metavar="S", help="Wait for the decision."
)
@common
def propose(
    out: Out,
    file: str,
    base: str,
    repo: str | None,
    path: str | None,
    message: str | None,
    wait: float,
) -> None:
    """Propose FILE: a new text of PATH, or a .diff or .patch of one or more files."""
    if math.isnan(wait):  # click's range takes it
        raise click.BadParameter("nan is no number of seconds.", param_hint="--wait")
    edits = _edits(file, path)
    text = message or f"Change {', '.join(edit.path for edit in edits)}"

    async def asked(angelos: Angelos) -> ProposalView:
        name = await only_repo(angelos, repo)
        view = await angelos.propose(name, await full_revision(angelos, name, base), edits, text)
        return await angelos.proposal(view.id, wait=wait) if wait else view

    view = out.ask(asked)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in _BAD else 0)


def _edits(file: str, path: str | None) -> tuple[Edit, ...]:
    from angelos.cli.patches import split
    from angelos.core.errors import InvalidInput
    from angelos.core.paths import safe_path
    from angelos.core.repository import NewText

    source = Path(file)
    text = read_text(file)
    if source.suffix in {".diff", ".patch"}:
        if path is not None:
            raise InvalidInput("A patch names its paths itself; leave --path out.")
        return split(text)
    if path is None and source.is_absolute():
        raise InvalidInput(f"Which file is {file} a new text of?", hint="Name it with --path.")
    return (NewText(path=safe_path(source.as_posix() if path is None else path), text=text),)
