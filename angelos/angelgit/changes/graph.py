"""The graph of commits, as history and blame walk it: revisions, and below them what only git has.

graph = CommitGraph(store, "study", raw)
commit = await graph.commit(head)
await graph.entry(head, "a.txt"), await graph.moved_from(parent, head, "a.txt")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from angelos.angelgit.changes import sides
from angelos.angelgit.changes.mainline import with_moves
from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.merge.files import FileContent, content_of
from angelos.angelgit.storage.models import FileChange
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import EMPTY_ROOT
from angelos.core.history import CommitSummary
from angelos.core.ids import Revision, is_revision
from angelos.core.revision_v2 import CommitObject, TreeEntry


class RawFile(NamedTuple):
    """A file that only git has."""

    entry: TreeEntry
    body: bytes


class RawHistoryCommit(Protocol):
    """A commit that only git has."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of its parents."""
        ...

    @property
    def authors(self) -> tuple[str, ...]:
        """As `name <email>`."""
        ...

    @property
    def message(self) -> str:
        """Its message."""
        ...

    @property
    def at(self) -> int:
        """Unix milliseconds."""
        ...


class RawHistory(Protocol):
    """Commits and files that only git has."""

    async def commit(self, identifier: str) -> RawHistoryCommit:
        """Return a commit; raise `NotFound`."""
        ...

    async def file(self, identifier: str, path: str) -> RawFile | None:
        """Return what a commit has at a path, None if nothing."""
        ...

    async def blobs(self, identifier: str) -> dict[str, tuple[int, str]]:
        """Return path -> mode and id of the files of a commit."""
        ...

    async def read(self, path: str, mode: int, blob: str) -> RawFile:
        """Return a file by its blob."""
        ...


class CommitGraph:
    """The commits of one repository, read in one transaction."""

    def __init__(self, store: Store, repo: str, raw: RawHistory) -> None:
        self._store = store
        self._repo = repo
        self._raw = raw
        self._commits: dict[str, CommitObject] = {}
        self._bodies: dict[str, bytes] = {}
        """Hash -> content of what only git has."""

    async def commit(self, commit: str) -> CommitSummary:
        """Return a commit; raise `NotFound`."""
        if not is_revision(commit):
            return await self._from_git(commit, commit)
        native = await self._native(commit)
        if native.git:
            return await self._from_git(commit, native.git)
        row = await self._store.git.commit(self._repo, Revision(commit))
        return CommitSummary(
            id=commit,
            git=row.id if row else "",
            parents=native.parents,
            authors=native.authors,
            message=native.message,
            at=native.at,
            trailers=native.trailers,
        )

    async def entry(self, commit: str, path: str) -> TreeEntry | None:
        """Return what a commit has at a path, None if nothing."""
        if is_revision(commit):
            native = await self._native(commit)
            return (await self._store.entries(native.tree, [path])).get(path)
        file = await self._raw.file(commit, path)
        if file is None:
            return None
        self._bodies[file.entry.sha256] = file.body
        return file.entry

    async def content(self, entry: TreeEntry) -> bytes:
        """Return the content of a file that this graph has named."""
        if entry.sha256 in self._bodies:
            return self._bodies[entry.sha256]
        return (await self._store.bodies([entry]))[entry.sha256]

    async def changes(self, before: str | None, after: str) -> list[FileChange]:
        """Return how the trees of two commits differ, with files that moved unchanged."""
        if is_revision(after) and (before is None or is_revision(before)):
            old = EMPTY_ROOT if before is None else (await self._native(before)).tree
            rows = await self._store.differences(old, (await self._native(after)).tree)
        else:
            rows = await self._raw_differences(before, after)
        return with_moves(rows)

    async def changed_files(self, changes: Sequence[FileChange]) -> list[ChangedFile]:
        """Return changes with their contents."""
        entries = [e for c in changes for e in (c.before, c.after) if e]
        raw = {
            e.sha256: content_of(e.mode, self._bodies[e.sha256])
            for e in entries
            if e.sha256 in self._bodies
        }
        stored = {e.sha256: e for e in entries if e.sha256 not in raw}
        native = await sides.file_contents(self._store, stored)

        def content(entry: TreeEntry | None) -> FileContent | None:
            if entry is None:
                return None
            file = raw[entry.sha256] if entry.sha256 in raw else native[entry.sha256]
            return file._replace(mode=entry.mode)

        return [ChangedFile(c.path, c.to, content(c.before), content(c.after)) for c in changes]

    async def moved_from(self, parent: str, commit: str, path: str) -> str | None:
        """Return where in a parent the file was that a commit has at a path, None: nowhere."""
        for change in await self.changes(parent, commit):
            if change.to == path:
                return change.path
        return None

    async def _native(self, commit: str) -> CommitObject:
        if commit not in self._commits:
            self._commits[commit] = await self._store.commit(self._repo, Revision(commit))
        return self._commits[commit]

    async def _from_git(self, commit: str, git: str) -> CommitSummary:
        raw = await self._raw.commit(git)
        parents = [await self._store.git.revision(self._repo, p) or p for p in raw.parents]
        return CommitSummary(
            id=commit,
            git=git,
            parents=tuple(parents),
            authors=raw.authors,
            message=raw.message,
            at=raw.at,
        )

    async def _raw_differences(
        self, before: str | None, after: str
    ) -> list[tuple[str, TreeEntry | None, TreeEntry | None]]:
        """Return how two commits differ of which git alone has one."""
        old = {} if before is None else await self._blobs(before)
        new = await self._blobs(after)
        rows: list[tuple[str, TreeEntry | None, TreeEntry | None]] = []
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) != new.get(path):
                pair = [await self._raw_entry(path, side.get(path)) for side in (old, new)]
                if pair[0] != pair[1]:
                    rows.append((path, pair[0], pair[1]))
        return rows

    async def _blobs(self, commit: str) -> dict[str, tuple[int, str] | TreeEntry]:
        """Return path -> what stands for the file's content."""
        git = commit
        if is_revision(commit):
            git = (await self._native(commit)).git
        if git:
            return dict(await self._raw.blobs(git))
        return {
            entry.path: entry for entry in await self._store.tree((await self._native(commit)).tree)
        }

    async def _raw_entry(
        self, path: str, item: tuple[int, str] | TreeEntry | None
    ) -> TreeEntry | None:
        if item is None or isinstance(item, TreeEntry):
            return item
        file = await self._raw.read(path, *item)
        self._bodies[file.entry.sha256] = file.body
        return file.entry
