"""What `angelos run` sends as inputs, and how it writes what a task has left.

inputs = read_inputs(("data.csv", "study@main:a.py"))
written = write_output(Path("out"), "plots/a.png", content, patterns)
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.paths import safe_path
from angelos.core.task_files import FILE_BYTES, MAX_FILES, TOTAL_BYTES, may_write

_OF_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,63})(@(?P<at>[^:]+))?:(?P<path>.+)")
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC


class RepoFile(NamedTuple):
    """An input that AngelGit holds."""

    repo: str
    at: str
    """A branch or revision."""
    path: str


def read_inputs(paths: Sequence[str]) -> tuple[dict[str, bytes], dict[str, RepoFile]]:
    """Return name in the box -> content of files and folders here, and -> files of repositories.

    A file has its own name in the box, a folder its name with all below it, hidden entries and
    links left out.

    Raises:
        InvalidInput: Something is not there or cannot be read, or two have one name.
        TooLarge: There is more than a task may be given.
    """
    here: dict[str, bytes] = {}
    there: dict[str, RepoFile] = {}
    total = 0
    for given in paths:
        match = None if Path(given).exists() else _OF_REPO.fullmatch(given)
        if match is not None:
            file = RepoFile(match["repo"], match["at"] or "main", safe_path(match["path"]))
            _place(PurePosixPath(file.path).name, {**here, **there})
            there[PurePosixPath(file.path).name] = file
            continue
        for name, path in _files(Path(given)):
            content = _content(path)
            total += len(content)
            if total > TOTAL_BYTES or len(here) >= MAX_FILES:
                raise TooLarge(f"The inputs have more than {MAX_FILES} files or {TOTAL_BYTES} B.")
            _place(name, {**here, **there})
            here[name] = content
    return here, there


def _place(name: str, taken: dict[str, object]) -> None:
    safe_path(name)
    if name in taken:
        raise InvalidInput(f"Two inputs are called {name}.")


def _files(given: Path) -> Iterator[tuple[str, Path]]:
    if not given.is_dir():
        yield given.name, given
        return
    root = given.resolve()
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield f"{root.name}/{path.relative_to(root).as_posix()}", path


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"The input {path} cannot be read: {error.strerror}.") from error
    if len(content) > FILE_BYTES:
        raise TooLarge(f"{path} has more than {FILE_BYTES} bytes; nothing was sent.")
    return content


def write_output(folder: Path, path: str, content: bytes, patterns: tuple[str, ...]) -> bool:
    """Write a file that came out of a box below a folder; return False if that is not safe.

    Nothing is written through a link, over a folder, or to a hidden name that no pattern names;
    an older file of the same name is replaced at once.

    Raises:
        InvalidInput: The path could lie outside, or the disk refuses.
    """
    *parents, name = safe_path(path).split("/")
    if not may_write(path, patterns):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for parent in parents:
                at = _below(at, parent)
            return _replace(at, name, content)
        finally:
            os.close(at)
    except OSError as error:
        raise InvalidInput(f"{folder / path} cannot be written: {error.strerror}.") from error


def _below(at: int, name: str) -> int:
    """Return a descriptor of a folder below another, made where it was not; close the other."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=at)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=at)
    finally:
        os.close(at)


def _replace(at: int, name: str, content: bytes) -> bool:
    part = f".{secrets.token_hex(8)}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666, dir_fd=at)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123
            file.write(content)
        os.rename(part, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        os.unlink(part, dir_fd=at)
        raise
    return True
