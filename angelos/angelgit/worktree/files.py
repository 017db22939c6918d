"""Working files: what Jupyter opens, kept equal to the live documents of `dev`.

`workspace/<repo>/<path>`, written to a temporary file beside it that then takes its place, so
that no reader sees half a file. What stood there comes out of the exchange and is looked at: if
it is not what was expected, it is put back. Files are never followed out of the workspace, and
never read beyond the size of a document. What to do with them is decided in `outside.py`.
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

from angelos.adapters.host.rename import exchange, move
from angelos.angelgit.worktree.reconcile import DiskFile
from angelos.core.errors import Refused
from angelos.core.paths import safe_path
from angelos.core.revision import MAX_FILE_BYTES

SETTLE_S = 0.3
"""So long a changed file is left alone: whoever writes it may not be finished."""
_TEMPORARY = ".angelgit-"
_ODD = (
    (stat.S_ISLNK, "it is a symbolic link"),
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISREG, ""),
)


class WorkingFiles:
    """The files below one workspace directory."""

    def __init__(self, workspace: Path) -> None:
        """Take the directory; it is made if needed."""
        self._root = workspace
        workspace.mkdir(parents=True, exist_ok=True)
        self._leases = _leases(workspace)

    def look(self, repo: str, path: str) -> DiskFile:
        """Return what stands at a path; raise `Refused` if a link leads out of the workspace."""
        return self._look(self._place(repo, path))

    def put(self, repo: str, path: str, content: bytes, mode: int, expected: DiskFile) -> bool:
        """Make the file hold `content` if it still is as `expected`; tell whether it did."""
        target = self._place(repo, path)
        temporary = _new(target, content, mode)
        try:
            if expected.kind == "absent":
                move(temporary, target)
                return True
            exchange(temporary, target)
        except (FileExistsError, FileNotFoundError):
            _drop(temporary)
            return False
        except OSError:  # nothing has changed places
            _drop(temporary)
            raise
        if not self._is(temporary, expected.content):
            with contextlib.suppress(FileNotFoundError):
                exchange(temporary, target)
            if not self._is(temporary, content):  # somebody came between the two
                _keep(temporary, target, f"disk-{time.time_ns()}")
                return False
            _drop(temporary)
            return False
        _drop(temporary)
        return True

    def put_aside(self, repo: str, path: str, content: bytes, mode: int, mark: str) -> str:
        """Make the file hold `content`; return the path where what stood there is kept now.

        "" if nothing did. `a/b.txt` is kept as `a/b.<mark>.txt`.
        """
        target = self._place(repo, path)
        temporary = _new(target, content, mode)
        while True:
            try:
                exchange(temporary, target)
                kept = _keep(temporary, target, mark)
                return str(PurePosixPath(path).with_name(kept.name))
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    move(temporary, target)
                    return ""

    def remove(self, repo: str, path: str, contents: Container[bytes]) -> bool:
        """Remove the file if it holds one of `contents`, and the folders that it leaves empty.

        Returns False if it holds something else, which stays.
        """
        target = self._place(repo, path)
        have = self._look(target)
        if have.kind == "absent":
            return True
        if have.kind == "odd" or have.written or have.content not in contents:
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

    def _look(self, target: Path) -> DiskFile:  # noqa: PLR0911 - one for each thing it may be
        try:
            info = target.lstat()
        except FileNotFoundError:
            return DiskFile("absent", fresh=_fresh(target.parent))
        what = next((what for test, what in _ODD if test(info.st_mode)), "it is no file")
        if what:
            return DiskFile("odd", what=what)
        try:
            handle = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return DiskFile("absent", fresh=True)
        except OSError as error:
            return DiskFile("odd", what=f"it cannot be read: {error.strerror}")
        with os.fdopen(handle, "rb") as file:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                return DiskFile("odd", what="it is no file")
            written = self._leases and _open_for_writing(handle)
            content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                return DiskFile("odd", what=f"it is larger than {MAX_FILE_BYTES} bytes")
            return DiskFile("file", content, fresh=_recent(info.st_mtime), written=written)

    def _is(self, path: Path, content: bytes) -> bool:
        """Tell whether a path is a file with this content that nobody is writing."""
        have = self._look(path)
        return have.kind == "file" and have.content == content and not have.written

    def _place(self, repo: str, path: str) -> Path:
        # Code in notebooks runs in this directory and may have put a link in the way.
        target = self._root / repo / safe_path(path)
        if not target.parent.resolve().is_relative_to(self._root.resolve() / repo):
            raise Refused(
                f"A symbolic link leads from {repo}/{path} out of the workspace.",
                hint="Remove the link; the repository itself is untouched.",
            )
        return target


def _leases(folder: Path) -> bool:
    """Tell whether a file that nobody writes can be leased here (on NFS it cannot)."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    os.close(handle)
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            return not _open_for_writing(file.fileno())
    finally:
        _drop(Path(name))


def _open_for_writing(handle: int) -> bool:
    """Tell whether anybody has a file open for writing: then there is no read lease on it.

    The lease is given back at once. Whoever opens the file in that moment waits for it, and we
    are sent a signal, of a kind that does nothing. False where this cannot be asked.
    """
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _fresh(folder: Path) -> bool:
    try:
        return _recent(folder.stat().st_mtime)
    except OSError:
        return False


def _recent(modified: float) -> bool:
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


def _keep(what: Path, target: Path, mark: str) -> Path:
    """Give something a free name beside the target and return it."""
    number = 1
    while True:  # a document's name has at most 200 bytes, so there is room for the mark
        name = f"{target.stem}.{mark}" + (f"-{number}" if number > 1 else "") + target.suffix
        kept = target.with_name(name)
        try:
            move(what, kept)
        except FileExistsError:
            number += 1
        else:
            return kept


def _drop(temporary: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
