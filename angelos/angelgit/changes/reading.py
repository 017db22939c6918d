"""Queries on revisions: the part of `core.ports.Repository` that changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes import sides
from angelos.angelgit.changes.proposals import diff_of
from angelos.angelgit.documents.edits import is_cut
from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.storage import trees
from angelos.angelgit.storage.models import FileChange
from angelos.angelgit.storage.store import Stores
from angelos.angelgit.threads import in_thread
from angelos.core.errors import NotFound, TooLarge
from angelos.core.ids import Revision
from angelos.core.repository import MAX_READ_BYTES, Branch, Change
from angelos.core.revision import Bundle
from angelos.core.revision_v2 import (
    CommitObject,
    SignedCommitObject,
    TreeEntry,
    read_tree,
)

_MAX_DIFFED = 8_000_000
"""Above this many bytes, all files together, changes have no diffs."""


class RevisionQueries:
    """Revisions of all repositories."""

    def __init__(self, database: Database) -> None:
        self._stores = Stores(database)

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        async with self._stores.begin() as store:
            return await store.repos()

    async def head(self, repo: str, branch: Branch) -> Revision:
        """Return the revision of a branch.

        Args:
            repo: the repository's name.
            branch: `dev` or `main`.

        Raises:
            NotFound: there is no such repository.
        """
        async with self._stores.begin() as store:
            return await store.head(repo, branch)

    async def signed(self, repo: str, revision: Revision) -> SignedCommitObject:
        """Return a commit's exact bytes and signature.

        Args:
            repo: the repository's name.
            revision: the hash of the commit.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._stores.begin() as store:
            return await store.signed(repo, revision)

    async def commit(self, repo: str, revision: Revision) -> CommitObject:
        """Return a commit.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._stores.begin() as store:
            return await store.commit(repo, revision)

    async def tree(self, repo: str, revision: Revision) -> tuple[TreeEntry, ...]:
        """Return the entries of a revision, sorted by path.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._stores.begin() as store:
            commit = await store.commit(repo, revision)
            nodes = await store.nodes(commit.tree)
        return await in_thread(len(nodes) * 1_000, read_tree, commit.tree, nodes.__getitem__)

    async def entries(
        self, repo: str, revision: Revision, paths: Collection[str]
    ) -> dict[str, TreeEntry]:
        """Return the entries of a revision at some paths, of those that are there.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._stores.begin() as store:
            commit = await store.commit(repo, revision)
            return dict(await store.entries(commit.tree, paths))

    async def directory(self, repo: str, digest: str) -> bytes:
        """Return a directory object of any revision by its hash.

        Args:
            repo: the repository's name.
            digest: the hash of the directory.

        Raises:
            NotFound: there is no such object.
            Tampered: the stored object is not the one that its hash names.
        """
        async with self._stores.begin() as store:
            if not trees.is_hash(digest) or not await store.has_directory(digest):
                raise NotFound(f"{repo} has no directory {digest[:12]}.")
            return await store.content(digest)

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content at a revision, or a link's target.

        Args:
            repo: the repository's name.
            revision: the hash of the commit.
            path: the file's path in the repository.

        Raises:
            NotFound: there is no such revision, or no such file in it.
            TooLarge: it is a blob of more than `MAX_READ_BYTES`.
        """
        async with self._stores.begin() as store:
            commit = await store.commit(repo, revision)
            entry = (await store.entries(commit.tree, [path])).get(path)
            if entry is None:
                raise NotFound(f"There is no {path!r} in revision {revision[:12]} of {repo}.")
            if entry.size > MAX_READ_BYTES:
                raise TooLarge(f"{path} has {entry.size} bytes; read it as a blob.")
            return (await store.bodies([entry]))[entry.sha256]

    async def bundle(self, repo: str, revision: Revision, have: Revision | None = None) -> Bundle:
        """Return a signed revision with what a node lacks of it, for the node to verify.

        Args:
            repo: the repository's name.
            revision: the hash of the commit.
            have: a revision of which the node has all objects and contents; one that is not
                known here counts as none.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._stores.begin() as store:
            signed = await store.signed(repo, revision)
            tree = (await store.commit(repo, revision)).tree
            base = trees.EMPTY_ROOT
            if have is not None:
                try:
                    base = (await store.commit(repo, have)).tree
                except NotFound:
                    have = None
            rows = await store.differences(base, tree)
            changed = [row[2].path for row in rows if row[2] is not None]
            objects = await store.nodes(tree, None if have is None else changed)
            known = await store.nodes(base, changed) if have else {}
            bodies = await store.bodies([row[2] for row in rows if row[2] is not None])
        new = {digest: body for digest, body in objects.items() if digest not in known}
        return Bundle(signed=signed, objects=new, blobs=bodies, have=have)

    async def changed(self, repo: str, before: Revision, after: Revision) -> tuple[Change, ...]:
        """Return the paths that differ between two revisions, with their diffs.

        Args:
            repo: the repository's name.
            before: the older revision.
            after: the newer revision.

        Raises:
            NotFound: the repository has not both revisions.
        """
        async with self._stores.begin() as store:
            old, new = await store.commit(repo, before), await store.commit(repo, after)
            rows = await store.differences(old.tree, new.tree)
            size = sum(entry.size for _, *pair in rows for entry in pair if entry)
            changes = [FileChange(path=path, before=a, after=b) for path, a, b in rows]
            with_diffs = size <= _MAX_DIFFED
            files = await sides.changed_files(store, changes) if with_diffs else []
        diffs = await in_thread(size, _diffs, files) if with_diffs else [""] * len(rows)
        return tuple(
            Change(
                path=path,
                before=a and a.sha256,
                after=b and b.sha256,
                diff=diff,
                cut=not with_diffs or is_cut(diff),
            )
            for (path, a, b), diff in zip(rows, diffs, strict=True)
        )

    async def own_changes(self, repo: str, commit: Revision) -> tuple[Change, ...]:
        """Return what a commit changed against its first parent, with whole diffs.

        Args:
            repo: the repository's name.
            commit: a commit on any branch, or on none.

        Raises:
            NotFound: the repository does not have it, or it is the first one.
        """
        async with self._stores.begin() as store:
            new = await store.commit(repo, commit)
            if not new.parents:
                raise NotFound(f"{commit} has no parent.")
            before = (await store.commit(repo, new.parents[0])).tree
            rows = await store.differences(before, new.tree)
            size = sum(entry.size for _, *pair in rows for entry in pair if entry)
            changes = [FileChange(path=path, before=a, after=b) for path, a, b in rows]
            files = await sides.changed_files(store, changes)
        diffs = await in_thread(size, _whole_diffs, files)
        return tuple(
            Change(path=path, before=a and a.sha256, after=b and b.sha256, diff=diff)
            for (path, a, b), diff in zip(rows, diffs, strict=True)
        )

    async def history(self, repo: str, branch: Branch, limit: int = 50) -> list[Revision]:
        """Return the first-parent history of a branch, the newest revision first.

        Args:
            repo: the repository's name.
            branch: `dev` or `main`.
            limit: the most revisions to return.

        Raises:
            NotFound: there is no such repository.
        """
        async with self._stores.begin() as store:
            return await store.history(repo, await store.head(repo, branch), limit)


def _whole_diffs(files: Sequence[ChangedFile]) -> list[str]:
    return [diff_of(f.to or f.path, f.before, f.after, whole=True) for f in files]


def _diffs(files: Sequence[ChangedFile]) -> list[str]:
    return [diff_of(file.path, file.before, file.after) for file in files]
