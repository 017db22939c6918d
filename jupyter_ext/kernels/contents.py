"""Jupyter's files, without following links: code in a box makes links in folders of the server.

The server reads and writes with its user's rights, and often as root. A link that a cell makes,
`study/x -> /root/.ssh/id_ed25519`, would be read and written for whoever asks for `study/x`. So
each part of a path below the root folder is opened from the one before, as a folder or file and
never as a link; a link that is made between a check and its use leads nowhere either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from base64 import decodebytes
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from jupyter_core.paths import is_hidden
from jupyter_server.base.handlers import AuthenticatedFileHandler
from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.fileio import FileManagerMixin
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError
from traitlets import default

from angelos.adapters.host.links import open_without_links

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_LINK = "is a symbolic link, or behind one; links are not followed here."
_MODE = 0o666
_READ = os.O_RDONLY | os.O_NONBLOCK  # a pipe would block the server
_CHUNK = 256 * 1024


def has_link(root: str, os_path: str) -> bool:
    """Return whether a part of a path below its root is a link, as far as the path exists."""
    root = os.path.realpath(root)
    relative = Path(os.path.normpath(os_path)).relative_to(root).parts
    return any(Path(root, *relative[:end]).is_symlink() for end in range(1, len(relative) + 1))


class LinklessFiles(FileManagerMixin):
    """Opens files below its root folder without following links."""

    root_dir: Any

    def _get_os_path(self, path: str) -> str:
        """Return a path on disk.

        Raises:
            HTTPError: A link leads there.
        """
        os_path = super()._get_os_path(path)
        if has_link(self.root_dir, str(self._placed(os_path))):
            raise HTTPError(404, f"{path} {_LINK}")
        return os_path

    def _placed(self, os_path: str) -> Path:
        """Return a path below the real root folder: to that, links of the operator may lead."""
        root, real = Path(os.path.normpath(self.root_dir)), Path(os.path.realpath(self.root_dir))
        path = Path(os.path.normpath(os_path))
        return path if path.is_relative_to(real) else real / path.relative_to(root)

    def _open(self, os_path: str, flags: int, mode: int = _MODE) -> int:
        try:
            return open_without_links(self._placed(os_path), flags, mode)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise HTTPError(404, f"{Path(os_path).name} {_LINK}") from error
            raise

    @contextlib.contextmanager
    def open(self, os_path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Open a file as `io.open` does."""

        def opener(path: str, flags: int) -> int:
            return self._open(path, flags | os.O_NONBLOCK)

        with self.perm_to_403(os_path), open(os_path, *args, opener=opener, **kwargs) as file:
            yield file

    @contextlib.contextmanager
    def atomic_writing(
        self,
        os_path: str,
        text: bool = True,  # noqa: FBT001, FBT002 - as in Jupyter's class
        encoding: str = "utf-8",
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Write a file whole or not at all; it keeps its mode and its owner."""
        path = self._placed(os_path)
        with self.perm_to_403(os_path), self._folder(str(path.parent)) as folder:
            draft = f".{path.name[:200]}.{secrets.token_hex(4)}~"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(draft, flags, _MODE, dir_fd=folder)
            try:
                options = {"encoding": encoding, "newline": "\n", **kwargs} if text else kwargs
                with os.fdopen(descriptor, "w" if text else "wb", **options) as file:
                    _keep_mode(path.name, folder, descriptor)
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                os.rename(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=folder)
                raise

    @contextlib.contextmanager
    def _folder(self, os_path: str) -> Generator[int]:
        descriptor = self._open(os_path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _copy_file(self, src: str, dest: str) -> None:
        with self.open(src, "rb") as source, self.atomic_writing(dest, text=False) as target:
            shutil.copyfileobj(source, target, _CHUNK)

    async def _copy(self, src: str, dest: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as Jupyter's own asynchronous class
        """Copy a file."""
        await run_sync(self._copy_file, src, dest)


def to_trash(place: Path, folder: int) -> bool:
    """Move a file or folder into the trash of this user (freedesktop.org's Trash specification).

    Args:
        place: Where it is.
        folder: The descriptor of the folder that it is in; no other path of it is used.

    Returns:
        Whether it is there; False where the trash is on another file system.
    """
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "Trash"
    for name in ("files", "info"):
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{place.stem[:150]}.{secrets.token_hex(4)}{place.suffix[:50]}"
    info = home / "info" / f"{name}.trashinfo"
    now = datetime.now(UTC).astimezone()
    text = f"[Trash Info]\nPath={quote(str(place))}\nDeletionDate={now:%Y-%m-%dT%H:%M:%S}\n"
    with info.open("x") as file:
        file.write(text)
    try:
        os.rename(place.name, home / "files" / name, src_dir_fd=folder)
    except OSError as error:
        info.unlink()
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _keep_mode(name: str, folder: int, descriptor: int) -> None:
    """Give a new file the mode and owner of the one that it replaces, if there is one.

    Raises:
        HTTPError: There is something else than a file.
    """
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode):
        raise HTTPError(404, f"{name} is no file, or {_LINK}")
    with contextlib.suppress(PermissionError):  # it is another user's: ours takes its place
        os.fchown(descriptor, info.st_uid, info.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(info.st_mode) & 0o777)


class LinklessCheckpoints(LinklessFiles, AsyncFileCheckpoints):
    """Checkpoints lie beside their files, where code in a box can make links, too."""


class LinklessFileHandler(AuthenticatedFileHandler):
    """Sends files (`/files/...`)."""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """Return the path.

        Raises:
            HTTPError: A link leads there.
        """
        if has_link(root, absolute_path):
            raise HTTPError(404, f"This file {_LINK}")
        return super().validate_absolute_path(root, absolute_path)

    @classmethod
    def get_content(
        cls, abspath: str, start: int | None = None, end: int | None = None
    ) -> Generator[bytes]:
        """Yield the bytes of a file from `start` to `end`."""
        with os.fdopen(open_without_links(Path(abspath), _READ), "rb") as file:
            file.seek(start or 0)
            left = end - (start or 0) if end is not None else None
            while chunk := file.read(_CHUNK if left is None else min(left, _CHUNK)):
                if left is not None:
                    left -= len(chunk)
                yield chunk


class LinklessContents(LinklessFiles, AsyncLargeFileManager):
    """The Contents API of this server."""

    @default("checkpoints_class")
    def _checkpoints_class_default(self) -> type[AsyncFileCheckpoints]:
        return LinklessCheckpoints

    @default("files_handler_class")
    def _files_handler_class_default(self) -> type[AuthenticatedFileHandler]:
        return LinklessFileHandler

    @default("files_handler_params")
    def _files_handler_params_default(self) -> dict[str, str]:
        return {"path": os.path.realpath(self.root_dir)}

    async def _copy_dir(
        self, from_path: str, to_path_original: str, to_name: str, to_path: str
    ) -> dict[str, Any]:
        """Refuse to copy a folder: a link in it would be followed with the server's rights."""
        del to_path_original, to_name, to_path
        raise HTTPError(400, f"{from_path} is a folder; folders are not copied here, files are.")

    async def rename_file(self, old_path: str, new_path: str) -> None:
        """Rename a file or folder within its two folders, whatever they are exchanged for."""
        old, new = (self._get_os_path(path.strip("/")) for path in (old_path, new_path))
        if old == new:
            return
        if not self.allow_hidden and any(is_hidden(path, self.root_dir) for path in (old, new)):
            raise HTTPError(400, f"{old_path} or {new_path} is hidden, and is not renamed.")
        await run_sync(self._rename, old, new)

    def _rename(self, old: str, new: str) -> None:
        source, target = self._placed(old), self._placed(new)
        with (
            self.perm_to_403(old),
            self._folder(str(source.parent)) as before,
            self._folder(str(target.parent)) as after,
        ):
            try:
                same = os.stat(source.name, dir_fd=before, follow_symlinks=False)
                with contextlib.suppress(FileNotFoundError):
                    taken = os.stat(target.name, dir_fd=after, follow_symlinks=False)
                    if not os.path.samestat(same, taken):
                        raise HTTPError(409, f"File already exists: {target.name}")
                os.rename(source.name, target.name, src_dir_fd=before, dst_dir_fd=after)
            except FileNotFoundError as error:
                raise HTTPError(404, f"{source.name} does not exist.") from error

    async def delete_file(self, path: str) -> None:
        """Delete a file or folder, or put it into the trash, by its own folder's descriptor."""
        os_path = self._get_os_path(path.strip("/"))
        if not self.allow_hidden and is_hidden(os_path, self.root_dir):
            raise HTTPError(400, f"{path} is hidden, and is not deleted.")
        await run_sync(self._delete, os_path)

    def _delete(self, os_path: str) -> None:
        place = self._placed(os_path)
        with self.perm_to_403(os_path), self._folder(str(place.parent)) as folder:
            try:
                info = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError as error:
                raise HTTPError(404, f"{place.name} does not exist.") from error
            is_folder = stat.S_ISDIR(info.st_mode)
            if self.delete_to_trash and to_trash(place, folder):
                return
            if is_folder and not self.always_delete_dir and self._entries(os_path):
                raise HTTPError(400, f"{place.name} is not empty.")
            if is_folder:
                shutil.rmtree(place.name, dir_fd=folder)  # which follows no links either
            else:
                os.unlink(place.name, dir_fd=folder)

    def _remove(self, os_path: str) -> None:
        """Remove a file for good, if it is there."""
        place = self._placed(os_path)
        with self._folder(str(place.parent)) as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(place.name, dir_fd=folder)

    def _entries(self, os_path: str) -> set[str]:
        """Return what is in a folder beside checkpoints."""
        descriptor = self._open(os_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = os.listdir(descriptor)  # noqa: PTH208 - a descriptor has no path
            return set(names) - {".ipynb_checkpoints"}
        finally:
            os.close(descriptor)

    def _prune(self, os_path: str) -> None:
        """Remove a folder in which, and below which, there are only checkpoints."""
        for name in self._entries(os_path):
            below = Path(os_path, name)
            if below.is_symlink() or not below.is_dir():
                return
            self._prune(str(below))
        if not self._entries(os_path):
            place = self._placed(os_path)
            with self._folder(str(place.parent)) as folder:
                shutil.rmtree(place.name, dir_fd=folder)

    async def _save_directory(self, os_path: str, model: Any, path: str = "") -> None:
        """Make a folder."""
        del model
        if not self.allow_hidden and is_hidden(os_path, self.root_dir):
            raise HTTPError(400, f"{path} is hidden, and is not made.")
        await run_sync(self._make, os_path)

    def _make(self, os_path: str) -> None:
        place = self._placed(os_path)
        with self.perm_to_403(os_path), self._folder(str(place.parent)) as folder:
            try:
                os.mkdir(place.name, dir_fd=folder)
            except FileExistsError as error:
                info = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    raise HTTPError(400, f"{place.name} is no folder.") from error

    async def _save_large_file(self, os_path: str, content: str, format: str) -> None:  # noqa: A002
        """Append a part of an upload."""
        if format not in {"text", "base64"}:
            raise HTTPError(400, "An upload is text or base64.")
        try:
            part = content.encode() if format == "text" else decodebytes(content.encode("ascii"))
        except ValueError as error:
            raise HTTPError(400, "The part of the upload cannot be decoded.") from error
        with self.open(os_path, "ab") as file:
            file.write(part)
