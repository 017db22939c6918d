"""`angelos repo export`: a repository as a git repository."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.lookup import only_repo
from angelos.cli.options import common
from angelos.cli.output import Out

if TYPE_CHECKING:
    from angelos.client import Angelos

_SIGNERS = "angelos-allowed-signers"


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("folder", metavar="DIR")
@common
def export(out: Out, name: str, folder: str) -> None:
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
        return await repository.git_bundle(), await repository.allowed_signers()

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
