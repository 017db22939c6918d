"""Reads a repository back from the store, page by page, and says what is not what its hash names.

Each commit is checked for what it adds to its first parent, so the work of a page grows with the
changes in it, and a whole pass reads each object once. Nothing comes out of a cache. A page ends
after so many commits, files or bytes, in the midst of a commit if need be.

    page = await verification.page("study", after="")
    page = await verification.page("study", after=page.next)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from angelos.angelgit.documents import crdt
from angelos.angelgit.storage.models import sha256
from angelos.angelgit.storage.objects import ObjectCache
from angelos.angelgit.storage.store import Store, Stores
from angelos.angelgit.storage.trees import EMPTY_ROOT
from angelos.angelgit.threads import in_thread
from angelos.core.errors import AngelError, Busy, InvalidInput
from angelos.core.history import Damage, DamageKind, VerifyPage
from angelos.core.ids import Revision, is_revision
from angelos.core.revision_v2 import (
    CommitObject,
    SignedCommitObject,
    TreeEntry,
    verify_commit_object,
)
from angelos.core.signing import VerifyKey

_COMMITS = 100
_FILES = 1_000
_BYTES = 32_000_000
"""Of the files of a page; one file is always read, however large it is."""
_DOCUMENTS = 100
_RETRY_S = 2.0
_CONTENTS = 100
_CACHE_BYTES = 16_000_000
_MAX_DAMAGE = 200
"""Of a page; behind it nothing more is named."""
_DOCUMENTS_AFTER = "documents:"


class _Place(NamedTuple):
    revision: Revision
    path: str


class _Pass:
    """One page: what was read, and what was wrong."""

    def __init__(self, store: Store, key: VerifyKey, repo: str) -> None:
        self._store, self._key, self._repo = store, key, repo
        self.damage: list[Damage] = []
        self.contents = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether the page has room for no further file."""
        return self.contents >= _FILES or self._bytes >= _BYTES

    def _note(self, kind: DamageKind, hash_: str, place: _Place, error: object) -> None:
        if len(self.damage) < _MAX_DAMAGE:
            detail = f"{error}"[:500]
            self.damage.append(
                Damage(
                    kind=kind, hash=hash_, revision=place.revision, path=place.path, detail=detail
                )
            )

    async def commit(self, revision: Revision, signed: SignedCommitObject, beyond: str) -> str:
        """Check a commit, and what it has that its first parent has not.

        Args:
            revision: its hash.
            signed: what is stored under it.
            beyond: the file behind which to go on; empty: from its first.

        Returns:
            The file at which the page is full, empty where the commit was checked to its end.
        """
        place = _Place(revision, "")
        try:
            commit = verify_commit_object(self._key, signed, revision)
        except AngelError as error:
            self._note(DamageKind.commit, revision, place, error)
            return ""
        try:
            before = await self._tree_before(commit)
            changes = await self._store.differences(before, commit.tree)
        except AngelError as error:
            self._note(DamageKind.tree, commit.tree, place, error)
            return ""
        rows = [(path, entry) for path, _, entry in changes if entry is not None and path > beyond]
        return await self._files(rows, revision)

    async def _files(self, rows: Sequence[tuple[str, TreeEntry]], revision: Revision) -> str:
        """Check files as far as the page has room; return the last one if there are more."""
        page: dict[str, str] = {}
        last = ""
        for path, entry in rows:
            if last and self.full:
                break
            self._bytes += entry.size
            self.contents += entry.sha256 not in page
            page[entry.sha256] = last = path
        await self._contents(page, revision)
        return last if rows and last != rows[-1][0] else ""

    async def _tree_before(self, commit: CommitObject) -> str:
        """Return the tree of the first parent, whose own turn comes or came."""
        if not commit.parents:
            return EMPTY_ROOT
        return (await self._store.commit(self._repo, commit.parents[0])).tree

    async def _contents(self, paths: dict[str, str], revision: Revision) -> None:
        blobs = await self._store.blob_sizes(paths)
        for digest, size in blobs.items():
            if error := await self._blob_error(digest, size):
                self._note(DamageKind.blob, digest, _Place(revision, paths[digest]), error)
        others = [digest for digest in paths if digest not in blobs]
        for start in range(0, len(others), _CONTENTS):
            await self._batch(others[start : start + _CONTENTS], paths, revision)

    async def _batch(
        self, hashes: Sequence[str], paths: dict[str, str], revision: Revision
    ) -> None:
        """Read contents together, and those of a batch with damage one by one."""
        try:
            await self._store.contents(hashes)
        except AngelError as error:
            if len(hashes) == 1:
                place = _Place(revision, paths[hashes[0]])
                self._note(DamageKind.content, hashes[0], place, error)
                return
            for digest in hashes:
                await self._batch([digest], paths, revision)

    async def _blob_error(self, digest: str, size: int) -> str:
        sha, length = hashlib.sha256(), 0
        async for piece in self._store.blob_pieces(digest):
            await in_thread(len(piece), sha.update, piece)
            length += len(piece)
        if length != size:
            return f"It has {length} of {size} bytes."
        return "" if sha.hexdigest() == digest else "Its bytes are not those that its hash names."

    async def document(self, path: str, document: str) -> None:
        """Check that a live document's snapshot replays to the content that it is said to have."""
        place = _Place(Revision(""), path)
        try:
            snapshot = (await self._store.snapshots([document]))[document]
            text = await in_thread(len(snapshot.state), crdt.text_of, path, snapshot.state)
        except AngelError as error:
            self._note(DamageKind.document, document, place, error)
            return
        if sha256(text.encode()) != snapshot.sha256:
            self._note(DamageKind.document, document, place, "Its snapshot gives another text.")


