"""AngelGit itself: `core.ports.Repository`, and the live documents for open rooms.

    async with AngelGit(database, valkey, key, clock, journal, Path("workspace")) as repository:
        await repository.ingest("study", "study/difflib.py", update)     # from a room
        revision = await repository.merge(proposal)

Changes of one repository's branches are made one after the other; typing goes on beside them.
One AngelGit at a time works on a database: it is the only writer of `dev`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from redis.asyncio import Redis

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.changes.importing import CheckConfig, ImportedRepo, import_files, no_check
from angelos.angelgit.changes.mainline import Mainline
from angelos.angelgit.changes.proposals import DevProposals
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.log import DocumentLog
from angelos.angelgit.storage.models import check_name
from angelos.angelgit.storage.queries import RevisionReader
from angelos.angelgit.storage.store import Store
from angelos.angelgit.worktree.activity import DocumentActivity
from angelos.angelgit.worktree.files import WorkingFiles
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.ports import Clock, Journal, LiveDocuments
from angelos.core.repository import Branch, Candidate, Edit, Proposed
from angelos.core.signing import SigningKey

T = TypeVar("T")
_PAGE = 200
_BRANCHES: tuple[Branch, ...] = ("dev", "main")


class AngelGit(RevisionReader):
    """Version control of live documents; an async context manager."""

    def __init__(  # noqa: PLR0913 - six stores and ports, two hooks
        self,
        database: Database,
        valkey: Redis,
        revision_key: SigningKey,
        clock: Clock,
        journal: Journal,
        workspace: Path,
        live: LiveDocuments | None = None,
        *,
        check_config: CheckConfig = no_check,
    ) -> None:
        """Take the stores, the key that signs commits, and the rooms that are open.

        `check_config` raises `InvalidInput` for an `angelos.toml` that nothing could be tested
        with.
        """
        super().__init__(database)
        self._check_config = check_config
        self._live = LiveReplicas(database, DocumentLog(valkey))
        self._activity = DocumentActivity(journal, clock)
        self._writer = WorktreeWriter(
            database, self._live, WorkingFiles(workspace), live, self._activity, clock
        )
        self._transactions = Transactions(
            database, self._live, journal, clock, revision_key, self._writer, live
        )
        self._proposals = DevProposals(database, self._live, self._transactions)
        self._main = Mainline(database, self._live, self._transactions)
        self._typed_files: set[tuple[str, str]] = set()
        self._new = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup

    async def __aenter__(self) -> Self:
        """Finish what was begun, replay what was logged, and write the working files."""
        for repo in await self.repos():
            await self._live.load(repo)
            self._transactions.expect_unfinished(repo)
            await self._transactions.recover(repo)
            await self._materialise(repo)
            await self._transactions.tidy(repo)
        await self._transactions.flush_outbox()
        await self._stack.enter_async_context(self._activity)
        self._stack.push_async_callback(self._leave_files)
        await self._stack.enter_async_context(self._writer)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for what is under way and leave the working files as the documents are."""
        await self._stack.aclose()

    async def _leave_files(self) -> None:
        for repo, path in sorted(self._typed_files | self._writer.waiting):
            if self._live.has(repo, path):
                await self._writer.try_write(repo, path)

    # -- live documents ----------------------------------------------------------------------

    def locate(self, workspace_path: str) -> tuple[str, str] | None:
        """Return (repository, path) of a live document by its path below the workspace."""
        repo, _, path = workspace_path.lstrip("/").partition("/")
        return (repo, path) if self._live.has(repo, path) else None

    async def room_updates(self, repo: str, path: str) -> list[bytes]:
        """Return the updates from which a room builds a document; raise `NotFound`.

        What was written into its file behind our back is taken in first.
        """
        self._live.document(repo, path)
        await self._owned(self._writer.try_write(repo, path))
        return await self._live.updates(repo, path)

    async def ingest(self, repo: str, path: str, update: bytes) -> None:
        """Take an update from a room; it is durable when this returns.

        Raises `InvalidInput` for bytes that are no update, `NotFound`, `Unavailable`.
        """
        size = await self._live.ingest(repo, path, update)
        if size:
            self._typed_files.add((repo, path))
            self._activity.add(f"{repo}:{path}", size)

    async def write_file(self, repo: str, path: str) -> str | None:
        """Make a working file and its document the same; return the SHA-256 of the file.

        What others wrote into the file is taken in, or kept beside it. None if somebody is
        writing it at this moment; it is printed as soon as they are done. Raises `NotFound`,
        `OSError`, `Refused`, `Unavailable`.
        """
        return await self._owned(self._writer.write(repo, path))

    async def read_live(self, repo: str, path: str) -> bytes:
        """Return a file of `dev` as it is this moment."""
        return (await self._live.text(repo, path)).encode()

    # -- changes -----------------------------------------------------------------------------

    async def create(
        self, repo: str, files: Mapping[str, bytes], author: PrincipalId, message: str
    ) -> Revision:
        """Import files as a new repository; `dev` and `main` both start at the revision.

        Notebooks are kept in their canonical JSON. Raises `Conflict` if the name is taken
        (upper and lower case are one name).
        """
        async with self._database.transaction() as conn:
            await Store(conn).check_free(check_name(repo))
        made = await asyncio.to_thread(import_files, repo, files, self._check_config)
        return await self._owned(self._create(repo, made, author, message))

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[Edit],
        author: PrincipalId,
        message: str,
    ) -> Proposed:
        """Take edits against `base` durably and return what they change; see the port."""
        return await self._proposals.propose(proposal, repo, base, edits, author, message)

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`; merging twice is once."""
        return await self._owned(self._proposals.merge(proposal))

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev` again, around everybody else's."""
        return await self._owned(self._proposals.revert(proposal))

    async def candidate(self, proposal: ProposalId) -> Candidate:
        """Merge a proposal onto the present `main` and commit the result on no branch."""
        made = await self._owned(self._main.candidate(proposal))
        signed, _ = await self.commit(made.repo, made.revision)
        changes = await self.changed(made.repo, made.main, made.revision)
        return Candidate(
            revision=made.revision, main=made.main, tree=signed.commit.tree, changes=changes
        )

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate; raise `Conflict` unless it still is at `expected`."""
        await self._owned(self._main.advance(repo, revision, expected))

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit `to`'s tree on top of `main`; the same change is applied to `dev`."""
        return await self._owned(self._main.rollback(repo, to, author, reason))

    async def _create(
        self, repo: str, made: ImportedRepo, author: PrincipalId, message: str
    ) -> Revision:
        signed = self._transactions.sign(repo, (), made.manifest, author, message)
        # One at a time, so that two names that differ in case alone cannot come together.
        async with self._new, self._transactions.lock(repo), self._database.transaction() as conn:
            store = Store(conn)
            await store.add_repo(repo)
            await store.add_blobs(made.blobs)
            await store.add_commit(signed, made.manifest)
            await store.put_documents(made.rows)
            await store.mark_on_main([row.id for row in made.rows])
            for branch in _BRANCHES:
                await store.set_branch(repo, branch, signed.revision)
                await store.add_facts(
                    [
                        self._transactions.advanced(
                            repo, branch, "", signed.revision, "import", author
                        )
                    ]
                )
        self._live.update(repo, made.rows)
        await self._materialise(repo)
        await self._transactions.flush_outbox()
        return signed.revision

    async def _materialise(self, repo: str) -> None:
        """Write every working file of a repository that is not as its document is."""
        rows = [self._live.rows[document] for document in self._live.paths(repo).values()]
        for start in range(0, len(rows), _PAGE):
            page = rows[start : start + _PAGE]
            newer = await self._live.log.newer(repo, {row.id: row.upto for row in page})
            async with self._database.transaction() as conn:
                blobs = await Store(conn).blobs([r.sha256 for r in page if r.id not in newer])
            texts = {row.id: blobs[row.sha256] for row in page if row.id not in newer}
            await self._writer.write_all(repo, page, texts)

    async def _owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work to its end even if the caller goes away; a request may be cancelled."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - handed to the caller
                done.set_exception(error)
                done.exception()  # seen, even if the caller has left
            else:
                done.set_result(result)

        self._tasks.create_task(run())
        return await asyncio.shield(done)
