"""`angelos import FOLDER`: make a repository of a folder's text files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.common import Out, common

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.client import Angelos
    from angelos.core.api import RepoView

MAX_FILES = 2_000
MAX_BYTES = 12_000_000
_SKIPPED = frozenset({"__pycache__", "node_modules"})


@click.command("import")
@click.argument("folder", metavar="FOLDER")
@click.option("--repo", metavar="NAME", help="Name of the repository [the folder's].")
@click.option("-m", "--message", metavar="TEXT", default="import", help="The commit's message.")
@common
def import_folder(out: Out, folder: str, repo: str | None, message: str) -> None:
    """Make FOLDER a repository: the files that git tracks there, else all that are not hidden."""
    root = Path(folder)
    files = read_files(root)
    name = repo or root.resolve().name

    async def create(angelos: Angelos) -> RepoView:
        return await angelos.create_repo(name, files, message)

    view = out.ask(create)
    out.show(view, f"{len(files)} files are the repository {view.name}; main is {view.main}.")


def read_files(root: Path) -> dict[str, str]:
    """Return path -> text of a folder's files; raise `InvalidInput` for what cannot be taken."""
    from angelos.core.errors import InvalidInput, TooLarge

    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder.")
    files: dict[str, str] = {}
    size = 0
    for path in sorted(_paths(root)):
        file = root / path
        if file.is_symlink() or not file.is_file():
            continue
        size += file.stat().st_size
        if len(files) >= MAX_FILES or size > MAX_BYTES:
            raise TooLarge(
                f"{root} has more than {MAX_FILES} files or {MAX_BYTES} bytes; none was imported.",
                hint="Import a smaller folder, or leave data out by .gitignore.",
            )
        try:
            files[path] = file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{file} is not text in UTF-8 that can be read ({error}); nothing was imported.",
                hint="Leave it out by .gitignore, or import another folder.",
            ) from error
    if not files:
        raise InvalidInput(f"{root} holds no files.")
    return files


def _paths(root: Path) -> Iterable[str]:
    """Return relative POSIX paths: git's list where there is one, else a walk."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return [path.as_posix() for path in _walk(root)]
    return listed.stdout.decode(errors="surrogateescape").rstrip("\0").split("\0")


def _walk(root: Path) -> Iterable[Path]:
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if not any(part.startswith(".") or part in _SKIPPED for part in path.parts):
            yield path
