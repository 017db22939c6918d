"""Edits of `dev` itself: a person makes, moves or deletes a file, as they type into one.

    await edits.apply("study", [MoveFile(path="a.txt", to="b.txt")], person, "Rename a.txt")

They are committed at once, under the person's name; `main` gets them as it gets what people type.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from angelos.angelgit.changes import editing
from angelos.angelgit.changes.commits import CommitText
from angelos.angelgit.changes.proposals import DevProposals, check_places, named_blobs
from angelos.angelgit.changes.transactions import DevChange
from angelos.angelgit.merge.changes import MergedFiles
from angelos.angelgit.merge.conflicts import describe
from angelos.angelgit.storage.blobs import BlobStore
from angelos.angelgit.storage.models import AdvanceCause
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, InvalidInput
from angelos.core.facts import Fact
from angelos.core.ids import PrincipalId, Revision
from angelos.core.repository import NewText, PutBlob, PutLink, TreeEdit

_CREATING = (NewText, PutBlob, PutLink)


class DevEdits:
    """What people do to the files of `dev` as a whole."""

    def __init__(self, proposals: DevProposals, blobs: BlobStore) -> None:
        self.blobs = blobs
        self._stores = proposals.stores
        self._live = proposals.live
        self._transactions = proposals.transactions

    async def apply(
        self, repo: str, edits: Sequence[TreeEdit], author: PrincipalId, message: str
    ) -> Revision:
        """Commit edits on `dev`; a file is only made where none is."""
        editing.check_edits(edits)
        paths = set(editing.touched(edits))
        async with self._transactions.branch_lock(repo):
            await self._transactions.recover(repo)
            locked = self._transactions.documents_to_lock(repo, paths)
            async with self._live.lock(locked):
                async with self._stores.begin() as store:
                    current = await self._transactions.dev_files(store, repo, paths)
                    _check_new(edits, current)
                    blobs = await named_blobs(store, edits)
                    size = sum(len(file.body) for file in current.values()) + len(repr(edits))
                    edited = await in_thread(size, editing.apply_edits, current, edits, blobs)
                    files = {p: f for p, f in edited.files.items() if f != current.get(p)}
                    merged = MergedFiles(files, edited.moves, [])
                    head = await store.head(repo, "dev")
                    tree = (await store.commit(repo, head)).tree
                    await check_places(store, tree, merged, current)
                if merged.conflicts:
                    conflict = merged.conflicts[0]
                    raise Conflict(f"{conflict.path} cannot be there: {describe(conflict)}.")
                if not files:
                    raise InvalidInput("These edits change nothing.")
                text = CommitText.of(author, message, {})
                change = DevChange(AdvanceCause.live_edits, text, merged)
                revision, published = await self._transactions.commit(
                    repo, change, current, locked, _no_more
                )
            await self._transactions.publish(published)
        return revision

    async def files_below(self, repo: str, path: str) -> list[str]:
        """Return the files of `dev` at a path and below it, typed or not."""
        documents = _at_or_below(self._live.index.paths(repo), path)
        async with self._stores.begin() as store:
            tree = (await store.commit(repo, await store.head(repo, "dev"))).tree
            entries = await store.tree(tree)
        return sorted({*documents, *_at_or_below([entry.path for entry in entries], path)})


def _check_new(edits: Sequence[TreeEdit], current: Collection[str]) -> None:
    for edit in edits:
        if isinstance(edit, _CREATING) and edit.path in current:
            raise Conflict(f"There is {edit.path} already; nothing was changed.")


def _at_or_below(paths: Collection[str], path: str) -> list[str]:
    return [other for other in paths if other == path or other.startswith(f"{path}/")]


async def _no_more(store: Store, revision: Revision) -> list[Fact]:
    del store, revision
    return []