class Verification:
    """Reads repositories back, each by one caller at a time."""

    def __init__(self, stores: Stores, key: VerifyKey) -> None:
        self._stores = stores
        self._key = key
        self._busy: set[str] = set()

    async def page(self, repo: str, after: str) -> VerifyPage:
        """Check a page of a repository.

        Raises:
            Busy: somebody else reads a page of it now.
            InvalidInput: `after` is of no page.
            NotFound: there is no such repository.
        """
        if repo in self._busy:
            raise Busy(f"{repo} is being read back by somebody else.", retry_after_s=_RETRY_S)
        self._busy.add(repo)
        try:
            return await _page(self._stores, self._key, repo, after)
        finally:
            self._busy.discard(repo)


async def _page(stores: Stores, key: VerifyKey, repo: str, after: str) -> VerifyPage:
    """Check a page of a repository's commits, or of its live documents behind the last commit."""
    async with stores.begin() as shared:
        store = shared.with_cache(ObjectCache(_CACHE_BYTES))
        await store.head(repo, "main")
        run = _Pass(store, key, repo)
        if after.startswith(_DOCUMENTS_AFTER):
            return await _documents(store, run, repo, after.removeprefix(_DOCUMENTS_AFTER))
        return await _commits(store, run, repo, after)


async def _commits(store: Store, run: _Pass, repo: str, after: str) -> VerifyPage:
    revision, _, beyond = after.partition(":")
    if after and not is_revision(revision):
        raise InvalidInput("`after` is none that a page of this check gave.")
    rows = await store.commits_after(repo, revision, _COMMITS)
    if beyond:
        rows.insert(0, (Revision(revision), await store.signed(repo, Revision(revision))))
    checked = 0
    for one, signed in rows:
        if run.full:
            break  # `after` is the commit before
        if last := await run.commit(one, signed, beyond):
            after = f"{one}:{last}"
            break
        checked, beyond, after = checked + 1, "", one
    else:
        after = rows[-1][0] if len(rows) >= _COMMITS else _DOCUMENTS_AFTER
    return VerifyPage(commits=checked, contents=run.contents, damage=tuple(run.damage), next=after)


async def _documents(store: Store, run: _Pass, repo: str, after: str) -> VerifyPage:
    rows = sorted(
        (row.id, row.path) for row in await store.documents(repo) if row.alive and row.id > after
    )
    page = rows[:_DOCUMENTS]
    for document, path in page:
        await run.document(path, document)
    last = f"{_DOCUMENTS_AFTER}{page[-1][0]}" if len(rows) > _DOCUMENTS else ""
    return VerifyPage(documents=len(page), damage=tuple(run.damage), next=last)
