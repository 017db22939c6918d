"""Puts the inputs of a task into a folder that its box reads, and keeps contents for the next.

    <dir>/contents/<sha256>        what was fetched, checked at every use, the oldest forgotten
    <dir>/contents/.task-XXXX/     one task's inputs, removed after it

The folder holds copies and no links: what a box reads must not change under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import Tampered, TooLarge
from angelos.core.ids import TaskId
from angelos.core.task_files import TOTAL_BYTES, InputFile, check_inputs
from angelos.node.files.models import TaskFiles

_KEEP_BYTES = 512_000_000
_TASK = ".task-"


class Inputs:
    """The contents that this node has fetched."""

    def __init__(self, directory: Path, files: TaskFiles, keep_bytes: int = _KEEP_BYTES) -> None:
        """Keep about `keep_bytes` in `directory`."""
        self._root = directory / "contents"
        self._files = files
        self._keep = keep_bytes

    def sweep(self) -> None:
        """Remove what a killed node has left of its tasks."""
        for path in self._root.glob(".*"):
            remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def use(
        self,
        task: TaskId,
        inputs: tuple[InputFile, ...],
        code: Mapping[str, bytes] = MappingProxyType({}),
    ) -> AsyncIterator[Path]:
        """Yield a folder that holds the inputs of a task, and its code as a file.

        Raises:
            Tampered: What came has another hash.
            TooLarge: All of them together are too large.
            NotFound: One is forgotten.
            Unavailable: The server cannot be reached, or the disk is full.
        """
        check_inputs(inputs)
        await asyncio.to_thread(self._root.mkdir, 0o700, True, True)  # noqa: FBT003
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, None, _TASK, self._root))
        try:
            total = 0
            for name, content in code.items():
                main = InputFile(path=name, sha256="0" * 64)
                check_inputs((*inputs, main))
                await asyncio.to_thread(_write, folder, main, content)
            for file in inputs:
                content = await self._content(task, file.sha256)
                total += len(content)
                if total > TOTAL_BYTES:
                    raise TooLarge(f"The inputs have more than {TOTAL_BYTES} bytes.")
                await asyncio.to_thread(_write, folder, file, content)
            await asyncio.to_thread(_open_up, folder)
            yield folder
        finally:
            await asyncio.to_thread(remove_tree, folder)
            with contextlib.suppress(OSError):  # tidying takes no result away
                await asyncio.to_thread(self._forget)

    async def _content(self, task: TaskId, digest: str) -> bytes:
        path = self._root / digest
        content = await asyncio.to_thread(_verified, path, digest)
        if content is None:
            content = await self._files.fetch(task, digest)
            if hashlib.sha256(content).hexdigest() != digest:
                raise Tampered(f"The input {digest[:12]} came with another content.")
            await asyncio.to_thread(_store, path, content)
        return content

    def _forget(self) -> None:
        """Remove the contents that were not used for the longest time."""
        infos = []
        for path in self._root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another task's, just renamed or removed
                if not path.name.startswith(".") and path.is_file():
                    infos.append((path.stat(), path))
        total = sum(info.st_size for info, _ in infos)
        for info, path in sorted(infos, key=lambda pair: pair[0].st_mtime):
            if total <= self._keep:
                return
            path.unlink(missing_ok=True)
            total -= info.st_size


def _verified(path: Path, digest: str) -> bytes | None:
    """Return a content that is here and has its hash, and note that it was used."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        os.utime(path)
    except OSError:
        return None
    return content


def _store(path: Path, content: bytes) -> None:
    part = path.with_name(f".part-{secrets.token_hex(8)}")
    part.write_bytes(content)
    part.replace(path)


def _write(folder: Path, file: InputFile, content: bytes) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o555 if file.executable else 0o444)


def _open_up(folder: Path) -> None:
    """Let every user read the folders, whatever the umask is; the node's own folder is closed."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o755)
