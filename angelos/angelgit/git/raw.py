"""History that only git has, as the graph of commits reads it: `changes.graph.RawHistory`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from angelos.angelgit.changes.graph import RawFile
from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.convert import tree_files
from angelos.angelgit.git.objects import DIRECTORY
from angelos.angelgit.git.parse import RawCommit, parse_commit, parse_tree
from angelos.core.errors import NotFound
from angelos.core.revision_v2 import EntryMode, TreeEntry

_KEPT = 500
_MAX_FILES = 20_000


class CachedHistory:
    """The raw commits of one repository, read from its cache."""

    def __init__(self, cache: GitCache) -> None:
        self._cache = cache
        self._commits: dict[str, RawCommit] = {}
        self._files: OrderedDict[tuple[str, str], RawFile | None] = OrderedDict()

    async def commit(self, identifier: str) -> RawCommit:
        """Return a commit; raise `NotFound`."""
        if identifier not in self._commits:
            if not self._cache.has(identifier):
                raise NotFound(f"There is no git commit {identifier[:12]}.")
            raw = await asyncio.to_thread(self._cache.read, identifier)
            if raw.kind != "commit":
                raise NotFound(f"{identifier[:12]} is no commit, but a {raw.kind}.")
            self._commits[identifier] = parse_commit(raw.body)
        return self._commits[identifier]

    async def file(self, identifier: str, path: str) -> RawFile | None:
        """Return what a commit has at a path, None if nothing that can be shown."""
        tree = (await self.commit(identifier)).tree
        key = (tree, path)
        if key not in self._files:
            self._files[key] = await asyncio.to_thread(self._find, tree, path)
            if len(self._files) > _KEPT:
                self._files.popitem(last=False)
        return self._files[key]

    async def blobs(self, identifier: str) -> dict[str, tuple[int, str]]:
        """Return path -> mode and id of everything in a commit whose name is UTF-8."""
        tree = (await self.commit(identifier)).tree
        return await asyncio.to_thread(self._blobs, tree)

    async def read(self, path: str, mode: int, blob: str) -> RawFile:
        """Return a file by its blob."""
        return await asyncio.to_thread(self._file, path, mode, blob)

    def _blobs(self, tree: str) -> dict[str, tuple[int, str]]:
        rows: dict[str, tuple[int, str]] = {}
        for name, entry in tree_files(self._cache, tree):
            try:
                rows[name.decode()] = (entry.mode, entry.id)
            except UnicodeDecodeError:
                continue
            if len(rows) > _MAX_FILES:
                break
        return rows

    def _find(self, tree: str, path: str) -> RawFile | None:
        *folders, name = path.encode().split(b"/")
        for folder in folders:
            entries = {e.name: e for e in parse_tree(self._cache.read(tree).body)}
            entry = entries.get(folder)
            if entry is None or entry.mode != DIRECTORY:
                return None
            tree = entry.id
        entries = {e.name: e for e in parse_tree(self._cache.read(tree).body)}
        entry = entries.get(name)
        if entry is None or entry.mode == DIRECTORY or not self._cache.has(entry.id):
            return None
        return self._file(path, entry.mode, entry.id)

    def _file(self, path: str, mode: int, blob: str) -> RawFile:
        body = self._cache.read(blob).body
        kind = EntryMode.file
        if mode == EntryMode.symlink:
            kind = EntryMode.symlink
        elif mode & 0o100:
            kind = EntryMode.executable
        return RawFile(TreeEntry.of(path, body, kind), body)
