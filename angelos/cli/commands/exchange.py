"""`angelos repo export`, and import with history: a repository as a git repository."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.lookup import only_repo
from angelos.cli.options import common
from angelos.cli.output import Out, printable

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.history import GitImported

_URL = re.compile(r"[a-z+]+://.+|[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:.+")
_SIGNERS = "angelos-allowed-signers"


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("folder", metavar="DIR")
@click.option("--notes", is_flag=True, help="Add who wrote each line, as notes for git-ai.")
@common
def export(out: Out, *, name: str, folder: str, notes: bool) -> None:
    """Write repository NAME with its whole history as a git repository into the new folder DIR.

    Every commit is signed; the one git config line that is printed lets git verify them. What was
    imported with its history has the same hashes as where it came from.
    """
    from angelos.cli.git import GitProgram
    from angelos.core.errors import InvalidInput

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInput(f"{target} exists already; nothing was written.")

    async def fetch(angelos: Angelos) -> tuple[bytes, str]:
        repository = angelos.repos[await only_repo(angelos, name)]
        return await repository.git_bundle(notes=notes), await repository.allowed_signers()

    bundle, signers = out.ask(fetch)
    target.mkdir(parents=True, exist_ok=True)
    git = GitProgram(target)
    with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
        file.write(bundle)
        file.flush()
        git.run("init", "-q", "-b", "main")
        git.run("fetch", "-q", "--update-head-ok", file.name, "+refs/*:refs/*")
    git.run("reset", "-q", "--hard")
    path = (target / ".git" / _SIGNERS).resolve()
    path.write_text(signers, encoding="ascii")
    config = ["git", "-C", str(target), "config", "gpg.ssh.allowedSignersFile", str(path)]
    head = git.run("rev-parse", "HEAD").decode().strip()
    answer = {"repo": name, "folder": str(target), "head": head, "config": shlex.join(config)}
    out.show(answer, f"{name} is in {target}; to verify its commits:\n{shlex.join(config)}")


def is_url(source: str) -> bool:
    """Return whether git is to fetch a source from elsewhere."""
    return bool(_URL.fullmatch(source))


def default_name(source: str) -> str:
    """Return the name of a repository that comes from a path or URL."""
    if not is_url(source):
        source = str(Path(source).resolve())
    return re.split(r"[/:]", source.rstrip("/"))[-1].removesuffix(".git")


def import_history(out: Out, source: str, name: str, *, asked: bool, plain: bool) -> None:
    """Import a git repository, all of it, from a path or URL."""
    if not asked:
        raise click.UsageError("What comes from a URL is imported with --history.")
    if not plain:
        raise click.UsageError("--history takes the files as they are; commit what you add first.")
    bundle = _bundle(source)

    async def send(angelos: Angelos) -> GitImported:
        return await angelos.repos.import_git(name, bundle)

    done = out.ask(send)
    for old, new in done.renamed:
        click.echo(f"angelos: {printable(old)} is kept as {printable(new)}.", err=True)
    kept = f", with {done.references} more references" if done.references else ""
    out.show(
        done, f"{done.name} begins with the git commit {done.head}{kept}; main is {done.main}."
    )


def _bundle(source: str) -> bytes:
    from angelos.cli.git import GitProgram

    with tempfile.TemporaryDirectory() as place:
        folder = Path(source)
        if is_url(source):
            GitProgram(Path(place)).run("clone", "-q", "--mirror", "--", source, "mirror")
            folder = Path(place) / "mirror"
        file = Path(place) / "all.bundle"
        GitProgram(folder).run("bundle", "create", "-q", str(file), "--all")
        return file.read_bytes()
