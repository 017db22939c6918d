"""The graph of commits, as history and blame walk it.

graph = CommitGraph(store, "study")
commit = await graph.commit(head)
await graph.entry(head, "a.txt"), await graph.moved_from(parent, head, "a.txt")
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.angelgit.changes.mainline import with_moves
from angelos.angelgit.storage.models import FileChange
from angelos.angelgit.storage.store import Store
from angelos.core.history import CommitSummary
from angelos.core.ids import Revision
from angelos.core.revision_v2 import CommitObject, TreeEntry


class CommitGraph:
    """The commits of one repository, read in one transaction."""

    def __init__(self, store: Store, repo: str) -> None:
        self._store = store
        self._repo = repo
        self._commits: dict[str, CommitObject] = {}

    async def commit(self, commit: str) -> CommitSummary:
        """Return a commit; raise `NotFound`."""
        native = await self._native(commit)
        return summary_of(commit, native)

    async def entry(self, commit: str, path: str) -> TreeEntry | None:
        """Return what a commit has at a path, None if nothing."""
        native = await self._native(commit)
        return (await self._store.entries(native.tree, [path])).get(path)

    async def content(self, entry: TreeEntry) -> bytes:
        """Return the content of a file."""
        return (await self._store.bodies([entry]))[entry.sha256]

    async def changes(self, before: str | None, after: str) -> list[FileChange]:
        """Return how the trees of two commits differ, with files that moved unchanged."""
        from angelos.angelgit.storage.trees import EMPTY_ROOT

        old = EMPTY_ROOT if before is None else (await self._native(before)).tree
        new = (await self._native(after)).tree
        return with_moves(await self._store.differences(old, new))

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


def summary_of(commit: str, native: CommitObject) -> CommitSummary:
    """Return a commit as the API shows it."""
    return CommitSummary(
        id=commit,
        git=native.git,
        parents=native.parents,
        authors=native.authors,
        message=native.message,
        at=native.at,
        trailers=native.trailers,
    )


def changed_paths(changes: Sequence[FileChange]) -> set[str]:
    """Return every path that changes name."""
    return {path for change in changes for path in (change.path, change.to) if path}
