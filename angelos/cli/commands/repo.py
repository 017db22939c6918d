"""`angelos repo`: create a repository from a folder, read its history, roll it back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from angelos.cli import starter
from angelos.cli.commands import bisect, collect, exchange, history, verify
from angelos.cli.groups import NounGroup
from angelos.cli.lookup import full_revision, only_repo
from angelos.cli.options import common, quiet
from angelos.cli.output import Out, table, when

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.api import RepoView, RevisionView

Config = Literal["generate", "none"]


@click.group(cls=NounGroup)
def repo() -> None:
    """Import repositories, read their history, branch, roll back."""


for _command in (*history.COMMANDS, exchange.export, bisect.bisect, verify.verify, collect.collect):
    repo.add_command(_command)


@repo.command("import")
@click.argument("folder", metavar="DIR|URL")
@click.option("--name", metavar="NAME", help="Name of the repository [the folder's].")
@click.option("-m", "--message", metavar="TEXT", default="import", help="The commit's message.")
@click.option("--history", "with_history", is_flag=True, help="Take all of git's history along.")
@click.option("--text-only", is_flag=True, help="Leave out links, and files that are not text.")
@click.option(
    "--config",
    type=click.Choice(["generate", "none"]),
    help="Without an angelos.toml: create one, or do without [asked on a terminal, else none].",
)
@click.option("-y", "--yes", is_flag=True, help="The same as --config generate.")
@click.option("--solo", is_flag=True, help="Generate it for one person alone (review.solo).")
@common
def import_folder(  # noqa: PLR0913 - click passes each option
    out: Out,
    *,
    folder: str,
    name: str | None,
    message: str,
    with_history: bool,
    text_only: bool,
    config: Config | None,
    yes: bool,
    solo: bool,
) -> None:
    """Create a repository from the folder DIR, or with --history from a git repository.

    With --history all branches, tags, authors, dates and signatures are kept, and every commit
    keeps its hash: `angelos repo export` gives them back. What cannot be kept is named, and then
    nothing is imported.

    It holds the files that git tracks there or, without git, all that are not hidden: texts and
    notebooks as live documents, what is not text in UTF-8 as it is, programs as programs, and
    links that stay within the folder.

    A folder without angelos.toml, which says how changes are tested and who decides on them, is
    offered one: it re-runs all notebooks in a clean kernel, runs pytest where there are tests,
    and has every proposal of an agent wait for a person. If you work alone, say so with
    --solo: then you may approve your own and your agents' proposals, until a second person may
    review.
    """
    name = name or exchange.default_name(folder)
    if config == "none" and (yes or solo):
        raise click.UsageError("--config none contradicts --yes and --solo.")
    if with_history or exchange.is_url(folder):
        plain = not (text_only or config or yes or solo)
        exchange.import_history(out, folder, name, asked=with_history, plain=plain)
        return
    choice = "generate" if yes or solo else config
    _import_files(out, Path(folder), (name, message), choice, text_only=text_only, solo=solo)


@repo.command("list")
@quiet
@common
def list_repos(out: Out, *, quiet: bool) -> None:
    """List the repositories with the heads of their branches."""
    views = out.ask(lambda angelos: angelos.repos.list())
    if quiet:
        out.ids(view.name for view in views)
        return
    rows = [(v.name, v.main[:12], v.dev[:12]) for v in views]
    text = table(("repository", "main", "dev"), rows)
    out.show({"repos": views}, text if rows else "There is no repository yet.")


@repo.command()
@click.argument("name", required=False)
@click.option("--revision", metavar="REV", default="main", help="A branch or revision [main].")
@common
def show(out: Out, name: str | None, revision: str) -> None:
    """Show a revision of repository NAME and its files.

    Where there is only one repository, NAME may be left out.
    """

    async def look(angelos: Angelos) -> RevisionView:
        repository = await only_repo(angelos, name)
        full = await full_revision(angelos, repository, revision)
        return await angelos.repos[repository].revision(full)

    view = out.ask(look)
    head = (
        f"{view.repo} {view.revision}\n  {when(view.at / 1000)}, by {view.author}: {view.message}"
    )
    files = table(("bytes", "path"), [(entry.size, entry.path) for entry in view.files])
    out.show(view, f"{head}\n\n{files}")


@repo.command()
@click.argument("revision", metavar="REV")
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@click.option("--reason", default="", help="Why; becomes part of the commit.")
@common
def rollback(out: Out, revision: str, repo: str | None, reason: str) -> None:
    """Return main to the files of REV with a new commit.

    A unique prefix of REV is enough; `angelos repo log` lists them.
    """

    async def back(angelos: Angelos) -> dict[str, str]:
        name = await only_repo(angelos, repo)
        to = await full_revision(angelos, name, revision)
        main = await angelos.repos[name].rollback(to, reason)
        return {"repo": name, "to": to, "revision": main}

    done = out.ask(back)
    out.show(done, f"main of {done['repo']} is now {done['revision']}, as it was at {done['to']}.")


def _import_files(
    out: Out,
    root: Path,
    names: tuple[str, str],
    config: Config | None,
    *,
    text_only: bool,
    solo: bool,
) -> None:
    """Import the files of a folder; `names` are the repository's and the commit's message."""
    from angelos.cli.folder import not_kept, read_files, some_of
    from angelos.core.errors import InvalidInput

    name, message = names
    files = read_files(root)
    if files.refused:
        raise not_kept(files.refused)
    left_out = files.leave_out_other_kinds() if text_only else []
    if not (files.texts or files.blobs or files.links):
        raise InvalidInput(f"{root} holds no files.")
    generated = _config(root, files.texts, config, solo=solo, ask=not out.as_json)
    if generated is not None:
        files.texts[starter.FILE] = generated

    async def create(angelos: Angelos) -> RepoView:
        handle = await angelos.repos.create(
            name,
            files.texts,
            message,
            blobs=files.blobs,
            links=files.links,
            executable=files.executable,
        )
        return await handle.view()

    view = out.ask(create)
    if generated is not None:
        _write(root / starter.FILE, generated)
    if left_out:
        click.echo(f"angelos: left out, because not text: {some_of(left_out)}.", err=True)
    number = len(files.texts) + len(files.blobs) + len(files.links)
    count = "1 file is" if number == 1 else f"{number} files are"
    out.show(view, f"{count} the repository {view.name}; main is {view.main}.")


def _config(
    root: Path, files: dict[str, str], config: Config | None, *, solo: bool, ask: bool
) -> str | None:
    """Return the `angelos.toml` to add to the files, None to leave them as they are."""
    from angelos.core.errors import InvalidInput

    if starter.FILE in files:
        if solo:
            raise InvalidInput(
                f"{root} has an {starter.FILE} already; nothing was imported.",
                hint="Write solo = true under its [review] instead of giving --solo.",
            )
        return None
    if (root / starter.FILE).exists():
        click.echo(f"angelos: {starter.FILE} is not imported; does git ignore it?", err=True)
        return None
    if config is None:
        config = _offer(root, files) if ask and _on_a_terminal() else _mention(root)
        solo = config == "generate" and click.confirm(_ALONE, default=False, err=True)
    return starter.starter(files, solo=solo) if config == "generate" else None


_ALONE = (
    "Do you work alone? Then you may approve your own and your agents' proposals"
    " (review.solo = true), until a second person may review"
)


def _offer(root: Path, files: dict[str, str]) -> Config:
    click.echo(
        f"{root} has no {starter.FILE}, which says how changes are tested and who decides on them."
        f"\nOne can be made that {starter.summary(files)}, and has every proposal of an agent"
        " wait for a person.",
        err=True,
    )
    return "generate" if click.confirm("Make it?", default=True, err=True) else "none"


def _mention(root: Path) -> Config:
    click.echo(
        f"angelos: {root} has no {starter.FILE}, so no proposal is tested and each waits for a"
        " person; --config generate makes one.",
        err=True,
    )
    return "none"


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _write(file: Path, text: str) -> None:
    """Write the generated file into the folder as well, and show it."""
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        click.echo(f"angelos: {file} is in the repository only: {error.strerror}.", err=True)
    else:
        click.echo(f"angelos: wrote {file}:", err=True)
    click.echo(text, err=True)
