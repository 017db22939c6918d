"""Working files: what Jupyter opens, kept equal to the live documents of `dev`.

`workspace/<repo>/<path>`, written to a temporary file beside it and renamed over, so that no
reader sees half a file. They are copies: the log is the truth, a file never seeds a document.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from angelos.angelgit.models import sha256
from angelos.core.errors import Refused
from angelos.core.paths import safe_path

log = logging.getLogger(__name__)
_TEMPORARY = ".angelgit-"


class WorkingFiles:
    """The files below one workspace directory."""

    def __init__(self, workspace: Path) -> None:
        """Take the directory; it is made if needed."""
        self._root = workspace
        workspace.mkdir(parents=True, exist_ok=True)

    def write(self, repo: str, path: str, content: bytes, mode: int) -> None:
        """Make the file hold `content`; one that does already is left alone."""
        target = self._place(repo, path)
        if not target.is_symlink() and _read(target) == content:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(mode)
            Path(temporary).replace(target)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise

    def remove(self, repo: str, path: str, content: str) -> None:
        """Remove the file, if its SHA-256 is `content`, and the folders that it leaves empty."""
        target = self._place(repo, path)
        have = None if target.is_symlink() else _read(target)
        if have is None or sha256(have) != content:
            return
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == self._root / repo:
                return
            try:
                folder.rmdir()
            except OSError:
                return

    def _place(self, repo: str, path: str) -> Path:
        # Code in notebooks runs in this directory and may have put a link in the way.
        target = self._root / repo / safe_path(path)
        if not target.parent.resolve().is_relative_to(self._root.resolve() / repo):
            raise Refused(
                f"A symbolic link leads from {repo}/{path} out of the workspace.",
                hint="Remove the link; the repository itself is untouched.",
            )
        return target


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
