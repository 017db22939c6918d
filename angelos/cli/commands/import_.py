"""`angelos import FOLDER`: make a repository of a folder's text files."""

from __future__ import annotations

import codecs
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.common import Out, common
from angelos.core.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.client import Angelos
    from angelos.core.api import RepoView

MAX_FILES = 2_000
MAX_BYTES = 12_000_000
SHOWN = 5
_SKIPPED = frozenset({"__pycache__", "node_modules"})


@click.command("import")
@click.argument("folder", metavar="FOLDER")
@click.option("--repo", metavar="NAME", help="Name of the repository [the folder's].")
@click.option("-m", "--message", metavar="TEXT", default="import", help="The commit's message.")
@click.option("--text-only", is_flag=True, help="Leave out files that are not text in UTF-8.")
@common
def import_folder(
    out: Out,
    folder: str,
    repo: str | None,
    message: str,
    text_only: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Make FOLDER a repository: the files that git tracks there, else all that are not hidden."""
    root = Path(folder)
    files, left_out = read_files(root)
    if left_out and not text_only:
        raise _not_text(left_out)
    if not files:
        raise InvalidInput(f"{root} holds no text files.")
    name = repo or root.resolve().name

    async def create(angelos: Angelos) -> RepoView:
        return await angelos.create_repo(name, files, message)

    view = out.ask(create)
    if left_out:
        click.echo(f"angelos: left out, because not text: {_named(left_out)}.", err=True)
    count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    out.show(view, f"{count} the repository {view.name}; main is {view.main}.")


def read_files(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return path -> text of a folder's files, and the paths of those that are not UTF-8 text.

    Links and special files are neither. Raises `InvalidInput` and `TooLarge`.
    """
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder.")
    files: dict[str, str] = {}
    others: list[str] = []
    size = 0
    for path in sorted(_paths(root)):
        file = root / path
        if file.is_symlink() or not file.is_file():
            continue
        text = _text(file)
        if text is None:
            others.append(path)
            continue
        files[path] = text
        size += file.stat().st_size
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise TooLarge(
                f"{root} has more than {MAX_FILES} files or {MAX_BYTES} bytes; none was imported.",
                hint="Import a smaller folder, or leave data out by .gitignore.",
            )
    return files, others


def _text(file: Path) -> str | None:
    """Return a file's text, None if it is not text; what is too large is read only in part."""
    with file.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if b"\0" in raw:
        return None
    try:
        whole = len(raw) <= MAX_BYTES
        return codecs.utf_8_decode(raw, "strict", whole)[0]
    except UnicodeDecodeError:
        return None


def _not_text(paths: list[str]) -> InvalidInput:
    are = "is" if len(paths) == 1 else "are"
    return InvalidInput(
        f"{_named(paths)} {are} not text in UTF-8; nothing was imported.",
        hint="Leave such files out with --text-only, or by .gitignore.",
    )


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _paths(root: Path) -> Iterable[str]:
    """Return relative POSIX paths: git's list where there is one, else a walk."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        if any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
            raise InvalidInput(  # all files might be more than its owner would show
                f"git cannot list the files of {root}: {_said(error)}. Nothing was imported.",
                hint="Make `git ls-files` work there, or import a copy without .git.",
            ) from error
        return [path.as_posix() for path in _walk(root)]
    return listed.stdout.decode(errors="surrogateescape").rstrip("\0").split("\0")


def _said(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
    return " ".join(said.decode(errors="replace").split()).rstrip(".") or str(error)


def _walk(root: Path) -> Iterable[Path]:
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if not any(part.startswith(".") or part in _SKIPPED for part in path.parts):
            yield path
