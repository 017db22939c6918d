"""Opens the repositories that this server may own, keeps them, and hands them over.

    async with OwnedRepositories(stores, leases, live, transactions, tree) as owned:
        async with owned.claimed("study"):
            ...                 # it is created

Meanwhile leases are renewed, and free repositories taken.

What another server owns can be read here as far as it is committed; its live documents are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Self

from angelos.adapters.host.endless import endless
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.ownership import LEASE_S, RepositoryLeases
from angelos.angelgit.storage.store import Stores
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.errors import AngelError, Conflict, Fenced
from angelos.core.ids import DocumentId
from angelos.core.ports import LiveDocuments

log = logging.getLogger(__name__)
RENEW_S = LEASE_S / 4
MOVED = "Another server has this file now. Copy what you need, then reload."


class WorkingTree(NamedTuple):
    """What shows the documents that are owned."""

    writer: WorktreeWriter
    rooms: LiveDocuments | None
    """Those that are open in the running server."""
    write_files: Callable[[str], Awaitable[None]]
    """Writes all files of a repository."""


class OwnedRepositories:
    """The repositories of all servers, as one of them sees them; an async context manager.

    Args:
        stores: where repositories are listed.
        leases: which are owned here.
        live: their documents.
        transactions: recovers what an earlier owner did not finish.
        tree: shows them.
    """

    def __init__(
        self,
        stores: Stores,
        leases: RepositoryLeases,
        live: LiveReplicas,
        transactions: Transactions,
        tree: WorkingTree,
    ) -> None:
        self._stores = stores
        self._leases = leases
        self._live = live
        self._transactions = transactions
        self._tree = tree
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = endless("leases of repositories", self._run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew all leases meanwhile, however long the opening of one repository takes."""
        task = endless("renewal of leases", self._keep)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def open_all(self) -> None:
        """Open every repository that no other server has."""
        for repo in await self._repos():
            await self._open(repo)

    @contextlib.asynccontextmanager
    async def claimed(self, repo: str) -> AsyncIterator[None]:
        """Own a repository that is about to be created; an error gives it back."""
        async with self._looking:  # or the loop would see it half made
            fresh = not self._leases.owns(repo)
            if fresh:
                await self._leases.acquire(repo)
            try:
                yield
            except BaseException:
                if fresh:
                    await self._leases.release(repo)
                raise

    async def look(self) -> None:
        """Renew the leases, hand over what has a newer owner, and open what is free."""
        async with self._looking:
            for repo in await self._repos():
                try:
                    await self._look_at(repo)
                except (AngelError, OSError) as error:
                    log.warning("who owns %s is not known: %s", repo, error)

    async def _look_at(self, repo: str) -> None:
        if self._leases.owns(repo):
            try:
                await self._leases.renew(repo)
            except Fenced as error:
                log.warning("%s is handed over: %s", repo, error)
                await self._hand_over(repo)
            else:
                return
        if owner := await self._leases.holder(repo):
            # It may be ours by name: another process of this server's, which must not be robbed.
            self._live.index.elsewhere[repo] = owner
        elif await self._open(repo):
            log.warning("%s is owned by this server now", repo)

    async def _open(self, repo: str) -> bool:
        """Take a repository and bring it up to date; return False if another server has it."""
        index = self._live.index
        try:
            await self._leases.acquire(repo)
        except (Conflict, Fenced) as error:
            index.elsewhere[repo] = str(error.extra.get("holder", "unknown"))
            return False
        try:
            async with self._transactions.branch_lock(repo):
                await self._live.forget(index.hand_over(repo, self._leases.name))
                await index.load(repo)
                index.elsewhere.pop(repo, None)
                self._transactions.expect_unfinished(repo)
                await self._transactions.recover(repo)
            await self._tree.write_files(repo)
            await self._transactions.remove_deleted_files(repo)
        except BaseException:
            await self._hand_over(repo)
            raise
        return True

    async def _hand_over(self, repo: str) -> None:
        """Forget a repository, and close its rooms: what is typed there could not be kept."""
        await self._leases.release(repo)
        documents = self._live.index.hand_over(repo, "unknown")
        writer, rooms, _ = self._tree
        writer.waiting = {place for place in writer.waiting if place[0] != repo}
        if rooms is not None:
            for document in sorted(documents):
                try:
                    await rooms.close(DocumentId(document), MOVED)
                except Exception:
                    log.exception("the open room of document %s was not closed", document)
        await self._live.forget(documents)

    async def _repos(self) -> list[str]:
        async with self._stores.begin() as store:
            return await store.repos()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._leases.keep()

    async def _run(self) -> None:
        doubt = self._live.log.fenced
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await doubt.wait()
            doubt.clear()
            try:
                await self.look()
            except AngelError as error:
                log.warning("leases were not renewed: %s", error)
