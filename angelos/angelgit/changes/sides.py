"""What a revision, or the live documents of `dev`, have at some paths.

files = await revision_files(store, "study", base, {"a.txt"})
files["a.txt"].text
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.merge.files import FileContent, content_of
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import FileChange, sha256
from angelos.angelgit.storage.store import Store
from angelos.core.ids import Revision
from angelos.core.revision_v2 import EntryMode, TreeEntry


async def revision_files(
    store: Store, repo: str, revision: Revision, paths: Collection[str]
) -> dict[str, FileContent]:
    """Return the files of a revision at some paths, of those that are there."""
    commit = await store.commit(repo, revision)
    entries = await store.entries(commit.tree, paths)
    return await file_contents(store, entries)


async def file_contents(store: Store, entries: Mapping[str, TreeEntry]) -> dict[str, FileContent]:
    """Return the contents of entries; of a blob, its hash stands for it."""
    blobs = await store.blob_sizes({entry.sha256 for entry in entries.values()})
    bodies = await store.contents({e.sha256 for e in entries.values()} - blobs.keys())
    return {
        path: FileContent(entry.mode, entry.sha256.encode(), live=False)
        if entry.sha256 in blobs
        else content_of(entry.mode, bodies[entry.sha256])
        for path, entry in entries.items()
    }


async def changed_files(store: Store, changes: Iterable[FileChange]) -> list[ChangedFile]:
    """Return changes with their contents."""
    changes = list(changes)
    before = {c.path: c.before for c in changes if c.before}
    after = {c.path: c.after for c in changes if c.after}
    old, new = await file_contents(store, before), await file_contents(store, after)
    return [ChangedFile(c.path, c.to, old.get(c.path), new.get(c.path)) for c in changes]


async def dev_files(
    store: Store, live: LiveReplicas, repo: str, paths: Collection[str]
) -> dict[str, FileContent]:
    """Return the files of `dev` at some paths; the caller holds the locks of their documents."""
    documents = live.index.paths(repo)
    present = {documents[path]: path for path in paths if path in documents}
    replicas = await live.replicas(repo, present, store)
    files = {
        path: FileContent(
            mode_of(live.index.rows[document].mode), replicas[document].text().encode()
        )
        for document, path in present.items()
    }
    head = await store.head(repo, "dev")
    return {**await revision_files(store, repo, head, set(paths) - files.keys()), **files}


def mode_of(permissions: int) -> EntryMode:
    """Return the mode of a file in a tree."""
    return EntryMode.executable if permissions & 0o100 else EntryMode.file


def entry_of(path: str, file: FileContent, sizes: Mapping[str, int]) -> TreeEntry:
    """Return the entry of a file in a tree; `sizes` has those of blobs."""
    if file.live or file.mode is EntryMode.symlink:
        return TreeEntry(path, file.mode, sha256(file.body), len(file.body))
    digest = file.body.decode()
    return TreeEntry(path, file.mode, digest, sizes[digest])
