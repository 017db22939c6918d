"""The text files of a folder, as `angelos repo import` takes them."""

from __future__ import annotations

import codecs
import subprocess
from collections.abc import Iterable
from pathlib import Path

from angelos.core.errors import InvalidInput, Refused, TooLarge

MAX_FILES = 2_000
MAX_BYTES = 12_000_000
SHOWN = 5
_LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
_SKIPPED = frozenset({"__pycache__", "node_modules"})


def read_files(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return path -> text of a folder's files, and the paths of those that are not UTF-8 text.

    Links are among these. Raises `InvalidInput` and `TooLarge`.
    """
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder.")
    files: dict[str, str] = {}
    binary: list[str] = []
    size = 0
    for path in sorted(_paths(root)):
        file = root / path
        if file.is_symlink():
            binary.append(path)
            continue
        if not file.is_file():
            continue  # git lists it, and it is deleted
        text = _text(file)
        if text is None:
            binary.append(path)
            continue
        files[path] = text
        size += file.stat().st_size
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise TooLarge(
                f"{root} has more than {MAX_FILES} files or {MAX_BYTES} bytes; none was imported.",
                hint="Import a smaller folder, or leave data out by .gitignore.",
            )
    return files, binary


def _text(file: Path) -> str | None:
    """Return a file's text, None if it is not text; what is too large is read only in part."""
    with file.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if b"\0" in raw:
        return None
    try:
        final = len(raw) <= MAX_BYTES
        return codecs.utf_8_decode(raw, "strict", final)[0]
    except UnicodeDecodeError:
        return None


def not_text(paths: list[str]) -> Refused:
    """Return the error that names the files that cannot be imported."""
    are = "is" if len(paths) == 1 else "are"
    return Refused(
        f"{some_of(paths)} {are} not text in UTF-8; nothing was imported.",
        hint="Leave such files out with --text-only, or import a git repository with --history.",
    )


def some_of(paths: list[str]) -> str:
    """Return the first of these paths, and how many more there are."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _paths(root: Path) -> Iterable[str]:
    """Return relative POSIX paths: git's list where there is one, else a walk."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), *_LIST],
            capture_output=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
            raise InvalidInput(  # all files might be more than its owner would show
                f"git cannot list the files of {root}: {_reason(error)}. Nothing was imported.",
                hint="Make `git ls-files` work there, or import a copy without .git.",
            ) from error
        return [path.as_posix() for path in _walk(root)]
    return listed.stdout.decode(errors="surrogateescape").rstrip("\0").split("\0")


def _reason(error: Exception) -> str:
    """Return what git wrote to standard error, in one line."""
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
    return " ".join(text.decode(errors="replace").split()).rstrip(".") or str(error)


def _walk(root: Path) -> Iterable[Path]:
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if not any(part.startswith(".") or part in _SKIPPED for part in path.parts):
            yield path
