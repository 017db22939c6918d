"""Files of repositories in Jupyter's file browser: what is done there is an edit of `dev`.

    new, upload    the file becomes a document, or a blob where it is no text
    rename         it stays the same document, with its room and history
    delete         it leaves `dev`; every revision that had it still has it

Each is committed at once, under the name of whoever asked. Folders are not kept: one that is
renamed or deleted is all of its files. Hidden files, such as Jupyter's checkpoints, are no part
of `dev`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio.to_thread import run_sync
from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from angelos.angelgit.documents.canonical import canonical, is_text
from angelos.core.errors import AngelError
from angelos.core.permissions import Permission, Principal
from angelos.core.policy.access import require
from angelos.core.repository import DeleteFile, MoveFile, NewText, PutBlob, TreeEdit
from angelos.core.revision import MAX_FILE_BYTES
from jupyter_ext.kernels.contents import LinklessContents
from jupyter_ext.kernels.service import caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jupyter_ext.binding import Binding
    from jupyter_ext.live import Documents

_CHUNK = 1024 * 1024


class RepositoryPath(NamedTuple):
    """A file or folder of a repository."""

    repo: str
    path: str


class ManagedContents(LinklessContents):
    """The Contents API of a server with repositories."""

    binding: Binding | None = None

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride] - as Jupyter's own
        """Save a file; a new one in a repository becomes part of `dev`."""
        place = await self._place(path)
        chunk = model.get("chunk")
        if place is None or model.get("type") == "directory":
            return await super().save(model, path)
        if chunk in (None, 1) and not await ensure_async(self.file_exists(path)):
            caller_who_may_edit()
        elif chunk in (None, 1) or await self._files(place):
            return await super().save(model, path)
        saved = await super().save(model, path)
        if chunk in (None, -1):
            try:
                await self._add(place, path)
            except BaseException:
                await run_sync(self._remove, self._get_os_path(path))
                raise
            saved = await self.get(path, content=False)
        return saved

    async def rename_file(self, old_path: str, new_path: str) -> None:
        """Rename a file or folder; what of it is part of `dev` moves there."""
        old, new = await self._place(old_path), await self._place(new_path)
        files = await self._files(old) if old is not None else []
        if old is None or not files:
            await super().rename_file(old_path, new_path)
            if new is not None and await ensure_async(self.file_exists(new_path)):
                await self._add(new, new_path)
            return
        if new is None or new.repo != old.repo:
            raise HTTPError(409, f"{old_path} is part of {old.repo}: copy it instead.")
        if await ensure_async(self.exists(new_path)):
            raise HTTPError(409, f"There is {new_path} already.")
        moves = [MoveFile(path=file, to=new.path + file[len(old.path) :]) for file in files]
        await self._edit(old, moves, f"Rename {old.path} to {new.path}")
        for move in moves:  # a blob has no document, so nobody else writes its file
            await self._move_left(f"{old.repo}/{move.path}", f"{old.repo}/{move.to}")
        if await ensure_async(self.dir_exists(old_path)):
            await run_sync(self._prune, self._get_os_path(old_path))

    async def delete_file(self, path: str) -> None:
        """Delete a file or folder; what of it is part of `dev` leaves it."""
        place = await self._place(path)
        files = await self._files(place) if place is not None else []
        if place is not None and files:
            edits = [DeleteFile(path=file) for file in files]
            await self._edit(place, edits, f"Delete {place.path}")
        if not files or await ensure_async(self.exists(path)):
            await super().delete_file(path)

    # -- what of it is part of dev --------------------------------------------------------------

    async def _place(self, path: str) -> RepositoryPath | None:
        """Return the repository and path of a file; None for what no repository has."""
        if self.binding is None:
            return None
        inside = self.binding.workspace_path(path)
        repo, _, rest = (inside or "").partition("/")
        if not rest or any(part.startswith(".") for part in PurePosixPath(rest).parts):
            return None
        if repo not in await self._repository().repos():
            return None
        return RepositoryPath(repo, rest)

    def _repository(self) -> Documents:
        assert self.binding is not None  # noqa: S101 - `_place` has asked
        try:
            return self.binding.require().repository
        except AngelError as error:
            raise HTTPError(503, str(error)) from error

    async def _files(self, place: RepositoryPath) -> list[str]:
        return await self._repository().files_below(place.repo, place.path)

    async def _edit(self, place: RepositoryPath, edits: Sequence[TreeEdit], message: str) -> None:
        author = caller_who_may_edit().id
        try:
            await self._repository().edit_dev(place.repo, edits, author, message)
        except AngelError as error:
            raise HTTPError(error.status, str(error)) from error

    async def _add(self, place: RepositoryPath, path: str) -> None:
        """Make a file that was just written part of `dev`."""
        os_path = self._get_os_path(path)
        body = await run_sync(self._beginning, os_path)
        try:
            if body is not None and is_text(body):
                text = body.decode()
                exact = await run_sync(canonical, place.path, text)
                if exact != text:  # so that file and document are the same
                    await run_sync(self._rewrite, os_path, exact)
                edit: TreeEdit = NewText(path=place.path, text=exact)
            else:
                blob = await self._repository().put_blob(place.repo, self._pieces(os_path))
                edit = PutBlob(path=place.path, sha256=blob.sha256, size=blob.size)
        except AngelError as error:
            raise HTTPError(error.status, str(error)) from error
        await self._edit(place, [edit], f"Add {place.path}")

    # -- on disk --------------------------------------------------------------------------------

    def _beginning(self, os_path: str) -> bytes | None:
        """Return the content of a file; None where it is too long to be a document."""
        with self.open(os_path, "rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
        return body if len(body) <= MAX_FILE_BYTES else None

    async def _pieces(self, os_path: str) -> AsyncIterator[bytes]:
        with self.open(os_path, "rb") as file:
            while piece := await run_sync(file.read, _CHUNK):
                yield piece

    def _rewrite(self, os_path: str, text: str) -> None:
        with self.atomic_writing(os_path) as file:
            file.write(text)

    async def _move_left(self, old: str, new: str) -> None:
        """Move a file that nobody else has moved."""
        assert self.binding is not None  # noqa: S101 - `_place` has asked
        root = PurePosixPath(self.binding.workspace)
        before, after = (self._placed(str(root / path)) for path in (old, new))
        if before.exists() and not after.exists():
            await run_sync(self._rename, str(before), str(after))


def caller_who_may_edit() -> Principal:
    """Return who asks.

    Raises:
        HTTPError: They may not edit documents.
    """
    principal = caller.get(None)
    if principal is None:
        raise HTTPError(403, "Nobody is signed in who may edit documents.")
    try:
        require(principal, Permission.documents_edit)
    except AngelError as error:
        raise HTTPError(error.status, str(error)) from error
    return principal
