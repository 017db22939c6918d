"""Revisions as git commits: each has one, made when it is first asked for and recorded then.

    async with stores.begin() as store:
        commit = await Derivation(store, cache, key, "study").commit(revision)

Trees and blobs are derived from directory objects and contents; only their ids are recorded, so
that a commit of one file reads the directories above it and nothing else. A commit that came from
git stands for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping

from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.objects import (
    DIRECTORY,
    GitEntry,
    GitObject,
    commit_body,
    git_object,
    tree_body,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import EMPTY
from angelos.core.errors import Tampered
from angelos.core.ids import Revision
from angelos.core.revision_v2 import (
    DirectoryEntry,
    DirectoryFan,
    EntryMode,
    TreeEntry,
    decode_directory,
)
from angelos.core.signing import SigningKey

_BATCH_BYTES = 16_000_000
_BATCH_OBJECTS = 10_000


class Derivation:
    """Makes the git objects of one repository's revisions, in one transaction."""

    def __init__(self, store: Store, cache: GitCache, key: SigningKey, repo: str) -> None:
        self._store = store
        self._table = store.git
        self._cache = cache
        self._key = key
        self._repo = repo
        self._commits: dict[str, str] = {}
        """Revision -> git commit, of those that are in the cache or wait to be written there."""
        self._waiting: dict[str, GitObject] = {}
        self._size = 0
        self._ids: dict[str, str] = {}
        """Hash of a content or directory -> id of the git object, to be recorded."""
        self._rows: list[tuple[Revision, str, bytes | None]] = []

    async def commit(self, revision: Revision) -> str:
        """Return the id of a revision's git commit, which is in the cache with all below it."""
        stack = [revision]
        while stack:
            current = stack[-1]
            missing = () if current in self._commits else await self._missing(current)
            stack += missing
            if not missing:
                stack.pop()
        return self._commits[revision]

    async def flush(self) -> None:
        """Write what waits into the cache, and record it."""
        if self._waiting:
            await asyncio.to_thread(self._cache.add, list(self._waiting.values()))
        await self._table.add_ids(self._ids)
        await self._table.add_commits(self._repo, self._rows)
        self._waiting, self._ids, self._rows, self._size = {}, {}, [], 0

    async def _missing(self, revision: Revision) -> list[Revision]:
        """Make a revision's commit, or return the parents that have none yet."""
        row = await self._table.commit(self._repo, revision)
        if row is not None and self._has(row.id):
            self._commits[revision] = row.id
            return []
        commit = await self._store.commit(self._repo, revision)
        missing = [parent for parent in commit.parents if parent not in self._commits]
        if missing:
            return missing
        tree = await self._tree(commit.tree)
        if row is None:
            parents = [self._commits[parent] for parent in commit.parents]
            body = commit_body(self._key, commit, revision, tree, parents)
            made = git_object("commit", body)
            self._rows.append((revision, made.id, made.body))
        elif row.body is None:
            raise Tampered(f"The git commit {row.id[:12]} of {self._repo} is missing.")
        else:
            made = git_object("commit", row.body)
        self._commits[revision] = made.id
        await self._add(made)
        return []

    async def _tree(self, digest: str) -> str:
        """Return the id of a directory's tree."""
        ready = await self._ready([digest])
        if digest in ready:
            return ready[digest]
        entries = await self._entries(digest)
        ready = await self._ready({entry.hash for entry in entries})
        files = [e for e in entries if e.mode is not EntryMode.directory and e.hash not in ready]
        for part in _parts({e.hash: e for e in files}.values()):
            rows = [TreeEntry(e.name, e.mode, e.hash, e.size) for e in part]
            bodies = await self._store.bodies(rows)
            for content, blob in (await asyncio.to_thread(_blobs, bodies)).items():
                ready[content] = blob.id
                await self._add(blob, content)
        for entry in entries:
            if entry.mode is EntryMode.directory:
                ready[entry.hash] = await self._tree(entry.hash)
        names = [GitEntry(_mode(e.mode), e.name.encode(), ready[e.hash]) for e in entries]
        made = git_object("tree", tree_body(names))
        await self._add(made, digest)
        return made.id

    async def _entries(self, digest: str) -> list[DirectoryEntry]:
        """Return the names of a directory."""
        body = EMPTY.get(digest) or await self._store.content(digest)
        directory = decode_directory(body)
        if not isinstance(directory, DirectoryFan):
            return list(directory.entries)
        slots = [slot.hash for slot in directory.slots if slot is not None]
        return [entry for slot in slots for entry in await self._entries(slot)]

    async def _ready(self, hashes: Collection[str]) -> dict[str, str]:
        """Return hash -> id of the objects that are in the cache, or wait to be written there."""
        own = {digest: self._ids[digest] for digest in hashes if digest in self._ids}
        stored = await self._table.ids([digest for digest in hashes if digest not in own])
        return own | {digest: i for digest, i in stored.items() if self._has(i)}

    def _has(self, identifier: str) -> bool:
        return identifier in self._waiting or self._cache.has(identifier)

    async def _add(self, made: GitObject, digest: str | None = None) -> None:
        if digest is not None:
            self._ids[digest] = made.id
        self._waiting[made.id] = made
        self._size += len(made.body)
        if self._size > _BATCH_BYTES or len(self._waiting) > _BATCH_OBJECTS:
            await self.flush()


def _blobs(bodies: Mapping[str, bytes]) -> dict[str, GitObject]:
    return {digest: git_object("blob", body) for digest, body in bodies.items()}


def _parts(entries: Iterable[DirectoryEntry]) -> Iterator[list[DirectoryEntry]]:
    """Yield entries in parts that fit into memory."""
    part: list[DirectoryEntry] = []
    size = 0
    for entry in entries:
        if part and size + entry.size > _BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry.size
    if part:
        yield part


def _mode(mode: EntryMode) -> int:
    return DIRECTORY if mode is EntryMode.directory else int(mode)
