"""Queries on revisions: the part of `core.ports.Repository` that changes nothing."""

from __future__ import annotations

import asyncio

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.documents.edits import is_cut, unified_diff
from angelos.angelgit.storage.models import Manifest
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import by_path, differing
from angelos.core.errors import NotFound
from angelos.core.ids import Revision
from angelos.core.repository import Branch, Change
from angelos.core.revision import Bundle, Entry, SignedCommit

_MAX_DIFFED = 8_000_000
"""Above this many bytes, all files together, changes have no diffs."""


class RevisionQueries:
    """Revisions of all repositories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        async with self._database.transaction() as conn:
            return await Store(conn).repos()

    async def head(self, repo: str, branch: Branch) -> Revision:
        """Return the revision of a branch.

        Args:
            repo: the repository's name.
            branch: `dev` or `main`.

        Raises:
            NotFound: there is no such repository.
        """
        async with self._database.transaction() as conn:
            return await Store(conn).head(repo, branch)

    async def commit(self, repo: str, revision: Revision) -> tuple[SignedCommit, Manifest]:
        """Return a signed commit and its files, sorted by path.

        Args:
            repo: the repository's name.
            revision: the hash of the commit.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._database.transaction() as conn:
            return await Store(conn).commit(repo, revision)

    async def tree(self, repo: str, revision: Revision) -> tuple[Entry, ...]:
        """Return the entries of a revision, sorted by path.

        Raises:
            NotFound: the repository has no such revision.
        """
        _, manifest = await self.commit(repo, revision)
        return tuple(f.entry() for f in manifest)

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content at a revision.

        Args:
            repo: the repository's name.
            revision: the hash of the commit.
            path: the file's path in the repository.

        Raises:
            NotFound: there is no such revision, or no such file in it.
        """
        async with self._database.transaction() as conn:
            store = Store(conn)
            _, manifest = await store.commit(repo, revision)
            file = by_path(manifest).get(path)
            if file is None:
                raise NotFound(f"There is no {path!r} in revision {revision[:12]} of {repo}.")
            return await store.blob(file.sha256)

    async def bundle(self, repo: str, revision: Revision) -> Bundle:
        """Return a signed revision with all of its files, for a node to verify.

        Raises:
            NotFound: the repository has no such revision.
        """
        async with self._database.transaction() as conn:
            store = Store(conn)
            signed, manifest = await store.commit(repo, revision)
            blobs = await store.blobs([f.sha256 for f in manifest])
        return Bundle(signed=signed, tree=tuple(f.entry() for f in manifest), blobs=blobs)

    async def changed(self, repo: str, before: Revision, after: Revision) -> tuple[Change, ...]:
        """Return the paths that differ between two revisions, with their diffs.

        Args:
            repo: the repository's name.
            before: the older revision.
            after: the newer revision.

        Raises:
            NotFound: the repository has not both revisions.
        """
        async with self._database.transaction() as conn:
            store = Store(conn)
            (_, old), (_, new) = await store.commit(repo, before), await store.commit(repo, after)
            rows = differing(old, new)
            files = [f for _, a, b in rows for f in (a, b) if f is not None]
            with_diffs = sum(f.size for f in files) <= _MAX_DIFFED
            blobs = await store.blobs([f.sha256 for f in files]) if with_diffs else {}

        def diffs() -> tuple[Change, ...]:
            changes = []
            for path, a, b in rows:
                old_text, new_text = (
                    blobs[f.sha256].decode() if f and with_diffs else None for f in (a, b)
                )
                diff = unified_diff(old_text, new_text, path)
                changes.append(
                    Change(
                        path=path,
                        before=a and a.sha256,
                        after=b and b.sha256,
                        diff=diff,
                        cut=not with_diffs or is_cut(diff),
                    )
                )
            return tuple(changes)

        return await asyncio.to_thread(diffs)

    async def history(self, repo: str, branch: Branch, limit: int = 50) -> list[Revision]:
        """Return the first-parent history of a branch, the newest revision first.

        Args:
            repo: the repository's name.
            branch: `dev` or `main`.
            limit: the most revisions to return.

        Raises:
            NotFound: there is no such repository.
        """
        async with self._database.transaction() as conn:
            store = Store(conn)
            return await store.history(repo, await store.head(repo, branch), limit)
