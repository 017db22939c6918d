"""The folder that a kernel may write in: opened without links, with names that stay read-only.

Other kernels can exchange folders on the way to it. So what is to be mounted is looked at before,
without following links, and compared with what is mounted then.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from angelos.adapters.host.links import open_without_links
from angelos.core.errors import Refused
from angelos.node.kernels.models import PROTECTED, RESERVED_FOLDERS, RULES

Identity = tuple[int, int]
"""Device and inode."""


@dataclass
class Placeholders:
    """What was made in folders so that no kernel can make it; removed with the last kernel."""

    uses: dict[Path, int] = field(default_factory=dict)

    def enter(self, folder: Path, *, managed: bool) -> None:
        """Have something at each reserved name of a folder while a kernel runs there.

        Args:
            folder: An absolute path.
            managed: AngelGit writes the folder, and reads its rules from `main` alone.
        """
        self.uses[folder] = self.uses.get(folder, 0) + 1
        with contextlib.suppress(OSError):  # what cannot be made by us is refused or absent
            descriptor = open_without_links(folder)
            try:
                _make(descriptor, managed=managed)
            finally:
                os.close(descriptor)

    def leave(self, folder: Path) -> None:
        """Remove what is still empty, with the last kernel of a folder."""
        self.uses[folder] -= 1
        if self.uses[folder]:
            return
        del self.uses[folder]
        with contextlib.suppress(OSError):
            descriptor = open_without_links(folder)
            try:
                _remove(descriptor)
            finally:
                os.close(descriptor)


def _make(folder: int, *, managed: bool) -> None:
    info = os.fstat(folder)
    for name in RESERVED_FOLDERS:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=folder, follow_symlinks=False)
    if not managed:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(RULES, flags, 0o644, dir_fd=folder)
            os.fchown(descriptor, info.st_uid, info.st_gid)
            os.close(descriptor)


def _remove(folder: int) -> None:
    for name in RESERVED_FOLDERS:
        with contextlib.suppress(OSError):  # it is in use by now
            os.rmdir(name, dir_fd=folder)
    info = os.stat(RULES, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(info.st_mode) and not info.st_size:  # as good as none, whoever made it
        os.unlink(RULES, dir_fd=folder)


def identities(folder: Path) -> dict[str, Identity]:
    """Return what stands at a folder and at the protected names in it, by path.

    Raises:
        Refused: A link leads there.
    """
    try:
        descriptor = open_without_links(folder)
    except OSError as error:
        raise Refused(
            f"No kernel starts in {folder}: {error.strerror}.",
            hint="A kernel's folder is reached without symbolic links.",
        ) from error
    try:
        present = {str(folder): _identity(os.fstat(descriptor))}
        for name in PROTECTED:
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISLNK(info.st_mode):
                    raise Refused(f"No kernel starts in {folder}: {name} in it is a link.")
                present[str(folder / name)] = _identity(info)
    finally:
        os.close(descriptor)
    return present


def check_mounted(process: int, expected: dict[str, Identity]) -> None:
    """Compare what a box sees with what was looked at before.

    Args:
        process: A process of the box that waits.
        expected: As `identities` returned it.

    Raises:
        Refused: Something was exchanged in between.
    """
    for path, identity in expected.items():
        try:
            info = Path(f"/proc/{process}/root{path}").lstat()
        except OSError as error:
            raise Refused(f"No kernel starts: {path} was removed meanwhile.") from error
        if _identity(info) != identity:
            raise Refused(f"No kernel starts: {path} was exchanged meanwhile.")


def _identity(info: os.stat_result) -> Identity:
    return info.st_dev, info.st_ino
