"""The files of a folder, as `angelos repo import` takes them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from angelos.core.errors import InvalidInput, Refused, TooLarge
from angelos.core.paths import safe_link, safe_path

MAX_FILES = 2_000
MAX_BYTES = 11_000_000
"""Of all files together; what is no text takes a third more on the way."""
SHOWN = 5
_LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
_SKIPPED = frozenset({"__pycache__", "node_modules"})


@dataclass
class FolderFiles:
    """The files of a folder by how they are kept."""

    texts: dict[str, str] = field(default_factory=dict[str, str])
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """What is no text in UTF-8."""
    links: dict[str, str] = field(default_factory=dict[str, str])
    """Target of each symbolic link."""
    executable: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])
    """Paths that no repository can hold, each with the reason."""

    def leave_out_other_kinds(self) -> list[str]:
        """Drop all but texts; return the paths of the rest."""
        rest = sorted([*self.blobs, *self.links])
        self.executable = [path for path in self.executable if path in self.texts]
        self.blobs, self.links = {}, {}
        return rest


def read_files(root: Path) -> FolderFiles:
    """Return a folder's files; raise `InvalidInput` and `TooLarge`."""
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder.")
    files = FolderFiles()
    size = count = 0
    for path in sorted(_paths(root)):
        file = root / path
        if not file.is_symlink() and not file.is_file():
            if file.exists() and not file.is_dir():
                files.refused.append(f"{_shown(path)} (no file)")
            continue  # or git lists it, and it is deleted
        try:
            size += _take(files, path, file)
        except InvalidInput as error:
            files.refused.append(f"{_shown(path)} ({error.detail.rstrip('.')})")
        count += 1
        if count > MAX_FILES or size > MAX_BYTES:
            raise TooLarge(
                f"{root} has more than {MAX_FILES} files or {MAX_BYTES} bytes; none was imported.",
                hint="Import a smaller folder, leave data out by .gitignore, or import a git "
                "repository with --history.",
            )
    return files


def _take(files: FolderFiles, path: str, file: Path) -> int:
    """Read one file; return its size. Raise `InvalidInput` for what no repository holds."""
    if not _is_unicode(path):
        raise InvalidInput("its name is not UTF-8")
    safe_path(path)
    if file.is_symlink():
        target = os.readlink(file)  # noqa: PTH115 - Path would change it
        if not _is_unicode(target):
            raise InvalidInput("its target is not UTF-8")
        files.links[path] = safe_link(path, target)
        return len(target)
    with file.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)  # what is too large is read only in part
    if (text := _text(raw)) is not None:
        files.texts[path] = text
    else:
        files.blobs[path] = raw
    if file.stat().st_mode & 0o100:
        files.executable.append(path)
    return len(raw)


def _text(raw: bytes) -> str | None:
    """Return a file's text, None if it is not text in UTF-8."""
    if b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _shown(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def not_kept(paths: list[str]) -> Refused:
    """Return the error that names the files that cannot be imported."""
    return Refused(
        f"{some_of(paths)} cannot be kept; nothing was imported.",
        hint="Rename or remove them, or have git ignore them.",
        names=paths[:1_000],
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
