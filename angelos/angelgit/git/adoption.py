"""Pushed commits become revisions, or edits: only what git says has changed is read.

revision = await adoption.revision("study", commit, ada)
draft = await adoption.draft("study", commit)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from angelos.angelgit.changes import editing, sides
from angelos.angelgit.changes.commits import CommitText, CommitWriter
from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.importing import HeadTree, exact_tree, store_blobs
from angelos.angelgit.git.parse import RawCommit, parse_commit
from angelos.angelgit.git.pushing import ancestry, changed_files
from angelos.angelgit.git.service import GitSide
from angelos.angelgit.merge.files import FileContent, content_of
from angelos.angelgit.storage.store import Store, Stores
from angelos.angelgit.storage.trees import EMPTY_ROOT
from angelos.core.errors import Conflict, InvalidInput, TooLarge
from angelos.core.ids import PrincipalId, Revision
from angelos.core.pending import MAX_EDITS
from angelos.core.repository import PickDraft
from angelos.core.revision_v2 import TreeEntry


class _Changed(NamedTuple):
    """What a commit changes in an ancestor that has a revision."""

    commit: RawCommit
    base: Revision | None
    tree: HeadTree
    """The files that are new or changed."""
    entries: dict[str, TreeEntry | None]


class PushedCommits:
    """Makes revisions and drafts of what was pushed."""

    def __init__(self, stores: Stores, git: GitSide, commits: CommitWriter) -> None:
        self._stores = stores
        self._git = git
        self._commits = commits

    async def revision(self, repo: str, commit: str, author: PrincipalId) -> Revision:
        """Return the revision of a pushed commit, made if it has none."""
        async with self._stores.begin() as store:
            if (revision := await store.git.revision(repo, commit)) is not None:
                return revision
            known = await store.git.known(repo)
        changed = await self._changed(repo, commit, known)
        async with self._stores.change(repo) as store:
            await _store(store, changed.tree)
            root = EMPTY_ROOT
            if changed.base is not None:
                root = (await store.commit(repo, changed.base)).tree
            root = await store.update_tree(root, changed.entries)
            parents = [await store.git.revision(repo, p) for p in changed.commit.parents]
            whole = [parent for parent in parents if parent is not None]
            signed = self._commits.sign(
                repo,
                whole if len(whole) == len(parents) else (),
                root,
                CommitText((author,), changed.commit.message),
                commit,
            )
            await store.add_commit(repo, signed)
            await store.git.add_commits(repo, [(signed.revision, commit, None)])
        return signed.revision

    async def draft(self, repo: str, commit: str) -> PickDraft:
        """Return the edits of `main` that a pushed commit makes.

        Raises:
            Conflict: it changes nothing.
            InvalidInput: it does not come from `main`.
            TooLarge: it changes too many files.
        """
        async with self._stores.begin() as store:
            mains = await store.git.known_mains(repo)
        if commit in mains:
            raise Conflict("This commit is part of main already.")
        changed = await self._changed(repo, commit, mains)
        if changed.base is None:
            raise InvalidInput(
                "The commit does not come from main.", hint="Rebase it: git pull --rebase."
            )
        if len(changed.entries) > MAX_EDITS:
            raise TooLarge(f"A proposal changes at most {MAX_EDITS} files.")
        async with self._stores.change(repo) as store:
            await _store(store, changed.tree)
            before = await sides.revision_files(store, repo, changed.base, changed.entries)
        after = {path: _content(entry, changed.tree) for path, entry in changed.entries.items()}
        sizes = {digest: len(body) for digest, body in changed.tree.blobs.items()}
        edits = editing.edits_between(before, after, {}, sizes)
        if not edits:
            raise Conflict("The commit changes nothing in main.")
        message = changed.commit.message.strip() or "Change by git push"
        return PickDraft(repo=repo, base=changed.base, edits=tuple(edits), message=message)

    async def _changed(self, repo: str, commit: str, known: Mapping[str, Revision]) -> _Changed:
        cache = self._git.cache(repo)
        return await asyncio.to_thread(_read, cache, commit, known)


def _read(cache: GitCache, identifier: str, known: Mapping[str, Revision]) -> _Changed:
    commit, base = ancestry(cache, identifier, known.__contains__)
    before = parse_commit(cache.read(base).body).tree if base else ""
    files = changed_files(cache, before, commit.tree)
    tree = exact_tree(cache, [file for file in files.values() if file is not None])
    new = {entry.path: entry for entry in tree.entries}
    entries = {path: new.get(path) for path in files}
    return _Changed(commit, known.get(base), tree, entries)


async def _store(store: Store, tree: HeadTree) -> None:
    await store.add_contents(tree.contents.values())
    await store_blobs(store, tree.blobs)


def _content(entry: TreeEntry | None, tree: HeadTree) -> FileContent | None:
    if entry is None:
        return None
    if entry.sha256 in tree.blobs:
        return FileContent(entry.mode, entry.sha256.encode(), live=False)
    return content_of(entry.mode, tree.contents[entry.sha256])
