"""Working files: the files that Jupyter opens, kept equal to the live documents of `dev`.

A file `workspace/<repo>/<path>` is written as a temporary file beside it, which then takes its
place, so that no reader sees half a file. The two are exchanged (renameat2, RENAME_EXCHANGE), so
the file that was there is still there to be checked: if it is not the expected one, it is put
back. Links are not followed out of the workspace, and nothing is read beyond the size of a
document. `reconcile.py` decides what to do with a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import tempfile
import time
from collections.abc import Container
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from angelos.adapters.host.rename import exchange, move
from angelos.angelgit.worktree.reconcile import DiskFile, FileKind
from angelos.core.errors import Refused
from angelos.core.paths import safe_path
from angelos.core.revision import MAX_FILE_BYTES

SETTLE_S = 0.3
"""How long a changed file is left alone, because its writer may not be finished."""
_TEMPORARY = ".angelgit-"


class WorkingFiles:
    """The files below one workspace directory."""

    def __init__(self, workspace: Path) -> None:
        self._root = workspace
        workspace.mkdir(parents=True, exist_ok=True)
        self._leases = _leases(workspace)

    def look(self, repo: str, path: str) -> DiskFile:
        """Return what is at a path; raise `Refused` if a link leads out of the workspace."""
        return self._look(self._place(repo, path))

    def put(self, repo: str, path: str, content: bytes, mode: int, expected: DiskFile) -> bool:
        """Write `content` if the file is still as `expected`; return whether it was."""
        target = self._place(repo, path)
        temporary = _new(target, content, mode)
        try:
            if expected.kind is FileKind.absent:
                move(temporary, target)
                return True
            exchange(temporary, target)
        except (FileExistsError, FileNotFoundError):
            _drop(temporary)
            return False
        except OSError:  # the exchange did not happen
            _drop(temporary)
            raise
        # `temporary` is now the file that was at the path in the moment of the exchange. If
        # somebody wrote it since the look, it goes back.
        if not self._is(temporary, expected.content):
            with contextlib.suppress(FileNotFoundError):
                exchange(temporary, target)
            if not self._is(temporary, content):  # written between the two exchanges
                _keep(temporary, target, f"disk-{time.time_ns()}")
                return False
            _drop(temporary)
            return False
        _drop(temporary)
        return True

    def put_aside(self, repo: str, path: str, content: bytes, mode: int, mark: str) -> str:
        """Write `content`; return the path where the file that was there is kept now.

        `a/b.txt` is kept as `a/b.<mark>.txt`; the path is "" if there was no file.
        """
        target = self._place(repo, path)
        temporary = _new(target, content, mode)
        while True:
            try:
                exchange(temporary, target)
                copy = _keep(temporary, target, mark)
                return str(PurePosixPath(path).with_name(copy.name))
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    move(temporary, target)
                    return ""

    def remove(self, repo: str, path: str, contents: Container[bytes]) -> bool:
        """Remove the file if it holds one of `contents`, and the folders that are empty then.

        Returns:
            False if the file holds something else; it stays.
        """
        target = self._place(repo, path)
        disk = self._look(target)
        if disk.kind is FileKind.absent:
            return True
        if disk.kind is FileKind.unreadable or disk.being_written or disk.content not in contents:
            return False
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == self._root / repo:
                break
            try:
                folder.rmdir()
            except OSError:
                break
        return True

    def _look(self, target: Path) -> DiskFile:
        try:
            mode = target.lstat().st_mode
        except FileNotFoundError:
            return DiskFile(FileKind.absent, recent=_recently_changed(target.parent))
        if not stat.S_ISREG(mode):
            return _unreadable(_kind_of(mode))
        try:
            # NONBLOCK: a pipe that took the file's place since would block the open.
            handle = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return DiskFile(FileKind.absent, recent=True)
        except OSError as error:
            return _unreadable(f"it cannot be read: {error.strerror}")
        with os.fdopen(handle, "rb") as file:
            return self._read(file)

    def _read(self, file: BinaryIO) -> DiskFile:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            return _unreadable(_kind_of(info.st_mode))
        being_written = self._leases and _open_for_writing(file.fileno())
        content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            return _unreadable(f"it is larger than {MAX_FILE_BYTES} bytes")
        recent = _is_recent(info.st_mtime)
        return DiskFile(FileKind.file, content, recent=recent, being_written=being_written)

    def _is(self, path: Path, content: bytes) -> bool:
        """Return whether a path is a file with this content that nobody is writing."""
        disk = self._look(path)
        return disk.kind is FileKind.file and disk.content == content and not disk.being_written

    def _place(self, repo: str, path: str) -> Path:
        # Code in notebooks runs in this directory and may have made a folder a link.
        target = self._root / repo / safe_path(path)
        if not target.parent.resolve().is_relative_to(self._root.resolve() / repo):
            raise Refused(
                f"A symbolic link leads from {repo}/{path} out of the workspace.",
                hint="Remove the link; the repository itself is untouched.",
            )
        return target


def _unreadable(reason: str) -> DiskFile:
    return DiskFile(FileKind.unreadable, reason=reason)


def _kind_of(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "it is a symbolic link"
    return "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file"


def _leases(folder: Path) -> bool:
    """Return whether the file system grants leases (NFS does not)."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    os.close(handle)
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            return not _open_for_writing(file.fileno())
    finally:
        _drop(Path(name))


def _open_for_writing(handle: int) -> bool:
    """Return whether a process has a file open for writing: then no read lease is granted.

    The lease is released at once. A process that opens the file in this moment waits for that,
    and we receive a signal: SIGURG, which is ignored by default. Source: fcntl(2), "Leases".
    """
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _recently_changed(folder: Path) -> bool:
    try:
        return _is_recent(folder.stat().st_mtime)
    except OSError:
        return False


def _is_recent(modified: float) -> bool:
    return abs(time.time() - modified) < SETTLE_S


def _new(target: Path, content: bytes, mode: int) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(mode)
    except OSError:
        _drop(temporary)
        raise
    return temporary


def _keep(source: Path, target: Path, mark: str) -> Path:
    """Move a file to a free name beside the target and return the name."""
    number = 1
    while True:  # a document's name has at most 200 bytes, which leaves room for the mark
        name = f"{target.stem}.{mark}" + (f"-{number}" if number > 1 else "") + target.suffix
        copy = target.with_name(name)
        try:
            move(source, copy)
        except FileExistsError:
            number += 1
        else:
            return copy


def _drop(temporary: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
