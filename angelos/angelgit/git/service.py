"""The git side of all repositories: what a git client gets to see of them.

    view = await git_side.view("study")
    view.refs[b"refs/heads/main"]
    await git_side.bundle("study")

`main`, `dev` and every branch of people and agents are `refs/heads/...`; tags and branches that
came from git and are none here stay what they were.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

from angelos.angelgit.changes.importing import CheckConfig
from angelos.angelgit.git import annotate
from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.derive import Derivation
from angelos.angelgit.git.importing import ImportedHistory, read_history
from angelos.angelgit.git.notes import REF
from angelos.angelgit.git.objects import allowed_signers
from angelos.angelgit.git.raw import CachedHistory
from angelos.angelgit.storage.git_table import LastPush
from angelos.angelgit.storage.store import Store, Stores
from angelos.core.errors import TooLarge
from angelos.core.ids import PrincipalId, Revision
from angelos.core.signing import SigningKey, VerifyKey

MAX_BUNDLE_BYTES = 256_000_000
_BRANCH_PAGE = 500


class GitView(NamedTuple):
    """A repository as git sees it at one moment."""

    cache: GitCache
    refs: dict[bytes, str]
    """Full name -> id; all of it is in the cache."""
    heads: dict[bytes, Revision]
    """Full name -> the revision at which a branch of ours is."""
    lasting: set[str]
    """Ids that are here for good with all below them: of `main`, of `dev`, and in packs."""


class GitSide:
    """Derives, caches and hands out git objects."""

    def __init__(self, stores: Stores, key: SigningKey, folder: Path) -> None:
        """Build it; nothing is read yet.

        Args:
            stores: where revisions are.
            key: signs commits.
            folder: of the caches, which can be deleted at any time that nothing runs.
        """
        self._stores = stores
        self._key = key
        self.folder = folder
        self._caches: dict[str, GitCache] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._reading = asyncio.Lock()
        """Imports take much memory: one at a time."""

    def close(self) -> None:
        """Close the files of all caches."""
        for cache in self._caches.values():
            cache.close()

    @property
    def allowed_signers(self) -> str:
        """The file by which git accepts our signatures."""
        return allowed_signers(self._key)

    @property
    def public_key(self) -> VerifyKey:
        """The key of the signatures of commits."""
        return self._key.public

    def lock(self, repo: str) -> asyncio.Lock:
        """Return the lock under which a cache is written and read."""
        return self._locks.setdefault(repo, asyncio.Lock())

    async def view(self, repo: str) -> GitView:
        """Return a repository's references, with everything below them in the cache.

        The caller holds the lock.

        Raises:
            NotFound: there is no such repository.
            Tampered: a stored object is not what its hash names.
        """
        async with self._stores.begin() as store:
            await store.head(repo, "main")
            cache = self.cache(repo)
            await self.restore(store, repo)
            refs = await store.git.refs(repo)
            imported = set(refs.values())
            heads: dict[bytes, Revision] = {}
            derivation = Derivation(store, cache, self._key, repo)
            after = ""
            while page := await store.branches(repo, after, _BRANCH_PAGE):
                for head in page:
                    ref = f"refs/heads/{head.name}".encode()
                    heads[ref] = head.revision
                    refs[ref] = await derivation.commit(head.revision)
                after = page[-1].name
            await derivation.flush()
            lasting = imported | (set(refs.values()) & await store.git.pushed(repo))
            lasting |= {refs[b"refs/heads/main"], refs[b"refs/heads/dev"]}
        return GitView(cache, refs, heads, lasting)

    async def bundle(self, repo: str, *, notes: bool = False) -> bytes:
        """Return a git bundle of everything.

        Args:
            repo: the repository's name.
            notes: with who wrote each line, as notes that git-ai reads.

        Raises:
            NotFound: there is no such repository.
            TooLarge: it has more than `MAX_BUNDLE_BYTES`.
        """
        async with self.lock(repo):
            view = await self.view(repo)
            if notes:
                await self._annotate(repo, view)
            return await asyncio.to_thread(_bundle, view)

    async def _annotate(self, repo: str, view: GitView) -> None:
        """Add notes to a view; git's own, if it came with some, are left as they are."""
        async with self._stores.begin() as store:
            pairs = await store.git.known(repo)
            commits = {revision: identifier for identifier, revision in pairs.items()}
            objects, head = await annotate.notes(store, repo, commits)
        await asyncio.to_thread(view.cache.add, objects)
        view.refs.setdefault(REF, head)

    async def history(self, store: Store, repo: str) -> CachedHistory:
        """Return the commits of a repository that only git has."""
        if (await store.git.packs(repo)).keys() - self.cache(repo).packs():
            async with self.lock(repo):
                await self.restore(store, repo)
        return CachedHistory(self.cache(repo))

    async def store_pack(self, repo: str, pack: bytes) -> None:
        """Keep a checked pack; the caller holds the lock."""
        async with self._stores.begin() as store:
            await store.git.add_pack(repo, memoryview(pack))
        async with self._stores.begin() as store:
            await self.restore(store, repo)

    async def last_push(self, repo: str, by: PrincipalId, topic: str) -> LastPush | None:
        """Return what somebody's last push for review made, None if there was none."""
        async with self._stores.begin() as store:
            return await store.git.last_push(repo, by, topic)

    async def put_last_push(self, repo: str, by: PrincipalId, topic: str, last: LastPush) -> None:
        """Record what somebody's last push for review made."""
        async with self._stores.begin() as store:
            await store.git.put_last_push(repo, by, topic, last)

    async def read_bundle(
        self, repo: str, bundle: bytes, check_config: CheckConfig
    ) -> ImportedHistory:
        """Return what a bundle holds, checked; see `git.importing`."""
        async with self._reading:
            return await read_history(repo, bundle, self.folder, check_config)

    def cache(self, repo: str) -> GitCache:
        """Return the cache of a repository that exists."""
        if repo not in self._caches:
            self._caches[repo] = GitCache(self.folder / f"{repo}.git")
        return self._caches[repo]

    async def restore(self, store: Store, repo: str) -> None:
        """Put the packs that came from git into the cache, where they are missing.

        What is imported is whole; a push stands on what `main` and `dev` have, so that this comes
        before it, or a tree would be there without what it names.
        """
        cache = self.cache(repo)
        numbers = (await store.git.packs(repo)).keys()
        missing = sorted(numbers - cache.packs())
        if not missing:
            return
        mains = await store.git.known_mains(repo)
        if missing[0] == min(numbers) and mains.keys() & await store.git.pushed(repo):
            await self._restore_pack(store, cache, missing.pop(0))
        derivation = Derivation(store, cache, self._key, repo)
        for name in ("main", "dev"):
            await derivation.commit(await store.head(repo, name))
        await derivation.flush()
        for number in missing:
            await self._restore_pack(store, cache, number)

    async def _restore_pack(self, store: Store, cache: GitCache, number: int) -> None:
        with tempfile.TemporaryFile() as file:
            async for piece in store.git.pack_pieces(number):
                file.write(piece)
            file.seek(0)
            await asyncio.to_thread(cache.add_pack, number, file)


def _bundle(view: GitView) -> bytes:
    with tempfile.TemporaryFile() as file:
        view.cache.write_bundle(file, view.refs)
        if file.tell() > MAX_BUNDLE_BYTES:
            raise TooLarge(
                f"The bundle has over {MAX_BUNDLE_BYTES} bytes.", hint="Use git clone instead."
            )
        file.seek(0)
        return file.read()
